"""Run the failed rows of a finished run again and put what comes of them in their places.

They take the way of every run, as the units of a plan of their own; then each part that they belong to is written anew
in one step. This file knows the order of things, and leaves the way itself to the run.
"""

import functools
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.execution.actors import crash_ledger
from pipeline.execution.attempt import Attempt, CommitLog, Progress, RunError
from pipeline.input.formats.rows import ReadError
from pipeline.input.read import check_unchanged
from pipeline.input.units import ReadSettings, Unit
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.changes import join_fault
from pipeline.preflight.check import check, check_cluster
from pipeline.rows import IMAGES
from pipeline.run import RunResult, count_results, finish, work_of
from pipeline.settings import ConfigError
from pipeline.state import ledger
from pipeline.state.plan import frozen_parts, read_plan
from pipeline.state.retries import RetryPlan, failed_rows, freeze_retry, last_number, open_retry, restrict, row_ids_of
from pipeline.state.rewrite import count_failures, only_rows, replace_rows, spans
from pipeline.steps.read import settings_by_source
from pipeline.steps.tars import part_tar, tar_path
from pipeline.steps.write import (
    READERS,
    Part,
    oddities_in,
    parquet_bytes,
    read_unit_rows,
    unit_path,
    unit_schema,
    with_oddities,
    without_images,
)
from pipeline.storage.store import NotFound, Store


@dataclass(frozen=True)
class RetryResult:
    """What a retry has come to.

    Attributes:
        result: What stands in the output now.
        rows: Rows of the input that were run again.
        recovered: Those that are well now.
        failures: The others, as `stage`, `type` and `count`, the most frequent first.
    """

    result: RunResult
    rows: int
    recovered: int
    failures: Sequence[dict[str, Any]]


def retry(settings: PipelineSettings, job: Job, *, progress: Callable[[Progress], None] | None = None) -> RetryResult:
    """Run the failed rows of a finished run again and replace them; a retry that was interrupted goes on.

    Args:
        settings: The run's own; `write.uri` is where its output stands now.
        job: The run's own.
        progress: See `pipeline.run.run`.

    Raises:
        ConfigError: Something would keep the rows from being answered as before; nothing has changed.
        RunError: There is no finished run, rows are missing and further tries bring nothing, or another run has
            replaced this one.
        KeyboardInterrupt: Passed on after a clean stop.
    """
    started = time.monotonic()
    settings = settings.model_copy(update={"write": settings.write.model_copy(update={"on_existing": "resume"})})
    store = Store(settings.write.uri, settings.write.storage)
    if not ledger.read_output(store).is_done:
        raise RunError(f"found no finished run in {store.uri}; finish it with `triptych run`, then retry what failed")
    ledger.sweep(store)
    parts = _parts_of(store, settings, job)
    last = last_number(store)
    standing = open_retry(store, parts, last)
    found = [] if standing else failed_rows(store, parts)
    if standing is None and not found:
        return RetryResult(count_results(store, time.monotonic() - started, 0), 0, 0, ())
    ready = check(settings, job, store)
    concerned = standing.parts if standing else restrict(parts, (unit for unit, _ in found))
    refuse_changed_shards(concerned, settings_by_source(job, settings.read))
    placement, devices = check_cluster(settings, job, store, ready)
    begun = ledger.read_settings(store)
    ledger.refuse_other_device(begun, devices, store.uri)
    ledger.warn_of_other_versions(begun)
    plan = standing or freeze_retry(store, parts, last + 1, found)
    units = [unit for part in plan.parts for unit in part.units]
    work = work_of(settings, job, store, replace(ready, plan=replace(ready.plan, units=units)), devices)
    with crash_ledger(settings.limits.attempts) as crashes:
        work = replace(work, units=plan.units_folder, crashes=crashes)
        reached = Attempt(plan.parts, work, placement, progress, commit_log_of(plan)).run()
    ledger.sweep(store)
    store.delete([entry.path for entry in store.list(f"{plan.folder}/units")])  # of workers that outlived a driver
    return _retried(store, plan, finish(store, settings.limits, time.monotonic() - started, reached.answered))


def _parts_of(store: Store, settings: PipelineSettings, job: Job) -> list[Part]:
    return frozen_parts(store, read_plan(store), settings.write, job)


def commit_log_of(plan: RetryPlan) -> CommitLog:
    """Return how a retry is kept account of: its own units, and parts that stand there already."""
    return CommitLog(
        read=functools.partial(_read_output, plan=plan),
        merge=functools.partial(rewrite_part, plan=plan),
        note={"retry": plan.number},
    )


