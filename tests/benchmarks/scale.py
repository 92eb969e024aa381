"""Ten million rows in ten thousand units without a model: `python -m tests.benchmarks.scale`.

Lines of text are planned, read, committed and merged by real runs whose steps in between look at no row. One run is
interrupted half way, one goes on, one finds all done; each is a process of its own. Prints a JSON line for each:
seconds until work could start, until the first unit, until the end, CPU seconds and greatest memory of the driver, what
the ledger holds. `--rows`, `--units` and `--files` choose less.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.execution.attempt import Progress
from pipeline.pipeline_settings import PipelineSettings
from pipeline.run import run
from pipeline.settings import check_settings
from tests.benchmarks.stand_in import NullJob, no_steps

CHECKPOINT = Path(__file__).parents[2] / "jobs" / "demo" / "checkpoints" / "aria"
STARTS = ("half", "rest", "nothing")


def write_lines(folder: Path, rows: int, files: int) -> None:
    """Write files of numbered lines, about 50 bytes each."""
    folder.mkdir()
    numbers = iter(range(rows))
    for file in range(files):
        lines = itertools.islice(numbers, -(-rows // files))
        text = "".join(f"line {number:09d} of a text that nobody will read\n" for number in lines)
        (folder / f"{file:05d}.txt").write_text(text, encoding="utf-8")


class Clock:
    """Notes when a run says what; interrupts it once so many rows are done."""

    def __init__(self, stop_at: float) -> None:
        self.numbers: dict[str, Any] = {}
        self._stop_at = stop_at
        self._started = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Take note."""
        if not self.numbers:
            self.note("ready_s")
            self.numbers["rows_done_before"] = progress.done
        elif "first_unit_s" not in self.numbers:
            self.note("first_unit_s")
        self.numbers["rows_answered"] = progress.answered
        if progress.done >= self._stop_at:
            raise KeyboardInterrupt

    def note(self, name: str) -> None:
        """Write down how long it took so far."""
        self.numbers[name] = round(time.monotonic() - self._started, 1)
        self.numbers[f"{name}_of_cpu"] = round(time.process_time(), 1)


def start_run(folder: Path, start: str, rows: int, units: int) -> dict[str, Any]:
    """Run in this process; return its numbers."""
    values = {
        "read": {"uri": str(folder / "lines"), "format": "text"},
        "model": {"path": str(CHECKPOINT), "device": "cpu"},
        "write": {"uri": str(folder / "out"), "unit_rows": -(-rows // units)},
    }
    clock = Clock(rows / 2 if start == "half" else float("inf"))
    with no_steps():
        try:
            result = run(check_settings(PipelineSettings, values), NullJob(), progress=clock)
            clock.numbers |= {"rows": result.rows, "failed": result.failed, "duplicates": result.duplicate_keys}
        except KeyboardInterrupt:
            pass
    clock.note("all_s")
    return {"start": start, **clock.numbers, "driver_mib": greatest_mib(), **_ledger(folder / "out")}


def greatest_mib() -> int:
    """Return the most memory that this process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def _ledger(out: Path) -> dict[str, float]:
    ours = [path for path in (out / "_triptych").rglob("*") if path.is_file()]
    return {
        "ledger_files": len(ours),
        "ledger_mib": round(sum(path.stat().st_size for path in ours) / 2**20, 1),
        "plan_mib": round((out / "_triptych" / "plan.parquet").stat().st_size / 2**20, 2),
        "parts": len(list(out.glob("part-*.parquet"))),
    }


def main(rows: int, units: int, files: int) -> None:
    """Do all starts, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        write_lines(Path(folder) / "lines", rows, files)
        for start in STARTS:
            again = [sys.executable, "-m", "tests.benchmarks.scale", "--folder", folder, "--start", start]
            subprocess.run([*again, "--rows", str(rows), "--units", str(units)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start", choices=STARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        numbers = start_run(arguments.folder, arguments.start, arguments.rows, arguments.units)
        print(json.dumps(numbers | {"load": round(os.getloadavg()[0], 1)}), flush=True)
    else:
        main(arguments.rows, arguments.units, arguments.files)
