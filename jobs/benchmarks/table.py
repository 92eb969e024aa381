"""The published data sets that are known here, by name.

What each is stands beside its adapter. Where copies lie, and what columns are called there, is a run's to say; row
counts and hub names are in docs/benchmarks.md.
"""

from collections.abc import Mapping

from jobs.benchmarks import captions, options, short_answers, texts, videos
from jobs.benchmarks.benchmark import Benchmark

_KINDS = (short_answers, options, videos, captions, texts)

BENCHMARKS: Mapping[str, Benchmark] = {benchmark.key: benchmark for kind in _KINDS for benchmark in kind.DATA_SETS}
