"""Run one job over one input, from the first check to the mark that all is done.

Here the steps meet: what must hold before anything starts, what is frozen, and the rounds that go on until no unit is
missing. This file knows what happens in which order, and leaves how to each step.
"""

import logging
import platform
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import ledger
from pipeline.actors import Work, crash_ledger, load_generate
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.placement import Placement
from pipeline.plan import freeze_plan, rows_per_part
from pipeline.preflight import Ready, check, check_device, place_on_ray
from pipeline.rows import count_rows, part_schema
from pipeline.settings import dump_settings
from pipeline.storage import Store
from pipeline.stream import stream
from pipeline.units import Unit
from pipeline.write import Part, Parts, merge_part, plan_parts, unit_path

__all__ = ["PipelineSettings", "Progress", "RunError", "RunResult", "run"]

log = logging.getLogger(__name__)

COUNTED = ["key", "shard", "index", "error", "prompt_tokens", "output_tokens"]


class RunError(Exception):
    """The run stopped before every row had its place; what is committed stays."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        rows: Rows of the whole run.
        done: Rows committed, by this start or an earlier one.
        answered: Rows committed by this start.
        failed: Of those, error rows.
        prompt_tokens: Of those, tokens read.
        output_tokens: Of those, tokens written.
        seconds: Since this start.
    """

    rows: int
    done: int
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def after(self, unit: Mapping[str, Any], seconds: float) -> "Progress":
        """Return the progress with one more unit committed."""
        return replace(
            self,
            done=self.done + unit["rows"],
            answered=self.answered + unit["rows"],
            failed=self.failed + unit["failed"],
            prompt_tokens=self.prompt_tokens + unit["prompt_tokens"],
            output_tokens=self.output_tokens + unit["output_tokens"],
            seconds=seconds,
        )


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


def run(settings: PipelineSettings, job: Job, *, progress: Callable[[Progress], None] | None = None) -> RunResult:
    """Answer every row of the input that has no answer yet, and leave whole parts in input order.

    A run that was interrupted goes on where it stopped; one that is finished is left alone.

    Args:
        settings: The run's settings; those of a subclass (the job's) are frozen along with the rest.
        job: What is asked and kept.
        progress: Called in this process at the start and after each unit.

    Raises:
        ConfigError: Something would keep the run from working; every fault is listed and nothing has started.
        RunError: Units are missing and further tries bring nothing.
        KeyboardInterrupt: Passed on after a clean stop.
    """
    started = time.monotonic()
    store = Store(settings.write.uri, settings.write.storage)
    ready = check(settings, job, store)
    if ready.is_done:
        log.info("%s holds this run, finished; nothing to do", store.uri)
        return count_results(store, time.monotonic() - started, 0)
    placement, device = place_on_ray(settings, job)
    devices = {"device": device, "check_device": check_device(job, placement)}
    units = _freeze(settings, store, ready, devices)
    num_rows = rows_per_part(settings.write.rows_per_part, units, job)
    parts = plan_parts(units, num_rows, have_tars=settings.write.webdataset)
    work = work_of(settings, job, store, replace(ready, units=units), **devices)
    with crash_ledger(settings.limits.attempts) as crashes:
        reached = Rounds(parts, replace(work, crashes=crashes), placement, progress).run()
    store.publish(ledger.SUCCESS, b"")
    return count_results(store, time.monotonic() - started, reached.answered)


def work_of(
    settings: PipelineSettings, job: Job, store: Store, ready: Ready, device: str, check_device: str = ""
) -> Work:
    """Return what the actors must know; the devices are what the settings' own mean where they are."""
    checking = job.check.settings.model if job.check else None
    return Work(
        read=settings.read,
        # Workers stand in other folders than the user does, but the parts say what the user said.
        model=settings.model.model_copy(update={"device": device, "path": ready.model_path}),
        model_name=settings.model.path,
        preprocess=settings.preprocess,
        generate=settings.generate,
        job=job,
        schema=ready.units[0].table_schema,
        store=store,
        unit_rows=max(unit.num_rows for unit in ready.units),
        load=load_generate,
        check_model=checking and checking.model_copy(update={"device": check_device, "path": ready.check_path}),
    )


@dataclass(frozen=True)
class Books:
    """How rounds are kept account of; a run and a retry do it differently.

    Attributes:
        look: Says which parts stand there and which units are committed.
        merge: Makes a part of its committed units and removes these.
        note: What an attempt says beside its numbers.
    """

    look: Callable[[Store], ledger.Output] = ledger.look
    merge: Callable[[Store, Part, pa.Schema], None] = merge_part
    note: Mapping[str, Any] = field(default_factory=dict)


RUN = Books()


