"""One attempt at a run: rounds over what is missing until nothing is, or until one brings nothing.

What a round is made of, pipeline/execution/stream.py knows; here is kept account of what is done and what is not.
"""

import logging
import platform
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline.execution.actors import begin_round, engine_slots, seconds_ready
from pipeline.execution.cluster.placement import NodesLost, Placement, PlacementError, place_actors
from pipeline.execution.cluster.signals import heard_signals
from pipeline.execution.cluster.start import nodes
from pipeline.execution.progress import Progress as Progress
from pipeline.execution.progress import TooManyFailed, Tracker, progress_numbers, repeated
from pipeline.execution.stream import stream
from pipeline.execution.work import Work
from pipeline.rows import part_schema
from pipeline.state import ledger
from pipeline.state.ledger import RunError as RunError
from pipeline.state.ledger import RunReplaced
from pipeline.steps.read import settings_by_source
from pipeline.steps.write import Part, Parts, unit_path
from pipeline.storage.store import StorageError, Store, Unreachable
from pipeline.storage.watch import watched

log = logging.getLogger(__name__)
# Shown to everybody: how many slots a GPU has room for is found out only when an engine is loaded.
slots_log = logging.getLogger("pipeline.execution.slots")

# So many rounds one after the other may end soon after they began; each of them loads the model again.
MOST_SHORT_ROUNDS = 5
SHORT_ROUND_S = 1800.0
# Where lost nodes are replaced by themselves, that takes minutes.
REPLACED_WITHIN_S, LOOK_EVERY_S = 600.0, 15.0
# How old the progress that others see may be.
WRITTEN_EVERY_S = 15.0


@dataclass(frozen=True)
class CommitLog:
    """How an attempt learns what is committed, and merges it; a run and a retry do it differently.

    Attributes:
        read: Says which parts stand there and which units are committed.
        merge: Makes a part of its committed units and removes these.
        note: What an attempt says beside its numbers.
    """

    read: Callable[[Store], ledger.Output]
    merge: Callable[[Store, Part, pa.Schema], None]
    note: Mapping[str, Any]


