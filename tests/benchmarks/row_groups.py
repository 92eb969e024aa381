"""One Parquet file with one large row group, read by us and by others: `python -m tests.benchmarks.row_groups`.

Each side reads all rows in a process of its own, 256 at a time, and keeps none. Prints the bytes read over the file's
size, and what its processes held at most above what they held before the first row.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input

ROWS = 256
MIB = 2**20
BLOCK = 2000  # rows of an Arrow array


def write_file(path: Path, gigabytes: float, row_bytes: int) -> None:
    """Write pictures of random bytes, as pandas and pyarrow write them by default; holds them all."""
    blob = random.Random(0).randbytes(2**20 + row_bytes)
    rows = int(gigabytes * 10**9 / row_bytes)
    images = pa.chunked_array(
        [
            pa.array([_picture(blob, number, row_bytes) for number in range(first, min(rows, first + BLOCK))])
            for first in range(0, rows, BLOCK)
        ]
    )
    pq.write_table(pa.table({"image": images, "n": range(rows)}), path, row_group_size=rows)
    found = pq.read_metadata(path)
    assert (found.num_rows, found.num_row_groups) == (rows, 1), found


def _picture(blob: bytes, number: int, row_bytes: int) -> bytes:
    start = number * 7919 % 2**20
    return number.to_bytes(8) + blob[start : start + row_bytes - 8 - number % 97]


def ours(path: str) -> Iterator[int]:
    """Plan, and read unit after unit."""
    read = ReadSettings(uri=path)
    yield 0
    for unit in plan_input(read, ROWS).units:
        yield read_unit(unit, read).num_rows


def dataset(path: str) -> Iterator[int]:
    """Scan as pyarrow does by default."""
    yield 0
    for batch in ds.dataset(path).to_batches(batch_size=ROWS):
        yield batch.num_rows


def dataset_careful(path: str) -> Iterator[int]:
    """Scan with all that reads ahead turned off."""
    options = ds.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
    yield 0
    scan = {"batch_readahead": 0, "fragment_readahead": 0, "use_threads": False}
    for batch in ds.dataset(path).to_batches(batch_size=ROWS, fragment_scan_options=options, **scan):
        yield batch.num_rows


def ray_data(path: str) -> Iterator[int]:
    """Read with Ray Data, on two cores."""
    import ray

    ray.init(num_cpus=2, object_store_memory=4 * 2**30, include_dashboard=False, log_to_driver=False)
    yield sum(1 for _ in ray.data.range(10).iter_batches()) * 0  # its processes have started
    for batch in ray.data.read_parquet(path).iter_batches(batch_size=ROWS, batch_format="pyarrow"):
        yield batch.num_rows


SIDES = {"ours": ours, "pyarrow.dataset": dataset, "the same, no read-ahead": dataset_careful, "ray.data": ray_data}


def measure(side: str, path: Path) -> tuple[float, float, float]:
    """Return what a side reads, over the file's size, the MiB that it holds at most, and its seconds."""
    command = [sys.executable, "-m", __spec__.name, "--side", side, "--path", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        read_before, held_before = _read(process.pid, {}), _held(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        began, held, seen = time.monotonic(), 0.0, dict(read_before)
        while process.poll() is None:
            held = max(held, _held(process.pid))
            seen = _read(process.pid, seen)
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"{side} ended with {process.returncode}")
        took = time.monotonic() - began
        read = sum(seen.values()) - sum(read_before.values())
    return read / path.stat().st_size, (held - held_before) / MIB, took


def _processes(pid: int) -> list[int]:
    """Return a process and those that it or they started."""
    found = [pid]
    for parent in found:
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            found += _numbers(tasks)
    return found


def _numbers(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.read_text().split()]
    except OSError:
        return []


def _held(pid: int) -> float:
    """Return the bytes that processes hold, what they share counted once."""
    return sum(_field(Path(f"/proc/{each}/smaps_rollup"), "Pss:") for each in _processes(pid)) * 1024


def _read(pid: int, seen: dict[int, int]) -> dict[int, int]:
    """Return the bytes that each process has read, those that are gone with what was last seen."""
    return seen | {each: max(seen.get(each, 0), _field(Path(f"/proc/{each}/io"), "rchar:")) for each in _processes(pid)}


def _field(path: Path, name: str) -> int:
    try:
        return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name)), 0)
    except OSError:
        return 0


def _run(side: str, path: str) -> None:
    rows = SIDES[side](path)
    next(rows)
    print("ready", flush=True)
    sys.stdin.readline()
    found = sum(rows)
    expected = pq.read_metadata(path).num_rows
    if found != expected:
        raise SystemExit(f"found {found} rows, expected {expected}")


def main() -> None:
    """Write a file, measure all sides, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the file")
    parser.add_argument("--row-bytes", type=int, default=50_000, help="size of a row's picture")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.side:
        _run(settings.side, settings.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write_file(path, settings.gigabytes, settings.row_bytes)
        print(f"{path.stat().st_size / 10**9:.2f} GB in one row group, {settings.row_bytes} bytes a row\n")
        print("| | bytes read / file size | MiB held at most | s |\n|---|---|---|---|")
        for side in settings.sides:
            read, held, took = measure(side, path)
            print(f"| {side} | {read:.2f} | {held:,.0f} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