class Rounds:
    """The rounds of one start: each streams what is missing; they end when nothing is, or when one brings nothing."""

    def __init__(
        self,
        parts: list[Part],
        work: Work,
        placement: Placement,
        progress: Callable[[Progress], None] | None,
        books: Books = RUN,
    ) -> None:
        self._parts = parts
        self._books = books
        self._work = work
        self._placement = placement
        self._tell = progress or (lambda _: None)
        self._units = {unit.name: unit for part in parts for unit in part.units}
        self._rows = {name: unit.num_rows for name, unit in self._units.items()}
        self._started = time.monotonic()
        self._reached = Progress(sum(self._rows.values()), 0)

    def run(self) -> Progress:
        """Work until every part stands in the output; return how far this start came.

        Raises:
            RunError: A round committed nothing.
        """
        outcome, began = "failed", time.time()
        try:
            merged = self._look()
            self._tell(self._reached)
            while merged.missing_units:
                self._round(merged)
                merged = self._look()
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            self._write_attempt(outcome, began)
        return self._reached

    def _look(self) -> Parts:
        """Compare plan and output; merge what is ready to be merged, and clear away what parts hold already."""
        store = self._work.store
        output = self._books.look(store)
        standing = [part for part in self._parts if part.number in output.parts]
        leftover = [unit.name for part in standing for unit in part.units if unit.name in output.units]
        store.delete([unit_path(name, self._work.units) for name in leftover])
        open_parts = [part for part in self._parts if part.number not in output.parts]
        committed = output.units - set(leftover)
        schema = part_schema(self._work.schema, self._work.job)
        parts = Parts(store, open_parts, sorted(committed), schema, self._books.merge)
        done = self._reached.rows - sum(self._rows[name] for name in parts.missing_units)
        self._reached = replace(self._reached, done=done)
        return parts

    def _round(self, parts: Parts) -> None:
        missing = [unit for name, unit in self._units.items() if name in parts.missing_units]
        before = self._reached.answered
        log.info("%d units with %d rows to do", len(missing), sum(self._rows[unit.name] for unit in missing))
        failure: Exception | None = None
        try:
            with closing(stream(missing, self._work, self._placement)) as committed:
                for numbers in committed:
                    parts.add(numbers["unit"])
                    self._reached = self._reached.after(numbers, time.monotonic() - self._started)
                    self._tell(self._reached)
        except Exception as error:  # Ray passes on anything that a step raised
            failure = error
        if self._reached.answered == before:
            raise RunError(_why(failure, len(missing))) from failure
        if failure is not None:
            log.warning("a round ended early and is followed by another: %s", _why(failure, len(missing)))

    def _write_attempt(self, outcome: str, began: float) -> None:
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(began))}-{uuid.uuid4().hex[:8]}"
        numbers = {
            "outcome": outcome,
            **self._books.note,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            **asdict(replace(self._reached, seconds=time.monotonic() - self._started)),
            "host": platform.node(),
            "placement": asdict(self._placement),
            "versions": ledger.versions(),
        }
        ledger.write_attempt(self._work.store, name, numbers)


def _freeze(settings: PipelineSettings, store: Store, ready: Ready, devices: Mapping[str, str]) -> list[Unit]:
    """Write settings and plan down before the first unit, or go on with those that stand there."""
    if ready.is_started:
        ledger.refuse_other_device(ledger.read_settings(store), devices, store.uri)
        return ready.units
    if settings.write.on_existing == "replace":
        ledger.clear(store, ledger.look(store))
    dumped = dump_settings(settings)
    frozen = {"settings": dumped, **devices, "weights": ready.weights, "versions": ledger.versions()}
    standing = ledger.freeze_settings(store, frozen)
    # Another driver may have been faster: then its settings and its plan hold, or ours are refused.
    ledger.refuse_other_answers(standing, dumped, ready.weights, store.uri)
    ledger.refuse_other_device(standing, devices, store.uri)
    return freeze_plan(store, ready.units)


def count_results(store: Store, seconds: float, answered: int) -> RunResult:
    """Count what stands in the parts, so that the numbers hold whoever wrote them."""
    rows = answers = failed = prompt_tokens = output_tokens = 0
    keys: list[pa.Array] = []
    for entry in ledger.part_paths(store):
        with store.open(entry) as file:
            table = pq.read_table(pa.PythonFile(file), columns=COUNTED)
        keys += table["key"].chunks
        rows += count_rows(table)
        answers += table.num_rows
        failed += table.num_rows - table["error"].null_count
        prompt_tokens += pc.sum(table["prompt_tokens"]).as_py() or 0
        output_tokens += pc.sum(table["output_tokens"]).as_py() or 0
    doubled = rows - pc.count_distinct(pa.chunked_array(keys, pa.string())).as_py()
    return RunResult(store.uri, rows, answers, failed, prompt_tokens, output_tokens, seconds, answered, doubled)


# One line of a traceback that names an exception which is not Ray's wrapping around another.
_RAISED = re.compile(r"^(?!ray\.)[\w.]*(?:Error|Exception|Died)\w*: .+$", re.MULTILINE)


def _why(failure: Exception | None, missing: int) -> str:
    """Say in one line what ended a round; Ray hands on what a step raised only as the text of its traceback."""
    if failure is None:
        return f"{missing} units came back without being committed"
    raised = _RAISED.findall(str(failure))
    lines = str(failure).strip().splitlines()
    return f"{missing} units are missing: {raised[-1] if raised else lines[-1] if lines else type(failure).__name__}"
