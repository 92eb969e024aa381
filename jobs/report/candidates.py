"""The rows that a gallery may show, found part by part: a few of each verdict, however many rows there are.

It knows rows and where units lie, not pictures.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.parts import OpenPart
from pipeline.check import STAGE
from pipeline.units import Unit

T = TypeVar("T")

MOST_CARDS = 24
# Whole units are read again for their images, so few of them: the gallery of a large run must not cost a large read.
MOST_UNITS = 8
# The columns by which rows are found.
FOUND_BY = ("key", "shard", "index", "image_index", "error")


@dataclass(frozen=True)
class Candidate:
    """A row that may be shown.

    Attributes:
        hash: Of its name: the order in which rows are shown.
        number: Its place in the results.
        verdict: Whether it is right; None where nothing is known.
        row: Its columns but tokens and pictures.
    """

    hash: str
    number: int
    verdict: bool | None
    row: Mapping[str, Any]


class Candidates:
    """The first few rows of each verdict that lie in units spread evenly over the run.

    Attributes:
        units: These units.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self.units = _spread(units, MOST_UNITS)
        self._found: list[Candidate] = []
        self._num_seen = 0

    def add(self, part: OpenPart, rows: pa.Table, verdicts: Sequence[bool | None]) -> None:
        """Look through the next part.

        Args:
            part: What it has of a row that may be shown is read from it.
            rows: FOUND_BY of all its rows.
            verdicts: Of each of them.
        """
        places = [place for unit in self.units for place in _rows_of(rows, unit)]
        hashed = sorted(zip(map(_hash, _names(_take(rows, places))), places, strict=True))
        few = _few_of_each(hashed, lambda one: verdicts[one[1]])
        if few:
            shown = _take(part.read_shown(), [place for _, place in few]).to_pylist()
            self._found += [
                Candidate(hash, self._num_seen + place, verdicts[place], row)
                for (hash, place), row in zip(few, shown, strict=True)
            ]
            ordered = sorted(self._found, key=lambda one: (one.hash, one.number))
            self._found = _few_of_each(ordered, lambda one: one.verdict)
        self._num_seen += rows.num_rows

    def choose(self) -> list[Candidate]:
        """Return the rows to be shown: half of them wrong and half right where that is known, as far as there are."""
        wrong = [one for one in self._found if one.verdict is False]
        right = [one for one in self._found if one.verdict]
        unknown = [one for one in self._found if one.verdict is None]
        return [*_halves(wrong, right, MOST_CARDS), *unknown][:MOST_CARDS]


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
    is_unchecked = pc.equal(pc.struct_field(rows["error"], "stage"), STAGE)
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


def _few_of_each(ordered: Iterable[T], verdict_of: Callable[[T], bool | None]) -> list[T]:
    """Keep the first of each verdict, no more than a gallery shows."""
    counts: Counter[bool | None] = Counter()
    few = []
    for one in ordered:
        verdict = verdict_of(one)
        counts[verdict] += 1
        if counts[verdict] <= MOST_CARDS:
            few.append(one)
    return few


def _halves(one: Sequence[T], other: Sequence[T], total: int) -> list[T]:
    """Take half of the total from each, and more of the longer one where the shorter has less."""
    first = min(len(one), max(total // 2, total - len(other)))
    return [*one[:first], *other[: total - first]]
