"""Remember what was under way when a process died, so that a row which kills its process is found and left out.

A process that dies says nothing; but what it had begun and never ended is suspect. The ledger lives in a process of its
own, which loads and decodes nothing. It knows units and rows by name and place, and neither Ray nor what is done.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# A row is blamed only if a process died on it alone, and not once: the one death may have been somebody's kill.
TIMES_ALONE = 2
# Of one actor, each before it was ready to work.
FAILED_LOADS = 3
# So many rows' worth of tries may an actor die without having done anything well; then it is not the rows. Rows that
# did no harm are tried in between, so that many that do may follow each other.
HOPELESS_ROWS = 3


@dataclass(frozen=True)
class CrashHistory:
    """What a unit has killed so far, and so how to go about it.

    Attributes:
        deaths: How many processes have died with it.
        is_suspect: So many that its rows are to be done one at a time, and nothing else meanwhile.
        cleared: Places of rows that were done alone before and did no harm.
        tried: Places of rows on which a process died while they were alone, not yet often enough to blame them.
        blamed: Places of rows that are not to be tried again, and why.
        is_hopeless: The actor dies whatever it is given.
    """

    deaths: int = 0
    is_suspect: bool = False
    cleared: frozenset[int] = frozenset()
    tried: frozenset[int] = frozenset()
    blamed: Mapping[int, str] = field(default_factory=dict)
    is_hopeless: bool = False


@dataclass
class _UnitRecord:
    """A unit that was begun and has not ended."""

    deaths: int = 0
    is_under_way: bool = True
    row: int | None = None
    alone: Counter[int] = field(default_factory=Counter)
    cleared: set[int] = field(default_factory=set)
    blamed: dict[int, str] = field(default_factory=dict)


class CrashLedger:
    """Marks of beginning and end, for all actors of all steps of one start of a run."""

    def __init__(self, attempts: int) -> None:
        """Start with nothing under way.

        Args:
            attempts: How often a row may be tried whose process dies; the last two times alone.
        """
        self._attempts = attempts
        self._units: dict[tuple[str, str], _UnitRecord] = {}
        self._loads: Counter[str] = Counter()
        self._starts: Counter[str] = Counter()
        self._last_words: dict[str, str] = {}
        self._ready: dict[str, float] = {}
        self._slots: dict[str, tuple[int, str]] = {}

    def starting(self, actor: str) -> int:
        """Note that an actor's process starts; return how many before it died in a row without being ready."""
        self._loads[actor] += 1
        self._starts[actor] += 1
        return self._loads[actor] - 1

    def ready(self, actor: str, step: str, slots: tuple[int, str] | None = None) -> None:
        """Note that an actor's process is ready to work, and how many sequences its engine answers at once, and why."""
        if slots is not None:
            self._slots[step] = slots
        self._loads[actor] = 0
        self._ready.setdefault(step, time.monotonic())

    def seconds_ready(self, step: str) -> float | None:
        """Return how long ago the first process of a step was ready; None if none has been, as far as is known."""
        return time.monotonic() - self._ready[step] if step in self._ready else None

    def slots(self) -> Mapping[str, tuple[int, str]]:
        """Return how many sequences the latest engine of each step answers at once, and why."""
        return self._slots

    def dying(self, actor: str, words: str) -> None:
        """Note why an actor's process is about to end itself."""
        self._last_words[actor] = words

    def new_round(self) -> None:
        """Note that whatever was under way was stopped on purpose, with its processes: nothing has died of it."""
        for record in self._units.values():
            record.is_under_way, record.row = False, None

    def begin(self, step: str, unit: str, actor: str) -> CrashHistory:
        """Note that work on a unit begins, and say how to go about it."""
        record = self._units.setdefault((step, unit), _UnitRecord(is_under_way=False))
        if record.is_under_way:
            record.deaths += 1
            if record.row is not None:
                self._suspect(record, record.row, actor)
        record.is_under_way = True
        return CrashHistory(
            deaths=record.deaths,
            is_suspect=self._is_suspect(record),
            cleared=frozenset(record.cleared),
            tried=frozenset(record.alone) - frozenset(record.blamed),
            blamed=dict(record.blamed),
            is_hopeless=self._is_hopeless(actor),
        )

    def begin_row(self, step: str, unit: str, row: int) -> None:
        """Note that a row is begun alone."""
        self._record(step, unit).row = row

    def end_row(self, step: str, unit: str, row: int, actor: str) -> None:
        """Note that a row was done alone and the process lives."""
        self._starts[actor] = 0
        record = self._record(step, unit)
        record.row = None
        record.cleared.add(row)
        del record.alone[row]

    def end(self, step: str, unit: str, actor: str) -> None:
        """Note that a unit is done; with all of its rows blamed that does not say that the actor can do anything."""
        record = self._units.pop((step, unit), None)
        if record is None or not self._is_suspect(record):
            self._starts[actor] = 0

    def _record(self, step: str, unit: str) -> _UnitRecord:
        """Return what is known of a unit; a ledger that was killed itself starts with nothing in the middle of it."""
        return self._units.setdefault((step, unit), _UnitRecord())

    def _is_suspect(self, record: _UnitRecord) -> bool:
        return record.deaths > self._attempts - TIMES_ALONE - 1

    def _suspect(self, record: _UnitRecord, row: int, actor: str) -> None:
        record.row = None
        if row in record.cleared:  # it is the process, then
            return
        record.alone[row] += 1
        if record.alone[row] >= TIMES_ALONE:
            words = self._last_words.get(actor)
            why = f": {words}" if words else " without an error (out of memory, or crashed)"
            record.blamed[row] = (
                f"its process died {record.deaths} times with this row, the last times on it alone{why}"
            )

    def _is_hopeless(self, actor: str) -> bool:
        return self._starts[actor] > HOPELESS_ROWS * self._attempts


class CrashClient:
    """One actor's way to the crash ledger, which lives in another process."""

    def __init__(self, call: Callable[..., Awaitable[Any]], step: str, actor: str) -> None:
        """Keep whom to call.

        Args:
            call: Calls a method of the ledger by its name.
            step: What the actor does.
            actor: Its name, which stays the same when its process starts again.
        """
        self._call, self._step, self._actor = call, step, actor

    async def begin(self, unit: str) -> CrashHistory:
        """See `CrashLedger.begin`."""
        history = await self._call("begin", self._step, unit, self._actor)
        assert isinstance(history, CrashHistory)
        return history

    async def begin_row(self, unit: str, row: int) -> None:
        """See `CrashLedger.begin_row`."""
        await self._call("begin_row", self._step, unit, row)

    async def end_row(self, unit: str, row: int) -> None:
        """See `CrashLedger.end_row`."""
        await self._call("end_row", self._step, unit, row, self._actor)

    async def end(self, unit: str) -> None:
        """See `CrashLedger.end`."""
        await self._call("end", self._step, unit, self._actor)

    async def dying(self, words: str) -> None:
        """See `CrashLedger.dying`."""
        await self._call("dying", self._actor, words)
