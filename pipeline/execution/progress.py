"""How far a run is, how fast it goes, when it will be done, and what holds it up.

Rates are taken over a recent window that begins with the first committed unit: loading a model, and answering the
first units all at once, say nothing of how it goes on. It knows numbers, and neither who measures nor who shows them.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.rows import STEP_SECONDS
from pipeline.state.ledger import RunError
from pipeline.steps.engine_thread import IDLE

# Long enough for units of minutes, short enough to follow a cluster that grows or a data set that changes. Of its
# beginnings, a few a minute are kept; a pace of less than LEAST_S says more of chance than of the run.
WINDOW_S, BEGINNING_S, LEAST_S = 900.0, 15.0, 3.0
# Of the whole start, points for a curve: every second one goes as soon as there are more.
MOST_POINTS = 200
# From this share of its time on, whatever is busy holds the others up.
BUSY = 0.75
# What the engine does itself, one after the other.
ENGINE = ("encode", "prefill", "decode")
# What engines count, beside their seconds: prompts' tokens, and those of them that went through the decoder.
TOKENS = tuple(prefix + name for prefix in ("", "check.") for name in ("asked_tokens", "prefilled_tokens"))


@dataclass(frozen=True)
class FailureKind:
    """Rows that failed alike.

    Attributes:
        stage: The step in which they failed.
        type: The kind of error.
        count: How many they are.
        key: The first of them.
        message: What was said of it.
    """

    stage: str
    type: str
    count: int
    key: str
    message: str


class TooManyFailed(RunError):
    """More rows have failed than the run allows, before it was finished; a higher limit lets it go on.

    Attributes:
        failures: Kinds of error rows, the most frequent first.
    """

    def __init__(self, message: str, failures: Sequence[FailureKind]) -> None:
        super().__init__(message)
        self.failures = failures


@dataclass(frozen=True)
class Pace:
    """What a recent while has brought.

    Attributes:
        rows_per_s: Rows committed a second.
        prompt_tokens_per_s: Tokens read a second.
        output_tokens_per_s: Tokens written a second.
        busy: By name, the share of their time that engines (`encode`, `prefill`, `decode`, `paint`, all of these
            together as `engine`, and the same with `check.` before it) and preprocess actors were busy; of `read` and
            `write`, seconds a second, which may be several at once.
        bottleneck: The name in `busy` of what holds the others up.
    """

    rows_per_s: float
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    busy: Mapping[str, float]
    bottleneck: str


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        rows: Rows of the whole run.
        done: Rows committed, by this start or an earlier one.
        answered: Rows committed by this start.
        answers: Results committed by this start: a row that asks for several pictures has several.
        failed: Of those, error rows.
        prompt_tokens: Of those, tokens read.
        output_tokens: Of those, tokens written.
        seconds: From this start to the latest commit.
        step_seconds: What the steps of this start were busy with, by name; see `Pace.busy`.
        prefill_tokens: What the engines of this start counted, by the names in TOKENS.
        failures: Kinds of error rows of this start, the most frequent first.
        ready_seconds: From this start to when its first engine was ready; None where that is not known.
        first_seconds: From this start to its first commit; None before.
        pace: Of the recent while; None before that is LEAST_S long.
    """

    rows: int
    done: int
    answered: int = 0
    answers: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    prefill_tokens: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[FailureKind] = ()
    ready_seconds: float | None = None
    first_seconds: float | None = None
    pace: Pace | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds from the latest commit to the last one; None before the pace is known."""
        if self.pace is None:
            return None
        return (self.rows - self.done) / self.pace.rows_per_s


def progress_numbers(progress: Progress | None, seconds: float) -> dict[str, Any]:
    """Return a progress as JSON has it: for lines of a log, for other programs, and for the output.

    Args:
        progress: The latest; None as long as settings, model and input are looked at.
        seconds: Since it was told, or since the run was called.
    """
    if progress is None:
        return {"state": "looking", "seconds": round(seconds, 1)}
    left = progress.seconds_left
    numbers = {name: value for name, value in asdict(progress).items() if name != "pace"}
    return {
        **numbers,
        **(asdict(progress.pace) if progress.pace else {}),
        "state": "answering" if progress.answered else "loading",
        "seconds": round(progress.seconds + seconds, 1),
        "seconds_left": None if left is None else round(max(0.0, left - seconds), 1),
    }


class Tracker:
    """Keeps a run's progress, of the recent while as much as its pace needs, and of the whole start a curve.

    Attributes:
        progress: The latest.
        series: Seconds since this start and rows that it had committed by then, at most MOST_POINTS of them; the first
            is of when an engine was ready, where that is known.
    """

    def __init__(self, rows: int, preprocess_actors: int) -> None:
        """Start from nothing.

        Args:
            rows: Rows of the whole run.
            preprocess_actors: How many processes prepare rows, at most.
        """
        self.progress = Progress(rows, 0)
        self._preprocess_actors = preprocess_actors
        self._beginnings: deque[Progress] = deque()
        self.series: list[tuple[float, int]] = []
        self._spacing_s = 0.0

    def set_done(self, done: int) -> None:
        """Note how many rows stand in the output, whoever wrote them."""
        self.progress = replace(self.progress, done=done)

    def begin(self, seconds: float) -> None:
        """Note when the first engine was ready, before the first unit."""
        self.progress = replace(self.progress, ready_seconds=round(seconds, 2))
        self._add_point(seconds, 0)

    def add(self, unit: Mapping[str, Any], seconds: float) -> Progress:
        """Note a committed unit; return the progress with it.

        Args:
            unit: Its numbers, see `pipeline.execution.actors.commit_block`.
            seconds: Since this start.
        """
        before = self.progress
        measured = dict(unit[STEP_SECONDS])
        tokens = Counter(before.prefill_tokens)
        tokens.update({name: int(measured.pop(name)) for name in TOKENS if name in measured})
        step_seconds = Counter(before.step_seconds)
        step_seconds.update(measured)
        after = replace(
            before,
            done=before.done + unit["rows"],
            answered=before.answered + unit["rows"],
            answers=before.answers + unit["answers"],
            failed=before.failed + unit["failed"],
            prompt_tokens=before.prompt_tokens + unit["prompt_tokens"],
            output_tokens=before.output_tokens + unit["output_tokens"],
            seconds=seconds,
            step_seconds=dict(step_seconds),
            prefill_tokens=dict(tokens),
            failures=_merged(before.failures, unit["failures"]),
            first_seconds=seconds if before.first_seconds is None else before.first_seconds,
        )
        if not self._beginnings or seconds - self._beginnings[-1].seconds >= BEGINNING_S:
            self._beginnings.append(after)
        # One that is older stays, so that the window is full.
        while len(self._beginnings) > 1 and seconds - self._beginnings[1].seconds >= WINDOW_S:
            self._beginnings.popleft()
        self.progress = replace(after, pace=_pace(self._beginnings[0], after, self._preprocess_actors))
        self._add_point(seconds, after.answered)
        return self.progress

    def _add_point(self, seconds: float, answered: int) -> None:
        if self.series and seconds - self.series[-1][0] < self._spacing_s:
            return
        self.series.append((round(seconds, 2), answered))
        if len(self.series) > MOST_POINTS:
            self.series = self.series[::2]
            self._spacing_s = 2 * (seconds - self.series[0][0]) / MOST_POINTS


@contextmanager
def repeated(say: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call something on a thread of its own every so many seconds while the block runs; first after the first while."""
    is_over = threading.Event()

    def keep_saying() -> None:
        while not is_over.wait(every_s):
            say()

    thread = threading.Thread(target=keep_saying, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _merged(kinds: Sequence[FailureKind], more: Sequence[Mapping[str, Any]]) -> Sequence[FailureKind]:
    known = {(kind.stage, kind.type): kind for kind in kinds}
    for failure in more:
        name = failure["stage"], failure["type"]
        kind = known.get(name, FailureKind(**{**failure, "count": 0}))
        known[name] = replace(kind, count=kind.count + failure["count"])
    return sorted(known.values(), key=lambda kind: (-kind.count, kind.stage, kind.type))


def _pace(first: Progress, last: Progress, preprocess_actors: int) -> Pace | None:
    seconds = last.seconds - first.seconds
    if seconds < LEAST_S:
        return None
    busy = _busy(Counter(last.step_seconds) - Counter(first.step_seconds), seconds, preprocess_actors)
    return Pace(
        rows_per_s=(last.answered - first.answered) / seconds,
        prompt_tokens_per_s=(last.prompt_tokens - first.prompt_tokens) / seconds,
        output_tokens_per_s=(last.output_tokens - first.output_tokens) / seconds,
        busy=busy,
        bottleneck=_bottleneck(busy),
    )


def _busy(spent: Mapping[str, float], seconds: float, preprocess_actors: int) -> dict[str, float]:
    busy = {"read": spent.get("read", 0.0) / seconds, "write": spent.get("write", 0.0) / seconds}
    busy["preprocess"] = spent.get("preprocess", 0.0) / seconds / preprocess_actors
    for prefix in ("", "check."):
        # An engine is either busy or idle, so this is the time that all engines of a kind have had.
        had = sum(spent.get(prefix + name, 0.0) for name in (*ENGINE, IDLE))
        if had:
            shares = {prefix + name: spent.get(prefix + name, 0.0) / had for name in (*ENGINE, "paint")}
            busy |= {name: share for name, share in shares.items() if share}
            busy[f"{prefix}engine"] = 1 - spent.get(prefix + IDLE, 0.0) / had
    return busy


def _bottleneck(busy: Mapping[str, float]) -> str:
    """Name what is busy all the time; where nothing is, what waits longest for a store."""
    for prefix in ("", "check."):
        if busy.get(f"{prefix}engine", 0.0) >= BUSY:
            return max((prefix + name for name in ENGINE), key=lambda name: busy.get(name, 0.0))
    waiting = max(("paint", "check.paint", "preprocess"), key=lambda name: busy.get(name, 0.0))
    if busy.get(waiting, 0.0) >= BUSY:
        return waiting
    return max(("read", "write"), key=lambda name: busy[name])
