"""Run one engine on one thread of its own, for callers that submit rows from elsewhere and wait.

The engine is not thread-safe, so only this thread touches it. If it dies, everyone who waits hears of it, and nobody
waits again.
"""

import logging
import queue
import threading
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from models.stopwatch import Stopwatch
from models.types import Completion, ModelInput, Sampling

log = logging.getLogger(__name__)

# The name of the seconds in which an engine has nothing to do.
IDLE = "idle"

StopCondition = Callable[[Ordered[int]], bool]


class EngineDied(RuntimeError):
    """The engine failed as a whole; its process is of no further use."""


@dataclass(frozen=True)
class Ended:
    """How a sequence ended: with a completion or with an error."""

    completion: Completion | None
    error: Exception | None


class Engine(Protocol):
    """What this thread needs of `models.engine.Engine`."""

    @property
    def is_idle(self) -> bool:
        """Whether a step would have nothing to do or to return."""

    def submit(self, sequence: Any) -> None:
        """Queue a sequence."""

    def step(self) -> list[Any]:
        """Work for a moment; return the sequences that have ended."""


class EngineThread:
    """An engine and the thread that steps it. The thread starts at once and lives as long as the process."""

    def __init__(self, engine: Engine, sequence: Callable[..., Any], stopwatch: Stopwatch | None = None) -> None:
        """Start the thread.

        Args:
            engine: The engine; nobody else may touch it from here on.
            sequence: Makes what the engine takes, `models.engine.Sequence`.
            stopwatch: Gets the seconds in which the engine waited for rows, as IDLE.
        """
        self._stopwatch = stopwatch or Stopwatch()
        self._engine = engine
        self._sequence = sequence
        self._inbox: queue.SimpleQueue[tuple[Any, Future[Ended]]] = queue.SimpleQueue()
        self._waiting: dict[int, tuple[Any, Future[Ended]]] = {}
        self._death: BaseException | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def answer(
        self,
        key: str,
        model_input: ModelInput,
        sampling: Sampling,
        stop_ids: frozenset[int],
        stop_condition: StopCondition | None,
    ) -> "Future[Ended]":
        """Submit one row from any thread.

        Raises:
            EngineDied: The engine is no more.
        """
        ended: Future[Ended] = Future()
        with self._lock:
            if self._death is not None:
                raise EngineDied(f"the engine died earlier: {self._death!r}") from self._death
            self._inbox.put((self._sequence(key, model_input, sampling, stop_ids, stop_condition), ended))
        return ended

    def _run(self) -> None:
        try:
            while True:
                self._take()
                for sequence in self._engine.step():
                    _, ended = self._waiting.pop(id(sequence))
                    ended.set_result(Ended(sequence.completion, sequence.error))
        except BaseException as error:  # whatever it is, a silent end of this thread would be a hang
            log.exception("the engine died with %d rows unanswered", len(self._waiting))
            self._die(error)

    def _take(self) -> None:
        """Move new rows from the inbox into the engine; wait for one only if there is nothing else to do."""
        while self._engine.is_idle or not self._inbox.empty():
            with self._stopwatch.measure(IDLE):
                sequence, ended = self._inbox.get()
            # From here on nobody can take the question back; who has done so before is not answered.
            if ended.set_running_or_notify_cancel():
                self._waiting[id(sequence)] = sequence, ended
                self._engine.submit(sequence)

    def _die(self, error: BaseException) -> None:
        with self._lock:
            self._death = error
        while not self._inbox.empty():
            sequence, ended = self._inbox.get()
            if ended.set_running_or_notify_cancel():
                self._waiting[id(sequence)] = sequence, ended
        for _, ended in self._waiting.values():
            died = EngineDied(f"the engine died: {error!r}")
            died.__cause__ = error
            ended.set_exception(died)