def refuse_changed_shards(parts: Iterable[Part], sources: Mapping[str, ReadSettings]) -> None:
    """Refuse to look for rows in shards that are not what they were: another row may stand at an old one's place.

    Raises:
        ConfigError: It names them.
    """
    shards = {unit.shard: unit for part in parts for unit in part.units if unit.shard}
    firsts = {unit.source: unit for unit in shards.values()}.values()

    def fault_of(unit: Unit) -> str | None:
        try:
            settings = sources[unit.source]
            check_unchanged(unit, Store(unit.root, settings.storage), settings.on_changed)
        except (ReadError, NotFound) as error:
            return str(error)
        return None

    with ThreadPoolExecutor(READERS) as readers:
        faults = [fault for fault in readers.map(fault_of, shards.values()) if fault]
    faults += [fault for unit in firsts if (fault := join_fault(unit, sources[unit.source]))]
    if faults:
        advice = (
            "a retry reads rows again at their old places: put the shards back, or run the new ones on their own; "
            "read.on_changed=accept takes shards of the planned size for what they were"
        )
        raise ConfigError("the failed rows cannot be run again", [*faults, advice])


def rewrite_part(store: Store, part: Part, schema: pa.Schema, *, plan: RetryPlan) -> None:
    """Replace a part by one with its rows that were answered again, its tar before it; then remove their units.

    Done twice it changes nothing. The units are read before the part: who finds them reads a part that has not lost
    what an earlier rewriting brought.

    Raises:
        ValueError: A unit has not the rows that the plan gives it.
        RunReplaced: The parts are another run's by now.
    """
    try:
        answered = [_answered(store, unit, unit_schema(part, schema), plan) for unit in part.units]
        again = pa.concat_tables(answered)
        rows = _read_part(store, part, schema)
        standing = replace_rows(_like(rows, again.schema), again)
        ledger.refuse_replaced(store, plan.run)
        if not without_images(standing).equals(rows):
            # Only of rows that are well is counted what was odd, so nothing of those that had failed is in there yet.
            odd = sum((oddities_in(each.schema) for each in answered), oddities_in(rows.schema))
            _replace_part(store, part, rows, with_oddities(standing, odd))
        numbers = count_failures(only_rows(standing, spans(again)))
        store.publish(plan.mark(part), json.dumps(numbers, indent=2).encode())
    except NotFound:
        ledger.refuse_replaced(store, plan.run)
        # Another driver may have written the part and removed its units under our hands; anything else is an error.
        if not store.exists(plan.mark(part)):
            raise
    store.delete([unit_path(unit.name, plan.units_folder) for unit in part.units])


def _read_part(store: Store, part: Part, schema: pa.Schema) -> pa.Table:
    rows = pq.read_table(io.BytesIO(store.read(part.path)))
    if not rows.schema.equals(schema):
        names = sorted(set(rows.schema.names) ^ set(schema.names)) or "of other types"
        raise ValueError(f"{store.name(part.path)} has other columns than this version writes: {names}")
    # Equal or not, Parquet and Arrow call the items of a list differently, and that shows in the bytes.
    return with_oddities(rows.cast(schema), oddities_in(rows.schema))


def _replace_part(store: Store, part: Part, before: pa.Table, rows: pa.Table) -> None:
    if list(spans(before)) != list(spans(rows)):
        raise ValueError(f"{store.name(part.path)} cannot be rewritten: it would lose, double or move rows")
    if part.tar_text:
        path = tar_path(part.number)
        before = store.read(path) if IMAGES.name in rows.column_names else None
        store.replace(path, part_tar(part.number, rows, part.tar_text, before))
    store.replace(part.path, parquet_bytes(without_images(rows)))


def _like(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a part's rows with the columns of units: their images stand in its tar."""
    missing = [field for field in schema if field.name not in rows.column_names]
    for field in missing:
        rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


def _answered(store: Store, unit: Unit, schema: pa.Schema, plan: RetryPlan) -> pa.Table:
    rows = read_unit_rows(store, unit, schema, plan.units_folder)
    wanted = {place for number, place in enumerate(row_ids_of(unit)) if number in unit.only}
    if set(spans(rows)) != wanted:
        raise ValueError(
            f"{store.name(unit_path(unit.name, plan.units_folder))} holds other rows than the failed ones of its unit"
        )
    return rows


def _read_output(store: Store, *, plan: RetryPlan) -> ledger.Output:
    """List a retry's own folder: as parts those that are written anew, as units those that it has committed."""
    ledger.refuse_replaced(store, plan.run)
    paths = {entry.path for entry in store.list(plan.folder)}
    parts = [part.number for part in plan.parts if plan.mark(part) in paths]
    names = (unit.name for part in plan.parts for unit in part.units)
    units = [name for name in names if unit_path(name, plan.units_folder) in paths]
    return ledger.Output(tuple(sorted(paths)), frozenset(parts), frozenset(units), ())


def _retried(store: Store, plan: RetryPlan, result: RunResult) -> RetryResult:
    """Sum up what the marks of a finished retry say."""
    marks = [json.loads(store.read(plan.mark(part))) for part in plan.parts]
    kinds: Counter[tuple[str, str]] = Counter()
    for mark in marks:
        kinds.update({(failure["stage"], failure["type"]): failure["count"] for failure in mark["failures"]})
    failures = [
        {"stage": stage, "type": kind, "count": count}
        for (stage, kind), count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    ]
    return RetryResult(result, sum(mark["rows"] for mark in marks), sum(mark["recovered"] for mark in marks), failures)
