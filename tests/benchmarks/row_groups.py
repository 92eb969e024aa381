"""One Parquet file with one large row group, read by us and by others: `python -m tests.benchmarks.row_groups`.

Each side reads all rows in a process of its own, 256 at a time, and keeps none. Prints the bytes read over the file's
size, what its processes held at most above what they held before the first row, and the least and the median seconds.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input

ROWS = 256
MIB = 2**20
BLOCK = 20  # rows of an Arrow array


def write_file(path: Path, gigabytes: float, row_bytes: int, compression: str) -> None:
    """Write pictures of random bytes, as pandas and pyarrow write them by default; all are pieces of one, in memory."""
    blob = pa.py_buffer(random.Random(0).randbytes(BLOCK * row_bytes + row_bytes))
    rows = int(gigabytes * 10**9 / row_bytes) // BLOCK * BLOCK
    images = pa.chunked_array([_pictures(blob, first, row_bytes) for first in range(0, rows, BLOCK)])
    pq.write_table(pa.table({"image": images, "n": range(rows)}), path, row_group_size=rows, compression=compression)
    found = pq.read_metadata(path)
    assert (found.num_rows, found.num_row_groups) == (rows, 1), found


def _pictures(blob: pa.Buffer, first: int, row_bytes: int) -> pa.Array:
    """Return some pictures, which differ from those of any other rows by where they begin."""
    places = np.arange(BLOCK + 1) * row_bytes + first * 7919 % row_bytes
    return pa.Array.from_buffers(pa.binary(), BLOCK, [None, pa.py_buffer(places.astype(np.int32)), blob])


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


class Measured(NamedTuple):
    """What a side reads, over the file's size, the MiB that it holds at most, its seconds, and whether it has died."""

    read: float
    held: float
    seconds: float
    has_died: bool


def measure(side: str, path: Path, most_gigabytes: float | None) -> Measured:
    """Have a side read a file in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--side", side, "--path", str(path)]
    command += ["--most-gigabytes", str(most_gigabytes)] if most_gigabytes else []
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
        took = time.monotonic() - began
        read = sum(seen.values()) - sum(read_before.values())
    return Measured(read / path.stat().st_size, (held - held_before) / MIB, took, process.returncode != 0)


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
    parser.add_argument("--compression", default="snappy", help="of the pages")
    parser.add_argument("--rounds", type=int, default=1, help="of all sides, one after the other")
    parser.add_argument("--most-gigabytes", type=float, help="of address space that a side may take")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.side:
        if settings.most_gigabytes:
            resource.setrlimit(resource.RLIMIT_AS, (int(settings.most_gigabytes * 10**9),) * 2)
        _run(settings.side, settings.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write_file(path, settings.gigabytes, settings.row_bytes, settings.compression)
        print(f"{path.stat().st_size / 10**9:.2f} GB in one row group, {settings.row_bytes} bytes a row\n")
        print("| | bytes read / file size | MiB held at most | s |\n|---|---|---|---|")
        found: dict[str, list[Measured]] = {side: [] for side in settings.sides}
        for _ in range(settings.rounds):
            for side in settings.sides:
                found[side].append(measure(side, path, settings.most_gigabytes))
        for side, all_ in found.items():
            seconds = sorted(one.seconds for one in all_)
            times = f"{seconds[0]:.1f}, {statistics.median(seconds):.1f}"
            died = " (died)" if any(one.has_died for one in all_) else ""
            read, held = max(one.read for one in all_), max(one.held for one in all_)
            print(f"| {side}{died} | {read:.2f} | {held:,.0f} | {times} |")


if __name__ == "__main__":
    main()
