"""The published data sets that are known here, by name.

Where copies lie, and what columns are called there, is a run's to say; row counts and hub names are in
docs/benchmarks.md.
"""

from collections.abc import Mapping

from jobs.benchmarks.benchmark import Benchmark
from jobs.benchmarks.datasets import (
    captions,
    documents,
    longvideobench,
    mathvista,
    mmbench,
    mmmu,
    multiple_choice,
    photographs,
    text_only,
)

_FILES = (
    *(photographs, documents, multiple_choice, mmmu, mathvista, mmbench),
    *(longvideobench, captions, text_only),
)
BENCHMARKS: Mapping[str, Benchmark] = {benchmark.key: benchmark for file in _FILES for benchmark in file.DATA_SETS}
