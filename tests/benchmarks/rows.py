"""Rows per second through Ray against a plain loop over the same steps: `python -m tests.benchmarks.rows`.

Both read the demo's vqa shards, prepare, answer and write the same units with the same checkpoint. The loop does one
step after another in one process; what Ray adds (starting, moving blocks) and gives (steps at once) is the difference.
Prints one JSON line per measurement, and refuses to compare runs whose parts differ.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.config import RunSettings
from jobs.demo.data import write_question_shards
from pipeline.actors import StepActor, Work, load_generate, load_preprocess, read_block
from pipeline.cluster import RaySettings, start_ray
from pipeline.plan import read_plan
from pipeline.run import run
from pipeline.storage import Store
from pipeline.units import units_to_parquet
from pipeline.write import commit_unit

CHECKPOINT = Path(__file__).parents[2] / "jobs" / "demo" / "checkpoints" / "aria"


def measure(rows: int, rounds: int) -> None:
    """Time both ways in turn."""
    with tempfile.TemporaryDirectory() as folder:
        write_question_shards(Path(folder) / "shards", rows)
        start_ray(RaySettings())
        for number in range(rounds):
            through_ray = _ray(Path(folder), number)
            in_a_loop = _loop(Path(folder), number)
            assert _answers(Path(folder) / f"ray-{number}") == _answers(Path(folder) / f"loop-{number}")
            _tell(round=number, rows=rows, ray=through_ray, loop=in_a_loop, ratio=through_ray / in_a_loop)


def _settings(folder: Path, name: str) -> RunSettings:
    return RunSettings.model_validate(
        {
            "read": {"uri": str(folder / "shards")},
            "model": {"path": str(CHECKPOINT)},
            "generate": {"slots": 64, "max_length": 128, "sampling": {"max_new_tokens": 8}},
            "write": {"uri": str(folder / name)},
            "job": {"kind": "vqa"},
        }
    )


def _ray(folder: Path, number: int) -> float:
    settings = _settings(folder, f"ray-{number}")
    started = time.monotonic()
    result = run(settings, settings.job.build())
    return result.rows / (time.monotonic() - started)


def _loop(folder: Path, number: int) -> float:
    """Do what the run has done, unit after unit, in this process."""
    settings = _settings(folder, f"loop-{number}")
    job = settings.job.build()
    units = read_plan(Store(str(folder / f"ray-{number}")))
    store = Store(settings.write.uri, settings.write.storage)
    work = Work(
        read=settings.read,
        model=settings.model,
        model_name=settings.model.path,
        preprocess=settings.preprocess,
        generate=settings.generate,
        job=job,
        schema=units[0].table_schema,
        store=store,
        unit_rows=units[0].num_rows,
        load=load_generate,
    )
    started = time.monotonic()
    prepare, generate = (StepActor(load, work, "", cpus=1) for load in (load_preprocess, load_generate))
    rows = sum(asyncio.run(_unit(unit, work, prepare, generate)) for unit in units)
    return rows / (time.monotonic() - started)


async def _unit(unit: Any, work: Work, prepare: StepActor, generate: StepActor) -> int:
    block = read_block(pa.table({"unit": [units_to_parquet([unit])]}), work.read, None)
    committed = commit_unit(await generate(await prepare(block)), work.store)
    return int(committed["rows"][0].as_py())


def _answers(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("part-*.parquet")) or sorted((folder / "_triptych" / "units").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file, columns=["key", "output_token_ids"]) for file in files])
    return dict(zip(table["key"].to_pylist(), table["output_token_ids"].to_pylist(), strict=True))


def _tell(**numbers: float) -> None:
    load = os.getloadavg()[0]
    print(json.dumps({name: round(value, 2) for name, value in numbers.items()} | {"load": load}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=9673)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    measure(arguments.rows, arguments.rounds)
