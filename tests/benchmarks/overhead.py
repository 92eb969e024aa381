"""What the pipeline costs beside a plain loop over the same steps: `python -m tests.benchmarks.overhead`.

Both read the demo's vqa shards, prepare, answer and write the same units: once with the demo's Aria, once with a
stand-in that answers at once. The loop does one step after another in one process. Start-up (until the first unit is
committed; in the loop, loading) is told apart. CPU seconds are those of all processes: on a busy machine they say more
than the clock. Prints a JSON line per measurement, and refuses to compare runs whose answers differ.
"""

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.config import RunSettings
from jobs.demo.data import write_question_shards
from models.stopwatch import Stopwatch
from pipeline.execution.actors import StepActor
from pipeline.execution.cluster.start import start_ray
from pipeline.execution.guard import Step
from pipeline.execution.work import Work, load_generate, load_preprocess
from pipeline.input.units import Unit
from pipeline.pipeline_settings import RaySettings
from pipeline.rows import take_step_seconds, with_unit
from pipeline.run import run
from pipeline.state.plan import read_plan
from pipeline.steps.engine import answering_engine
from pipeline.steps.read import job_rows_schema, read_job_rows, settings_by_source
from pipeline.steps.write import commit_unit
from pipeline.storage.store import Store
from tests.benchmarks.residents import below, every
from tests.benchmarks.stand_in import load_silent, silent_engines

CHECKPOINT = Path(__file__).parents[2] / "jobs" / "demo" / "checkpoints" / "aria"
TICKS = os.sysconf("SC_CLK_TCK")
Model = Literal["demo", "null"]


class Watch:
    """Clock and CPU: at the beginning, from the first unit on, at the end."""

    def __init__(self, cpu_s: Callable[[], float]) -> None:
        self._cpu_s = cpu_s
        self._marks: list[tuple[int, float, float]] = []

    def mark(self, rows: int) -> None:
        """Note that so many rows are done; only the first two marks and the last one are kept."""
        del self._marks[2:]
        self._marks.append((rows, time.monotonic(), self._cpu_s()))

    def commit(self, progress: Any) -> None:
        """Hear of a run's progress; what is between the first unit and its end is one piece."""
        if progress.answered and len(self._marks) == 1:
            self.mark(progress.answered)

    @property
    def rows(self) -> int:
        """How many were done in the end: as many as were asked for, or as there are."""
        return self._marks[-1][0]

    def numbers(self) -> dict[str, float]:
        """Return start-up, and what a thousand rows took after it."""
        (_, began, began_cpu), (first, started, started_cpu), (rows, ended, ended_cpu) = self._marks
        thousands = (rows - first) / 1000
        return {
            "start_s": started - began,
            "start_cpu_s": started_cpu - began_cpu,
            "s_per_1000": (ended - started) / thousands,
            "cpu_s_per_1000": (ended_cpu - started_cpu) / thousands,
        }


class Spent:
    """CPU seconds of this process and all below it, those that have ended meanwhile included."""

    def __init__(self) -> None:
        self._ticks: dict[int, int] = {}

    def __call__(self) -> float:
        """Return them, up to a moment ago."""
        for pid in below(os.getpid()):
            with contextlib.suppress(OSError):
                after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()
                self._ticks[pid] = int(after_name[11]) + int(after_name[12])
        return sum(self._ticks.values()) / TICKS


def measure(model: Model, rows: int, rounds: int) -> None:
    """Time both ways in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_question_shards(folder / "shards", rows)
        start_ray(RaySettings())
        load = load_generate if model == "demo" else partial(load_silent, str(folder / "pids"))
        with silent_engines(folder / "pids") if model == "null" else contextlib.nullcontext():
            for number in range(rounds):
                through_ray = _through_ray(folder, number)
                in_a_loop = _in_a_loop(folder, number, load)
                assert _answers(folder / f"ray-{number}") == _answers(folder / f"loop-{number}")
                _tell(model, through_ray, in_a_loop)


def _settings(folder: Path, name: str) -> RunSettings:
    values = {
        "read": {"uri": str(folder / "shards")},
        "model": {"path": str(CHECKPOINT)},
        "generate": {"slots": 64, "max_length": 128, "sampling": {"max_new_tokens": 8}},
        "write": {"uri": str(folder / name)},
        "job": {"kind": "vqa"},
    }
    return RunSettings.model_validate(values)


def _through_ray(folder: Path, number: int) -> Watch:
    settings = _settings(folder, f"ray-{number}")
    spent = Spent()
    with every(0.5, spent):
        watch = Watch(spent)
        watch.mark(0)
        result = run(settings, settings.job.build(), progress=watch.commit)
        watch.mark(result.rows)  # parts merged and counted
    return watch


def _in_a_loop(folder: Path, number: int, load: Callable[[Work, Stopwatch], Step]) -> Watch:
    """Do what the run has done, unit after unit, in this process."""
    settings, watch = _settings(folder, f"loop-{number}"), Watch(time.process_time)
    units, job = read_plan(Store(str(folder / f"ray-{number}"))), settings.job.build()
    work = Work(
        read=settings.read,
        model_name=settings.model.path,
        answering=answering_engine(settings, job),
        job=job,
        schema=job_rows_schema(job, units),
        store=Store(settings.write.uri, settings.write.storage),
        unit_rows=units[0].num_rows,
        load=load,
    )
    watch.mark(0)
    prepare, generate = (StepActor(one, work, "", cpus=1) for one in (load_preprocess, load))
    rows = 0
    for unit in units:
        rows += asyncio.run(_unit(unit, work, prepare, generate))
        watch.mark(rows)
    return watch


async def _unit(unit: Unit, work: Work, prepare: StepActor, generate: StepActor) -> int:
    table = read_job_rows(unit, work.job, settings_by_source(work.job, work.read))
    block = with_unit(table, unit.name, unit.num_rows)
    answered, _ = take_step_seconds(await generate(await prepare(block)))
    committed = commit_unit(answered, work.store)
    return int(committed["rows"][0].as_py())


def _answers(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("part-*.parquet")) or sorted((folder / "_triptych" / "units").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file, columns=["key", "output_token_ids"]) for file in files])
    return dict(zip(table["key"].to_pylist(), table["output_token_ids"].to_pylist(), strict=True))


def _tell(model: Model, through_ray: Watch, in_a_loop: Watch) -> None:
    ray, loop = through_ray.numbers(), in_a_loop.numbers()
    ratios = {name: ray[name] / loop[name] for name in ("s_per_1000", "cpu_s_per_1000")}
    line: dict[str, Any] = {"model": model, "rows": through_ray.rows, "load": round(os.getloadavg()[0], 1)}
    for side, numbers in (("ray", ray), ("loop", loop), ("ratio", ratios)):
        line[side] = {name: round(value, 2) for name, value in numbers.items()}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("demo", "null"), default="demo")
    parser.add_argument("--rows", type=int, default=9673, help="at most as many as there are questions: 9,673")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    measure(arguments.model, arguments.rows, arguments.rounds)
