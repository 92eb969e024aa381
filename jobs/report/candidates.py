"""The rows that a gallery may show, found part by part: a few of each verdict, however many rows there are.

It knows rows and where units lie, not pictures.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.parts import OpenPart
from pipeline import CHECK_STAGE, Unit

T = TypeVar("T")
# A benchmark, where the run asks several and each is shown by itself, and a verdict.
Kind = tuple[str, bool | None]

MOST_CARDS = 24
# Whole units are read again for their images, so few of them: the gallery of a large run must not cost a large read.
MOST_UNITS = 8
# Of each benchmark, by verdict: errors say more than what went well. They lie in as many units at most.
OF_BENCHMARK: Mapping[bool | None, int] = {False: 10, True: 3, None: 6}
# The columns by which rows are found.
FOUND_BY = ("key", "shard", "index", "image_index", "error", "benchmark")


@dataclass(frozen=True)
class Candidate:
    """A row that may be shown.

    Attributes:
        hash: Of its name: the order in which rows are shown.
        number: Its place in the results.
        benchmark: What it belongs to, where the run asks several; else empty.
        verdict: Whether it is right; None where nothing is known.
        row: Its columns but tokens and pictures.
    """

    hash: str
    number: int
    benchmark: str
    verdict: bool | None
    row: Mapping[str, Any]

    @property
    def kind(self) -> Kind:
        """Of which kind it is one of a few."""
        return self.benchmark, self.verdict


class Candidates:
    """The first few rows of each kind: of each benchmark, or else in units spread evenly over the run.

    Attributes:
        units: The units in which they lie.
        are_by_benchmark: Whether the run has several sources, or one with a name: benchmarks, each shown by itself.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self.are_by_benchmark = any(unit.source for unit in units)
        self.units = list(units) if self.are_by_benchmark else _spread(units, MOST_UNITS)
        self._found: list[Candidate] = []
        self._num_seen = 0

    def add(self, part: OpenPart, rows: pa.Table, verdicts: Sequence[bool | None]) -> None:
        """Look through the next part.

        Args:
            part: What it has of a row that may be shown is read from it.
            rows: FOUND_BY of all its rows.
            verdicts: Of each of them.
        """
        places = self._places(rows)
        named = _take(rows, places)
        benchmarks = named["benchmark"].to_pylist() if self.are_by_benchmark else [""] * len(places)
        new = [
            Candidate(_hash(name), self._num_seen + place, benchmark, verdicts[place], {})
            for name, place, benchmark in zip(_names(named), places, benchmarks, strict=True)
        ]
        self._found = self._few([*self._found, *new])
        self._read(part)
        self._num_seen += rows.num_rows

    def choose(self) -> list[Candidate]:
        """Return the rows to be shown.

        Of each benchmark OF_BENCHMARK, the wrong ones first; of a run of other rows half of them wrong and half right
        where that is known, as far as there are.
        """
        wrong = [one for one in self._found if one.verdict is False]
        right = [one for one in self._found if one.verdict]
        unknown = [one for one in self._found if one.verdict is None]
        if not self.are_by_benchmark:
            return [*_halves(wrong, right, MOST_CARDS), *unknown][:MOST_CARDS]
        judged = {one.benchmark for one in (*wrong, *right)}
        return [*wrong, *right, *(one for one in unknown if one.benchmark not in judged)]

    def _places(self, rows: pa.Table) -> list[int]:
        if self.are_by_benchmark:
            places: list[int] = pc.indices_nonzero(rows["error"].is_null().combine_chunks()).to_pylist()
            return places
        return [place for unit in self.units for place in _rows_of(rows, unit)]

    def _few(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Keep the first of each kind, no more than are shown."""
        counts: Counter[Kind] = Counter()
        few = []
        for one in sorted(candidates, key=lambda one: (one.hash, one.number)):
            counts[one.kind] += 1
            if counts[one.kind] <= (OF_BENCHMARK[one.verdict] if self.are_by_benchmark else MOST_CARDS):
                few.append(one)
        return few

    def _read(self, part: OpenPart) -> None:
        """Fill in the columns of those that lie in the part that was looked through last."""
        places = [one.number - self._num_seen for one in self._found if one.number >= self._num_seen]
        if not places:
            return
        shown = iter(_take(part.read_shown(), places).to_pylist())
        self._found = [replace(one, row=next(shown)) if one.number >= self._num_seen else one for one in self._found]


def _spread(units: Sequence[Unit], most: int) -> list[Unit]:
    """Take at most so many units, evenly spread, the first and the last among them."""
    if len(units) <= most:
        return list(units)
    return [units[round(i * (len(units) - 1) / (most - 1))] for i in range(most)]


def _rows_of(rows: pa.Table, unit: Unit) -> list[int]:
    """Find the rows of a unit that did not fail, or whose picture is there and only its check failed."""
    inside = pc.and_(pc.greater_equal(rows["index"], unit.start), pc.less(rows["index"], unit.stop))
    if unit.shard:
        inside = pc.and_(inside, pc.equal(rows["shard"], unit.shard))
    else:  # an image folder: every file is a shard
        inside = pc.is_in(rows["shard"], pa.array(unit.paths))
    is_unchecked = pc.equal(pc.struct_field(rows["error"], "stage"), CHECK_STAGE)
    found = pc.and_(inside, pc.or_kleene(rows["error"].is_null(), is_unchecked))  # without an error, null is no stage
    places: list[int] = pc.indices_nonzero(found.combine_chunks()).to_pylist()
    return places


def _names(rows: pa.Table) -> list[str]:
    """Tell rows apart: by their keys, and pictures of one row by their numbers, so that these do not stand together."""
    keys: list[str] = rows["key"].to_pylist()
    if "image_index" not in rows.column_names:
        return keys
    return [f"{key}#{index}" for key, index in zip(keys, rows["image_index"].to_pylist(), strict=True)]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _take(rows: pa.Table, places: Sequence[int]) -> pa.Table:
    return rows.take(pa.array(places, pa.int64()))  # an empty list has no type of its own


def _halves(one: Sequence[T], other: Sequence[T], total: int) -> list[T]:
    """Take half of the total from each, and more of the longer one where the shorter has less."""
    first = min(len(one), max(total // 2, total - len(other)))
    return [*one[:first], *other[: total - first]]
