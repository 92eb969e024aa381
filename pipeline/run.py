"""Run one job over one input, from the first check to the mark that all is done.

Here the steps meet: what must hold before anything starts, what is frozen, and the rounds that go on until no unit is
missing. This file knows what happens in which order, and leaves how to each step.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.execution.actors import crash_ledger
from pipeline.execution.attempt import Attempt, CommitLog, RunError
from pipeline.execution.cluster.start import stop_ray
from pipeline.execution.progress import FailureKind as FailureKind
from pipeline.execution.progress import Progress as Progress
from pipeline.execution.progress import TooManyFailed as TooManyFailed
from pipeline.execution.progress import progress_numbers as progress_numbers
from pipeline.execution.progress import repeated as repeated
from pipeline.execution.work import Work, load_generate
from pipeline.input.sources import typical_unit_rows
from pipeline.job import Job
from pipeline.pipeline_settings import LimitsSettings, PipelineSettings
from pipeline.preflight.check import PreflightResult, check, check_cluster
from pipeline.preflight.further import Known as Known
from pipeline.rows import count_rows
from pipeline.settings import dump_settings
from pipeline.state import ledger
from pipeline.state.plan import cut_parts, freeze_plan, frozen_parts
from pipeline.steps.read import job_rows_schema
from pipeline.steps.write import Part, merge_part
from pipeline.storage.store import Store

log = logging.getLogger(__name__)

# A run of which no more rows have failed is not stopped for that: it is soon done, and then has an error for each.
FEW_FAILED = 100

COUNTED = ["key", "shard", "index", "error", "prompt_tokens", "output_tokens"]


@dataclass(frozen=True)
class RunResult:
    """What stands in the output when a run has ended well; all of it, whoever wrote it.

    Attributes:
        uri: The output folder.
        rows: Rows of the input that have their place in the parts.
        answers: Rows in all parts; a row of the input that asked for several pictures has several.
        failed: Error rows among those.
        prompt_tokens: Tokens read, over all rows.
        output_tokens: Tokens written, over all rows.
        seconds: How long this start took.
        answered: Rows that this start answered; 0 means that the run was finished before.
        duplicate_keys: Rows whose key an earlier row has too.
    """

    uri: str
    rows: int
    answers: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    seconds: float
    answered: int
    duplicate_keys: int

    @property
    def failed_share(self) -> float:
        """Failed answers / answers."""
        return self.failed / self.answers if self.answers else 0.0


def run(
    settings: PipelineSettings,
    job: Job,
    *,
    progress: Callable[[Progress], None] | None = None,
    known: Known | None = None,
    ends_ray: bool = False,
) -> RunResult:
    """Answer every row of the input that has no answer yet, and leave whole parts in input order.

    A run that was interrupted goes on where it stopped; one that is finished is left alone.

    Args:
        settings: The run's settings; those of a subclass (the job's) are frozen along with the rest.
        job: What is asked and kept.
        progress: Called in this process at the start and after each unit.
        known: What is wrong already: all else that is wrong is said with it, and nothing starts.
        ends_ray: Whether a Ray that was started for this run ends with it, and does not wait for another one.

    Raises:
        ConfigError: Something would keep the run from working; every fault is listed and nothing has started.
        RunError: Units are missing and further tries bring nothing, or another run has replaced this one.
        TooManyFailed: More rows fail than the run allows; what is committed stays.
        KeyboardInterrupt: Passed on after a clean stop.
    """
    started = time.monotonic()
    store = Store(settings.write.uri, settings.write.storage)
    ready = check(settings, job, store, known, starts_ray=True)
    if ready.is_done:
        log.info("%s holds this run, finished; nothing to do", store.uri)
        ledger.sweep(store)
        return finish(store, settings.limits, time.monotonic() - started, 0)
    placement, devices = check_cluster(settings, job, store, ready)
    ready = freeze(settings, job, store, ready, devices)
    units = ready.plan.units
    parts = frozen_parts(store, units, settings.write, job)
    work = work_of(settings, job, store, ready, devices)
    ledger.sweep(store, work.units)  # what a start that was killed left half written, and what a replaced run has left
    with crash_ledger(settings.limits.attempts) as crashes:
        work = replace(work, crashes=crashes)
        judge = partial(refuse_too_many_failed, settings.limits, store.uri)
        reached = Attempt(parts, work, placement, progress, commit_log_of(store, ready), judge).run()
    if ends_ray and ready.has_own_ray:
        stop_ray()
    ledger.refuse_replaced(store, ready.run)
    ledger.sweep(store)  # and of actors that were killed since
    return finish(store, settings.limits, time.monotonic() - started, reached.answered)


def refuse_too_many_failed(limits: LimitsSettings, uri: str, progress: Progress) -> None:
    """Stop a run as soon as it is clear that more rows fail than it allows.

    Raises:
        TooManyFailed: It says how many, why, and how the run can go on.
    """
    if not progress.answered:
        return
    expected = progress.answers * progress.rows / progress.answered  # a row may ask for several pictures
    can_be_kept = progress.failed <= max(limits.max_failed_share * expected, FEW_FAILED)
    is_judged = limits.judge_after_rows is not None and progress.answered >= limits.judge_after_rows
    if can_be_kept and not (is_judged and progress.failed > limits.max_failed_share * progress.answers):
        return
    raise TooManyFailed(
        f"{progress.failed:,} of {progress.answers:,} results failed, and limits.max_failed_share="
        f"{limits.max_failed_share:g} allows {limits.max_failed_share * expected:,.0f} of all {expected:,.0f}; the run "
        f"stopped, and {progress.done:,} of {progress.rows:,} rows stay committed in {uri}",
        progress.failures,
    )


def finish(store: Store, limits: LimitsSettings, seconds: float, answered: int) -> RunResult:
    """Count what stands in the parts, and mark the output as finished: as a success, or as one with too many failures.

    Raises:
        StorageError: The output cannot be read or written.
    """
    result = count_results(store, seconds, answered)
    fault = None
    if result.failed_share > limits.max_failed_share:
        fault = (
            f"{result.failed:,} of {result.answers:,} results failed, more than limits.max_failed_share="
            f"{limits.max_failed_share:g} allows"
        )
    ledger.mark_finished(store, fault)
    return result


def work_of(
    settings: PipelineSettings, job: Job, store: Store, ready: PreflightResult, devices: Mapping[str, str]
) -> Work:
    """Return what the actors must know; `devices` are what the settings' own mean where the actors are."""
    return Work(
        read=settings.read,
        job=job,
        answering=ready.answering.engine.with_model(device=devices["device"]),
        # Workers stand in other folders than the user does, but the parts say what the user said.
        model_name=settings.model.path,
        schema=job_rows_schema(job, ready.plan.units),
        store=store,
        unit_rows=typical_unit_rows(ready.plan.units),
        load=load_generate,
        checking=ready.checking.engine.with_model(device=devices["check_device"]) if ready.checking else None,
        weights={model.path: model.digest for model in ready.models},
        units=ledger.units_folder(ready.run),
        keeps_images=settings.write.webdataset and job.picture is None,  # a drawn one is a column
    )