class Attempt:
    """One start of a run or retry: rounds that each stream what is missing, until nothing is or one brings nothing."""

    def __init__(
        self,
        parts: list[Part],
        work: Work,
        placement: Placement,
        progress: Callable[[Progress], None] | None,
        commit_log: CommitLog,
        judge: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Look at nothing yet.

        Args:
            parts: The plan.
            work: What the actors must know.
            placement: How many actors there are, and the share of each.
            progress: Called in this process at the start and after each unit.
            commit_log: How it learns what is committed.
            judge: Called after each unit; raises TooManyFailed where the run shall not go on.
        """
        self._parts = parts
        self._commit_log = commit_log
        self._judge = judge
        self._work = work
        self._placement = placement
        self._tell = progress or (lambda _: None)
        self._units = {unit.name: unit for part in parts for unit in part.units}
        self._rows = {name: unit.num_rows for name, unit in self._units.items()}
        self._started = self._told = time.monotonic()
        self._tracker = Tracker(sum(self._rows.values()), placement.preprocess.most)
        self._has_begun = False
        self._short_rounds = 0
        self._id = uuid.uuid4().hex[:8]

    def run(self) -> Progress:
        """Work until every part stands in the output; return how far this start came.

        Raises:
            RunError: A round committed nothing, or one after the other ended early.
            TooManyFailed: The judge says so; what is committed stays.
        """
        outcome, began = "failed", time.time()
        try:
            merged = self._merge_what_is_there()
            self._keep_killed_start()
            self._note(self._tracker.progress)
            self._write_progress(began)
            with watched(self._stores()), repeated(lambda: self._write_progress(began), WRITTEN_EVERY_S):
                while merged.missing_units:
                    self._round(merged)
                    merged = self._merge_what_is_there()
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        except RunReplaced:
            outcome = "replaced"  # nobody will look for this one's numbers there
            raise
        except TooManyFailed:
            outcome = "too many failed"
            raise
        finally:
            if outcome != "replaced":
                self._write_attempt(outcome, began)
                self._write_progress(began, state=outcome)
        return self._tracker.progress

    def _merge_what_is_there(self) -> Parts:
        """Compare plan and output; merge what is ready to be merged, and clear away what parts hold already."""
        store = self._work.store
        output = self._commit_log.read(store)
        standing = [part for part in self._parts if part.number in output.parts]
        leftover = [unit.name for part in standing for unit in part.units if unit.name in output.units]
        store.delete([unit_path(name, self._work.units) for name in leftover])
        open_parts = [part for part in self._parts if part.number not in output.parts]
        committed = output.units - set(leftover)
        schema = part_schema(self._work.schema, self._work.job)
        parts = Parts(store, open_parts, sorted(committed), schema, self._commit_log.merge)
        self._tracker.set_done(sum(self._rows.values()) - sum(self._rows[name] for name in parts.missing_units))
        return parts

    def _round(self, parts: Parts) -> None:
        names = parts.missing_units
        missing = [unit for name, unit in self._units.items() if name in names]
        before, began = self._tracker.progress.answered, time.monotonic()
        log.info("%d units with %d rows to do", len(missing), sum(self._rows[unit.name] for unit in missing))
        failure: Exception | None = None
        if self._has_begun and self._work.crashes:  # before the first round the ledger is empty, and still starting
            begin_round(self._work.crashes)
        self._has_begun = True
        try:
            with heard_signals() as check, parts, closing(stream(missing, self._work, self._placement)) as committed:
                for numbers in committed:
                    parts.add(numbers["unit"])
                    self._note_ready()
                    self._note(self._tracker.add(numbers, time.monotonic() - self._started))
                    self._judge(self._tracker.progress)
                    check()
        except NodesLost as lost:
            self._placement = place_on_remaining_nodes(self._work, lost)
            return
        except (RunReplaced, TooManyFailed):
            raise
        except Exception as error:  # Ray passes on anything that a step raised
            failure = error
        why = _why(failure, len(missing))
        self._short_rounds = self._short_rounds + 1 if time.monotonic() - began < SHORT_ROUND_S else 0
        # A store that is gone would be asked just as patiently in the next round.
        is_gone = isinstance(failure, Unreachable) or Unreachable.__name__ in why
        if self._tracker.progress.answered == before or is_gone or self._short_rounds == MOST_SHORT_ROUNDS:
            raise RunError(why) from failure
        if failure is not None:
            log.warning("a round failed, and another one starts: %s", why)

    def _note_ready(self) -> None:
        """Before the first unit is noted, note since when there has been an engine to answer it."""
        if self._tracker.progress.first_seconds is None and self._work.crashes:
            since = seconds_ready(self._work.crashes)
            if since is not None:
                self._tracker.begin(time.monotonic() - self._started - since)
            for step, (_, why) in engine_slots(self._work.crashes).items():
                if why:
                    slots_log.info("%s: %s", step, why)

    def _note(self, progress: Progress) -> None:
        self._told = time.monotonic()
        self._tell(progress)

    def _keep_killed_start(self) -> None:
        try:
            ledger.keep_killed_start(self._work.store.while_looking())
        except StorageError as error:  # it is for the report alone
            log.warning("cannot write down how far the start before this one came: %s", error)

    def _write_progress(self, began: float, **outcome: str) -> None:
        """Write down how far the run is, for those who look in from elsewhere."""
        numbers = {
            **progress_numbers(self._tracker.progress, time.monotonic() - self._told),
            **outcome,
            "series": self._tracker.series,
            "attempt": self._name(began),
            "started": _utc(began),
            "written": _utc(time.time()),
            "period_s": WRITTEN_EVERY_S,
            "host": platform.node(),
            "placement": self._placement.numbers(),
        }
        try:
            ledger.write_progress(self._work.store.while_looking(), numbers)
        except StorageError as error:  # the run needs none of this
            log.debug("cannot write down the progress: %s", error)

    def _name(self, began: float) -> str:
        return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(began))}-{self._id}"

    def _write_attempt(self, outcome: str, began: float) -> None:
        name = self._name(began)
        numbers = {
            "outcome": outcome,
            **self._commit_log.note,
            "started": _utc(began),
            **asdict(self._tracker.progress),
            "seconds": time.monotonic() - self._started,
            "series": self._tracker.series,
            "host": platform.node(),
            "placement": self._placement.numbers(),
            "versions": ledger.versions(),
        }
        if outcome == "done":
            ledger.write_attempt(self._work.store, name, numbers)
            return
        try:  # what ended the run must be heard, and soon; it may well be this store
            ledger.write_attempt(self._work.store.while_looking(), name, numbers)
        except StorageError as error:
            log.warning("cannot write down this attempt: %s", error)

    def _stores(self) -> list[Store]:
        sources = settings_by_source(self._work.job, self._work.read)
        roots = {unit.root: sources[unit.source].storage for unit in self._units.values()}
        return [self._work.store, *(Store(root, roots[root]) for root in sorted(roots))]


def _utc(seconds: float) -> str:
    return time.strftime(ledger.UTC, time.gmtime(seconds))


def place_on_remaining_nodes(work: Work, lost: NodesLost) -> Placement:
    """Return each step's share of the nodes that are left; wait for others while that is too little.

    Raises:
        RunError: In ten minutes the cluster has not come to hold the least of all actors.
    """
    log.warning("%s; the run goes on with what is left", lost)
    deadline = time.monotonic() + REPLACED_WITHIN_S
    while True:
        try:
            return place_actors(nodes(), work.answering, work.checking)
        except PlacementError as error:
            if time.monotonic() > deadline:
                raise RunError(f"{lost}: {error}; what is committed stays") from error
            log.warning("%s; waiting for nodes to join", error)
        time.sleep(LOOK_EVERY_S)


# One line of a traceback that names an exception which is not Ray's wrapping around another.
_RAISED = re.compile(r"^(?!ray\.)[\w.]*(?:Error|Exception|Died|Unreachable|NotFound)\w*: .+$", re.MULTILINE)


def _why(failure: Exception | None, missing: int) -> str:
    """Say in one line what ended a round."""
    if failure is None:
        return f"{missing} units came back without being committed"
    return f"{missing} units are missing: {cause_of(failure)}"


def cause_of(failure: Exception) -> str:
    """Say in one line what a step raised; Ray hands it on only as the text of its traceback."""
    raised = _RAISED.findall(str(failure))
    lines = str(failure).strip().splitlines()
    return str(raised[-1] if raised else lines[-1] if lines else type(failure).__name__)
