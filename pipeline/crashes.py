"""Remember what was under way when a process died, so that a row which kills its process is found and left out.

A process that dies says nothing; but what it had begun and never ended is suspect. The ledger lives in a process of its
own, which loads and decodes nothing. It knows units and rows by name and place, and neither Ray nor what is done.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

# A row is blamed only if a process died on it alone, and not once: the one death may have been somebody's kill.
TIMES_ALONE = 2
# Of one actor, each before it was ready to work.
FAILED_LOADS = 3
# So many rows' worth of tries may an actor die without having done anything well; then it is not the rows.
HOPELESS_ROWS = 3


@dataclass(frozen=True)
class Verdict:
    """How to go about a unit.

    Attributes:
        deaths: How many processes have died with it.
        is_suspect: So many that its rows are to be done one at a time, and nothing else meanwhile.
        cleared: Places of rows that were done alone before and did no harm.
        blamed: Places of rows that are not to be tried again, and why.
        is_hopeless: The actor dies whatever it is given.
    """

    deaths: int = 0
    is_suspect: bool = False
    cleared: frozenset[int] = frozenset()
    blamed: Mapping[int, str] = field(default_factory=dict)
    is_hopeless: bool = False


@dataclass
class _Begun:
    """A unit that was begun and has not ended."""

    deaths: int = 0
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
        self._begun: dict[tuple[str, str], _Begun] = {}
        self._loads: Counter[str] = Counter()
        self._starts: Counter[str] = Counter()
        self._last_words: dict[str, str] = {}

    def starting(self, actor: str) -> int:
        """Note that an actor's process starts; return how many before it died in a row without being ready."""
        self._loads[actor] += 1
        self._starts[actor] += 1
        return self._loads[actor] - 1

    def ready(self, actor: str) -> None:
        """Note that an actor's process is ready to work."""
        self._loads[actor] = 0

    def dying(self, actor: str, words: str) -> None:
        """Note why an actor's process is about to end itself."""
        self._last_words[actor] = words

    def begin(self, step: str, unit: str, actor: str) -> Verdict:
        """Note that work on a unit begins, and say how to go about it."""
        known = self._begun.get((step, unit))
        if known is None:
            self._begun[step, unit] = _Begun()
            return Verdict(is_hopeless=self._is_hopeless(actor))
        known.deaths += 1
        if known.row is not None:
            self._blame(known, known.row, actor)
        return Verdict(
            deaths=known.deaths,
            is_suspect=known.deaths > self._attempts - TIMES_ALONE - 1,
            cleared=frozenset(known.cleared),
            blamed=dict(known.blamed),
            is_hopeless=self._is_hopeless(actor),
        )

    def begin_row(self, step: str, unit: str, row: int) -> None:
        """Note that a row is begun alone."""
        self._begun[step, unit].row = row

    def end_row(self, step: str, unit: str, row: int, actor: str) -> None:
        """Note that a row was done alone and the process lives."""
        self._starts[actor] = 0
        self._begun[step, unit].row = None
        self._begun[step, unit].cleared.add(row)

    def end(self, step: str, unit: str, actor: str) -> None:
        """Note that a unit is done."""
        self._starts[actor] = 0
        self._begun.pop((step, unit), None)

    def _blame(self, known: _Begun, row: int, actor: str) -> None:
        known.row = None
        known.alone[row] += 1
        if known.alone[row] >= TIMES_ALONE:
            words = self._last_words.get(actor)
            why = f": {words}" if words else " without a word (killed for want of memory, or crashed)"
            known.blamed[row] = f"its process died {known.deaths} times with this row, the last times on it alone{why}"

    def _is_hopeless(self, actor: str) -> bool:
        return self._starts[actor] > HOPELESS_ROWS * self._attempts
