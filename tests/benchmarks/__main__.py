"""Run a benchmark by its name: `python -m tests.benchmarks device` is `python -m tests.benchmarks.device`."""

import runpy
import sys
from pathlib import Path

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))

if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in NAMES:
        sys.exit(f"found {sys.argv[1:2]}, expected one of: {', '.join(NAMES)}")
    name = sys.argv.pop(1)
    runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__", alter_sys=True)