def commit_log_of(store: Store, ready: PreflightResult) -> CommitLog:
    """Return how a run learns what is committed: only as long as the output is its own."""
    mine = partial(ledger.refuse_replaced, store, ready.run)
    return CommitLog(
        read=partial(ledger.read_own_output, run=ready.run),
        merge=partial(merge_part, folder=ledger.units_folder(ready.run), check=mine),
        note={"first_writer_wins": ready.first_writer_wins},
    )


def freeze(
    settings: PipelineSettings, job: Job, store: Store, ready: PreflightResult, devices: Mapping[str, str]
) -> PreflightResult:
    """Write settings and plan down before the first unit, or go on with those that stand there; return what holds.

    Raises:
        ConfigError: A run of other settings stands there.
        RunError: Another run has replaced what was to go on, or was about to begin, too.
    """
    if ready.is_started:
        ledger.refuse_replaced(store, ready.run)
        frozen = ledger.read_settings(store)
        ledger.refuse_other_device(frozen, devices, store.uri)
        ledger.warn_of_other_versions(frozen)
        return ready
    if settings.write.on_existing == "replace":
        ledger.clear(store, ledger.read_output(store))
    parts = cut_parts(ready.plan.units, settings.write, job)
    dumped, run = dump_settings(settings), ledger.new_run()
    frozen = {"run": run, "settings": dumped, **devices, "weights": ready.weights, "versions": ledger.versions()}
    standing = ledger.freeze_settings(store, frozen)
    # Another driver may have been faster: then its settings and its plan hold, or ours are refused.
    ledger.refuse_other_answers(standing, dumped, ready.weights, store.uri)
    ledger.refuse_other_device(standing, devices, store.uri)
    if standing.get("run", "") == run:
        if settings.write.on_existing == "replace":
            store.delete(ledger.part_paths(store))  # the replaced run may have written one meanwhile
        return _freeze_first_plan(store, replace(ready, run=run), parts)
    units = freeze_plan(store, ready.plan.units, ready.plan.warnings, parts)
    return replace(ready, plan=replace(ready.plan, units=units), run=standing.get("run", ""))


def _freeze_first_plan(store: Store, ready: PreflightResult, parts: Sequence[Part]) -> PreflightResult:
    """Write the plan down of a run that has just begun."""
    if freeze_plan(store, ready.plan.units, ready.plan.warnings, parts) != ready.plan.units:
        store.delete([ledger.PLAN])
        store.delete([ledger.SETTINGS])
        raise RunError(
            f"another run that started in {store.uri} at the same time left its plan there; start this one again"
        )
    return ready


def count_results(store: Store, seconds: float, answered: int) -> RunResult:
    """Count what stands in the parts, so that the numbers hold whoever wrote them."""
    rows = answers = failed = prompt_tokens = output_tokens = 0
    keys = [np.zeros(0, np.int64)]
    for entry in ledger.part_paths(store):
        with store.open(entry) as file:
            table = pq.read_table(pa.PythonFile(file), columns=COUNTED)
        # Not the keys but their hashes: of ten million rows they take 80 MB, and two that meet are out of the question.
        keys.append(np.fromiter(map(hash, table["key"].to_pylist()), np.int64))
        rows += count_rows(table)
        answers += table.num_rows
        failed += table.num_rows - table["error"].null_count
        prompt_tokens += pc.sum(table["prompt_tokens"]).as_py() or 0
        output_tokens += pc.sum(table["output_tokens"]).as_py() or 0
    doubled = rows - len(np.unique(np.concatenate(keys)))
    return RunResult(store.uri, rows, answers, failed, prompt_tokens, output_tokens, seconds, answered, doubled)
