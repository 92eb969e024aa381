"""Say before a run what it will take: its checks, then a timed sample through the real steps, extrapolated.

The sample goes through Ray as the run will, on one engine with its share of the other actors; what it answers is
counted and forgotten. Nothing is written: neither to the output nor, to try it, beside it.

How it is reckoned. The sample tells the busy seconds c_s that a row takes in each step s, from the first committed
slice on, when slots are full, and the rows a second r of them all. Its a_s actors could at best do a_s / c_s rows a
second, so together the steps reach the part e = r / min(a_s / c_s) of what the slowest of them could. Steps overlap:
the run, with A_s actors, makes e * min(A_s / c_s) rows a second. It takes what came before the first committed slice
(the checks, Ray, the models) plus the rows that are left by that rate. The range is two standard errors of the
sample's rate over equal pieces of its time, but LEAST_RANGE at least: a sample sees neither every row nor other users
of the machine. Merging parts and the report come on top; they are seconds in a minute's run, and nothing in an
hour's.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pipeline.execution.cluster.placement import NONE, Placement
from pipeline.execution.cluster.start import nodes
from pipeline.execution.progress import ENGINE, LEAST_S, FailureKind
from pipeline.input.units import Unit
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.check import PreflightResult, check, check_cluster
from pipeline.preflight.further import Known
from pipeline.preflight.memory import EngineMemory as EngineMemory
from pipeline.preflight.memory import engines_in_memory
from pipeline.preflight.pictures import Pictures as Pictures
from pipeline.preflight.pictures import look_at_pictures
from pipeline.preflight.timing import COUNTED, Taken, sample_of, take
from pipeline.rows import STEP_SECONDS
from pipeline.run import work_of
from pipeline.state import ledger
from pipeline.state.plan import cut_parts, frozen_parts
from pipeline.steps.read import settings_by_source
from pipeline.steps.write import Part
from pipeline.storage.store import Store

# How long the sample is timed while slots are full, and of how many rows it is made at most.
SAMPLE_S, SAMPLE_ROWS = 60.0, 20_000
LEAST_RANGE, UNKNOWN_RANGE, PIECES = 0.1, 0.5, 8


@dataclass(frozen=True)
class Spread:
    """Of a number that each row has: its mean over the sample, and the largest."""

    mean: float
    most: int


@dataclass(frozen=True)
class StepTime:
    """What a step takes.

    Attributes:
        actors: How many processes do it, 0 where these are as many as there is work for.
        seconds_per_row: Of one of them, busy.
        seconds: Of all of them together, busy, over all rows that are left.
    """

    actors: int
    seconds_per_row: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a run will read, take and leave, as far as a sample tells.

    Attributes:
        rows: Of the whole input.
        rows_left: Of those, not yet committed.
        units: How many there are.
        unit_rows: Of the largest.
        shards: Input files; where every file is a row, these.
        input_bytes: Of these files.
        formats: Units by the format of their shards.
        columns: Those that the input has, with their types.
        warnings: What is wrong with shards whose rows can be read all the same.
        pictures: What the images of some rows are; None where these have none.
        engines: What an engine holds in memory, by its step: `generate`, and `check` where there is one.
        sample_rows: Rows of the sample that were answered.
        sample_seconds: What the sample took, from its first committed slice to its last.
        failed_share: Of the sample.
        failures: Kinds of failure in the sample, the most frequent first.
        oddities: What was odd about the sample's images and was settled, counted.
        tokens: Spread of `prompt_tokens`, `image_tokens` and `output_tokens` over the sample's rows.
        output_bytes: Of all parts, without tars.
        check_seconds: The checks, and starting Ray or joining one; no device is held meanwhile.
        start_seconds: Until the first slice was committed: these and loading the models.
        rows_per_s: Of the run.
        seconds: The whole run, as expected.
        seconds_least: The lower end of its range.
        seconds_most: The upper end.
        steps: What each step takes.
        bottleneck: The step that holds the others up.
        devices: GPUs that engines have; on CPUs, engines.
        has_gpus: Whether engines have GPUs.
        device_hours: Of all of these together, from when the checks are done to the end.
    """

    rows: int
    rows_left: int
    units: int
    unit_rows: int
    shards: int
    input_bytes: int
    formats: Mapping[str, int]
    columns: Mapping[str, str]
    warnings: Sequence[str]
    pictures: Pictures | None
    engines: Mapping[str, EngineMemory]
    sample_rows: int
    sample_seconds: float
    failed_share: float
    failures: Sequence[FailureKind]
    oddities: Mapping[str, int]
    tokens: Mapping[str, Spread]
    output_bytes: int
    check_seconds: float
    start_seconds: float
    rows_per_s: float
    seconds: float
    seconds_least: float
    seconds_most: float
    steps: Mapping[str, StepTime]
    bottleneck: str
    devices: float
    has_gpus: bool
    device_hours: float

    def numbers(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        numbers = asdict(self)
        for name, engine in self.engines.items():
            numbers["engines"][name]["total"] = engine.total
        return numbers


def estimate(
    settings: PipelineSettings,
    job: Job,
    *,
    known: Known | None = None,
    sample_seconds: float = SAMPLE_S,
    sample_rows: int = SAMPLE_ROWS,
) -> Estimate:
    """Check a run as its start would, time a sample of what is left of it, and say what it will take.

    Args:
        settings: The run's.
        job: The run's.
        known: What is wrong already.
        sample_seconds: How long the sample is timed, from its first committed slice on; it ends with the slice after.
        sample_rows: At most so many rows.

    Raises:
        ConfigError: The run could not start; every fault is listed, as for `pipeline.run.run`.
        RunError: The run is finished: nothing is left to be planned.
    """
    began = time.monotonic()
    store = Store(settings.write.uri, settings.write.storage)
    ready = check(settings, job, store, known, is_written=False, starts_ray=True)
    left = _units_left(settings, job, store, ready)
    if not left:
        raise ledger.RunError(f"{store.uri} holds this run, and nothing is left to do")
    placement, devices = check_cluster(settings, job, store, ready, is_written=False)
    work = replace(work_of(settings, job, store, ready, devices), store=Store("memory://triptych-plan"))
    share = _share_of_one(placement)
    sample = sample_of(left, sample_rows)
    checked = time.monotonic() - began
    taken = take(sample, work, share, settings.limits.attempts, began, sample_seconds)
    return _extrapolated(
        ready,
        left,
        taken,
        placement,
        share,
        num_parts=len(_parts(settings, job, store, ready)),
        check_seconds=checked,
        pictures=look_at_pictures(sample, settings_by_source(job, settings.read), job),
        engines=_engines(ready, placement, devices, taken),
    )


def _engines(
    ready: PreflightResult, placement: Placement, devices: Mapping[str, str], taken: Taken
) -> dict[str, EngineMemory]:
    """Say what the engines of each model hold, and whether it fits."""
    from models.capacity.footprint import footprint

    steps = {"generate": (ready.answering, placement.generate, devices["device"])}
    if ready.checking:
        steps["check"] = (ready.checking, placement.check, devices["check_device"])
    engines = []
    for step, (model, actors, device) in steps.items():
        spec, length = model.engine, model.max_length
        slots, why = taken.slots.get(step, (spec.most_slots(actors.gpus), ""))
        held = footprint(
            model.folder,
            device=device,
            dtype=spec.model.dtype,
            slots=slots,
            max_length=length,
            images=spec.preprocess.images,
            text_only=spec.model.text_only,
        )
        engines.append((EngineMemory(slots, length, **asdict(held), why=why), actors.least, device == "cpu"))
    return dict(zip(steps, engines_in_memory(engines, nodes()), strict=True))


def _parts(settings: PipelineSettings, job: Job, store: Store, ready: PreflightResult) -> list[Part]:
    cut = partial(frozen_parts, store) if ready.is_started else cut_parts
    return cut(ready.plan.units, settings.write, job)


def _units_left(settings: PipelineSettings, job: Job, store: Store, ready: PreflightResult) -> list[Unit]:
    if not ready.is_started:
        return ready.plan.units
    output = ledger.read_own_output(store, ready.run)
    parts = _parts(settings, job, store, ready)
    units = [unit for part in parts if part.number not in output.parts for unit in part.units]
    return [unit for unit in units if unit.name not in output.units]


def _share_of_one(placement: Placement) -> Placement:
    """Return one engine with its share of the actors that prepare rows for it, and one that checks, if any does."""
    engines = placement.generate.least
    prepare = max(1, round(placement.preprocess.least / engines))
    return Placement(
        replace(placement.preprocess, least=prepare, most=prepare),
        replace(placement.generate, least=1, most=1),
        replace(placement.check, least=1, most=1) if placement.check.least else NONE,
    )


def _extrapolated(
    ready: PreflightResult,
    left: Sequence[Unit],
    taken: Taken,
    placement: Placement,
    share: Placement,
    *,
    num_parts: int,
    check_seconds: float,
    pictures: Pictures | None,
    engines: Mapping[str, EngineMemory],
) -> Estimate:
    units, rows, progress = ready.plan.units, sum(unit.num_rows for unit in left), taken.progress
    all_rows = sum(unit.num_rows for unit in units)
    costs = _seconds_per_row(taken)
    sampled, off = rate_of([one["rows"] for one in taken.slices], taken.moments)
    slowest, limit = _slowest(costs, placement)
    rate = sampled * _slowest(costs, share)[1] / limit if limit else sampled * placement.generate.least
    start, then = taken.moments[0], max(0, rows - taken.slices[0]["rows"]) / rate
    gpus = placement.generate.least * placement.generate.gpus + placement.check.least * placement.check.gpus
    devices = gpus or float(placement.generate.least + placement.check.least)
    return Estimate(
        rows=all_rows,
        rows_left=rows,
        units=len(units),
        unit_rows=max(unit.num_rows for unit in units),
        shards=len({(unit.root, unit.shard) for unit in units if unit.shard}) + sum(len(unit.paths) for unit in units),
        input_bytes=sum({(unit.root, unit.shard, unit.paths[:1]): unit.size for unit in units}.values()),
        formats=dict(Counter(unit.format for unit in units)),
        columns={
            column.name: str(column.type)
            for unit in _first_of_each(units)
            for column in unit.table_schema
            if column.name != "error"
        },
        warnings=ready.plan.warnings,
        pictures=pictures,
        engines=engines,
        sample_rows=progress.answered,
        sample_seconds=taken.moments[-1] - start,
        failed_share=progress.failed / progress.answers,
        failures=progress.failures,
        oddities=dict(sum((Counter(dict(one["oddities"])) for one in taken.slices), Counter())),
        tokens={name: _spread([n for one in taken.slices for n in one[f"{name}_each"]]) for name in COUNTED},
        output_bytes=round(
            sum(one["bytes"] for one in taken.slices) / progress.answered * all_rows
            + num_parts * max(one["empty_bytes"] for one in taken.slices)
        ),
        check_seconds=check_seconds,
        start_seconds=start,
        rows_per_s=rate,
        seconds=start + then,
        seconds_least=start + then / (1 + off),
        seconds_most=start + then * (1 + off),
        steps={name: StepTime(_actors(name, placement), cost, cost * rows) for name, cost in costs.items()},
        bottleneck=slowest,
        devices=devices,
        has_gpus=bool(gpus),
        device_hours=devices * (start + then - check_seconds) / 3600,
    )


def _seconds_per_row(taken: Taken) -> dict[str, float]:
    """Return the busy seconds that a row takes in each step, while slots are full where the sample is long enough."""
    slices = taken.slices[1:] or taken.slices
    rows, seconds = sum(one["rows"] for one in slices), Counter[str]()
    for one in slices:
        seconds.update(dict(one[STEP_SECONDS]))
    spent = {
        "read": seconds["read"],
        "preprocess": seconds["preprocess"],
        "generate": sum(seconds[name] for name in ENGINE),
        "paint": seconds["paint"],
        "check": sum(seconds[f"check.{name}"] for name in ENGINE),
        "write": seconds["write"],
    }
    return {name: spent[name] / rows for name in spent if spent[name]}


def _actors(step: str, placement: Placement) -> int:
    pools = {"preprocess": placement.preprocess, "generate": placement.generate, "paint": placement.generate}
    return {**pools, "check": placement.check}.get(step, NONE).least


def _slowest(costs: Mapping[str, float], placement: Placement) -> tuple[str, float]:
    """Return the step that holds the others up, and the seconds in which all of its actors together do a row."""
    each = {name: cost / _actors(name, placement) for name, cost in costs.items() if _actors(name, placement)}
    slowest = max(each, key=each.__getitem__, default="read")
    return slowest, each.get(slowest, 0.0)


def rate_of(rows: Sequence[int], moments: Sequence[float]) -> tuple[float, float]:
    """Return the rows a second behind the first slice, and by what share of it the truth may be more or less.

    Args:
        rows: Of each slice, in the order in which they were committed.
        moments: The seconds at which they were.
    """
    seconds = moments[-1] - moments[0]
    if seconds < LEAST_S:  # all of it was answered at once: no rate is known but the slowest that it may be
        return sum(rows) / moments[-1], UNKNOWN_RANGE
    done = np.cumsum([0, *rows[1:]])
    pieces = np.diff(np.interp(np.linspace(moments[0], moments[-1], PIECES + 1), moments, done))
    error = float(np.std(pieces, ddof=1)) / math.sqrt(PIECES)
    return float(done[-1]) / seconds, max(LEAST_RANGE, 2 * error / float(np.mean(pieces)))


def _first_of_each(units: Sequence[Unit]) -> list[Unit]:
    return list({unit.source: unit for unit in reversed(units)}.values())


def _spread(numbers: Sequence[int]) -> Spread:
    return Spread(sum(numbers) / max(1, len(numbers)), max(numbers, default=0))
