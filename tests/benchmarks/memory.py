"""Memory over many rows, second by second: `python -m tests.benchmarks.memory`.

Small JPEG and PNG files in tars go the whole way: read, made ready by Aria's processor, answered by a stand-in, written
and merged. Prints a table of tenths of the run, a curve, and what tiles take as uint8 and as the reference's floats;
`--csv` keeps every look. Exits with 1 if memory grew or anything was spilled.
"""

import argparse
import csv
import io
import os
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from jobs.caption import CaptionSettings
from pipeline.execution.attempt import Progress
from pipeline.execution.cluster.start import start_ray
from pipeline.input.read import read_unit
from pipeline.pipeline_settings import PipelineSettings
from pipeline.run import run
from pipeline.settings import check_settings
from pipeline.state.plan import read_plan
from pipeline.steps.engine import answering_engine
from pipeline.steps.preprocess import Preprocess
from pipeline.storage.store import Store
from tests.benchmarks.residents import EVERY_SECOND, STEPS, Resident, Residents, every
from tests.benchmarks.stand_in import silent_engines

# No tests.tiny here: this process is measured, and would hold torch.
CHECKPOINT = Path(__file__).parents[2] / "jobs" / "demo" / "checkpoints" / "aria"
ROWS_PER_TAR = 2000
DISTINCT = 200
# Of the median of the second tenth of the rows, and beside it what a process may take and give back by chance.
GROWN, GROWN_MIB = 1.1, 40.0


def write_tars(folder: Path, rows: int) -> int:
    """Write tars of pictures, half JPEG and half PNG; return their bytes."""
    folder.mkdir()
    pictures = [_picture(number) for number in range(DISTINCT)]
    for first in range(0, rows, ROWS_PER_TAR):
        with tarfile.open(folder / f"{first // ROWS_PER_TAR:04d}.tar", "w") as tar:
            for number in range(first, min(rows, first + ROWS_PER_TAR)):
                name, data = pictures[number * 7 % DISTINCT]
                member = tarfile.TarInfo(f"{number:07d}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return sum(path.stat().st_size for path in folder.iterdir())


def _picture(number: int) -> tuple[str, bytes]:
    chance = np.random.default_rng(number)
    coarse = chance.integers(0, 256, (6, 6, 3), np.uint8)
    width, height = (int(side) for side in chance.integers(64, 257, 2))
    sink, kind = io.BytesIO(), "jpg" if number % 2 else "png"
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.save(sink, "jpeg" if kind == "jpg" else "png")
    return kind, sink.getvalue()


def measure(folder: Path, rows: int, out: TextIO) -> list[Resident]:
    """Run all of it; return what was resident, written down line by line meanwhile."""
    writer = csv.DictWriter(out, [field.name for field in fields(Resident)])
    writer.writeheader()
    job = CaptionSettings(kind="caption").build()
    settings = _settings(folder)
    reached = Progress(rows, 0)

    def tell(progress: Progress) -> None:
        nonlocal reached
        reached = progress

    def note(one: Resident) -> None:
        writer.writerow(asdict(one))
        out.flush()

    os.environ |= EVERY_SECOND
    start_ray(settings.ray)
    residents = Residents(lambda: reached.done, folder / "pids", note)
    with silent_engines(folder / "pids"), every(1.0, residents.look):
        result = run(settings, job, progress=tell)
    assert (result.rows, result.failed) == (rows, 0), result
    return residents.seen


def _settings(folder: Path) -> PipelineSettings:
    values = {
        "read": {"uri": str(folder / "shards")},
        "model": {"path": str(CHECKPOINT), "device": "cpu"},
        "generate": {"slots": 64, "sampling": {"max_new_tokens": 8}},
        "write": {"uri": str(folder / "out")},
    }
    return check_settings(PipelineSettings, values)


def tile_bytes(folder: Path) -> dict[str, float]:
    """Return bytes per row of tiles as they travel, and of what the reference's processor would hand over."""
    settings, job = _settings(folder), CaptionSettings(kind="caption").build()
    processor = answering_engine(settings, job).open_processor(settings.model.path)
    unit = read_plan(Store(settings.write.uri, settings.write.storage))[0]
    block = Preprocess(processor, job, job.sampling)(read_unit(unit, settings.read))
    ours = pc.sum(pc.binary_length(pc.list_flatten(block["input.tiles"]))).as_py()
    sides = pc.list_flatten(block["input.tile_shapes"]).to_numpy()
    # Float32 pixels of the whole canvas, three channels, and a byte of mask.
    canvas = sum(13 * max(height, width) ** 2 for height, width in zip(sides[::2], sides[1::2], strict=True))
    return {"uint8": ours / len(block), "float32": 4 * ours / len(block), "reference": int(canvas) / len(block)}


def tenths(seen: Sequence[Resident]) -> list[dict[str, float]]:
    """Return the medians of each tenth of the rows, of the looks between the first commit and the last."""
    last = max(one.rows for one in seen)
    table = []
    for tenth in range(10):
        some = [one for one in seen if last * tenth < 10 * one.rows <= last * (tenth + 1) and one.rows < last]
        if some:
            table.append({f.name: statistics.median(getattr(one, f.name) for one in some) for f in fields(Resident)})
    return table


def has_grown(table: Sequence[dict[str, float]]) -> list[str]:
    """Name what is larger in the last tenth than it was in the second."""
    names = [name for name in STEPS if table[-1][name] > GROWN * table[1][name] + GROWN_MIB]
    return [*names, *(["spilled"] if any(row["spilled"] for row in table) else [])]


def curve(seen: Sequence[Resident], width: int = 60) -> list[str]:
    """Return a line for each kind of memory, eight heights from 0 to its own greatest."""
    lines = []
    picked = [seen[place * len(seen) // width] for place in range(width)] if len(seen) > width else list(seen)
    for name in (*STEPS, "store", "spilled"):
        values = [getattr(one, name) for one in picked]
        most = max(getattr(one, name) for one in seen)
        drawn = "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * value / most))] if most else "▁" for value in values)
        lines.append(f"{name:>10} {drawn} {most:.0f} MiB at most")
    return lines


def main(rows: int, out: str | None) -> int:
    """Measure and tell."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{rows} rows, {write_tars(folder / 'shards', rows) / 2**20:.0f} MiB of tars")
        with open(out or os.devnull, "w", newline="", encoding="utf-8") as file:
            seen = measure(folder, rows, file)
        sizes = tile_bytes(folder)
    table = tenths(seen)
    print("| " + " | ".join(field.name for field in fields(Resident)) + " |")
    for row in table:
        print("| " + " | ".join(f"{value:.0f}" for value in row.values()) + " |")
    print("\n".join(curve(seen)))
    print("bytes of tiles a row: " + ", ".join(f"{name} {size:.0f}" for name, size in sizes.items()))
    grown = has_grown(table)
    print(f"grown: {', '.join(grown) or 'nothing'}; load {os.getloadavg()[0]:.1f}")
    return 1 if grown else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--csv")
    arguments = parser.parse_args()
    sys.exit(main(arguments.rows, arguments.csv))
