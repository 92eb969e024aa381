"""The rows that a gallery may show, found part by part: a few of each verdict, however many rows there are."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.part_files import OpenPart
from pipeline import CHECK_STAGE, Unit

T = TypeVar("T")

MOST_CARDS = 24
# Whole units are read again for their images: the gallery of a large run must not cost a large read.
MOST_UNITS = 8
# Of each benchmark, by verdict: wrong answers tell more than right ones.
CARDS_OF_BENCHMARK: Mapping[bool | None, int] = {False: 10, True: 3, None: 6}
# The columns by which candidates are found.
CANDIDATE_COLUMNS = ("key", "shard", "index", "image_index", "error", "benchmark")


@dataclass(frozen=True)
class Candidate:
    """A row that may be shown.

    Attributes:
        hash: The hash of its name, by which rows are ordered.
        number: The row's number in the results.
        benchmark: Its benchmark, where the run asks several; else empty.
        verdict: Whether it is right; None where nothing is known.
        row: Its columns but tokens and pictures.
    """

    hash: str
    number: int
    benchmark: str
    verdict: bool | None
    row: Mapping[str, Any]


class Candidates:
    """The first few rows of each kind: of each benchmark, or else in units spread evenly over the run.

    Attributes:
        units: The units that they are from.
        are_by_benchmark: Whether the run has several sources, or one with a name: each benchmark has its own cards.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self.are_by_benchmark = any(unit.source for unit in units)
        self.units = list(units) if self.are_by_benchmark else _spread(units, MOST_UNITS)
        self._candidates: list[Candidate] = []
        self._num_seen = 0

    def add(self, part: OpenPart, rows: pa.Table, verdicts: Sequence[bool | None]) -> None:
        """Look through the CANDIDATE_COLUMNS of the next part; of rows that may be shown all columns are read."""
        indices = self._indices(rows)
        few = _take(rows, indices)
        benchmarks = few["benchmark"].to_pylist() if self.are_by_benchmark else [""] * len(indices)
        new = [
            Candidate(_hash(name), self._num_seen + index, benchmark, verdicts[index], {})
            for name, index, benchmark in zip(_names(few), indices, benchmarks, strict=True)
        ]
        self._candidates = self._first([*self._candidates, *new])
        self._fill_in(part)
        self._num_seen += rows.num_rows

    def choose(self) -> list[Candidate]:
        """Return the rows to be shown.

        Of each benchmark CARDS_OF_BENCHMARK, the wrong ones first; of a run of other rows half of them wrong and half
        right where that is known, as far as there are.
        """
        wrong, right, unknown = (
            [candidate for candidate in self._candidates if candidate.verdict is verdict]
            for verdict in (False, True, None)
        )
        if not self.are_by_benchmark:
            return [*_halves(wrong, right, MOST_CARDS), *unknown][:MOST_CARDS]
        judged = {candidate.benchmark for candidate in (*wrong, *right)}
        return [*wrong, *right, *(candidate for candidate in unknown if candidate.benchmark not in judged)]

    def _indices(self, rows: pa.Table) -> list[int]:
        if self.are_by_benchmark:
            return _where(rows["error"].is_null())
        return [index for unit in self.units for index in _rows_of(rows, unit)]

    def _first(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Keep the first of each kind, no more than are shown."""
        counts: Counter[tuple[str, bool | None]] = Counter()
        first = []
        for candidate in sorted(candidates, key=lambda candidate: (candidate.hash, candidate.number)):
            kind = candidate.benchmark, candidate.verdict
            counts[kind] += 1
            if counts[kind] <= (CARDS_OF_BENCHMARK[candidate.verdict] if self.are_by_benchmark else MOST_CARDS):
                first.append(candidate)
        return first

    def _fill_in(self, part: OpenPart) -> None:
        """Read all columns of the candidates that are in this part."""
        new = [candidate for candidate in self._candidates if candidate.number >= self._num_seen]
        if new:
            rows = _take(
                part.read_without_tokens(), [candidate.number - self._num_seen for candidate in new]
            ).to_pylist()
            filled = {candidate.number: replace(candidate, row=row) for candidate, row in zip(new, rows, strict=True)}
            self._candidates = [filled.get(candidate.number, candidate) for candidate in self._candidates]


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
    # Without an error there is no stage: null.
    return _where(pc.and_(inside, pc.or_kleene(rows["error"].is_null(), is_unchecked)))


def _where(is_wanted: pa.ChunkedArray) -> list[int]:
    indices: list[int] = pc.indices_nonzero(is_wanted.combine_chunks()).to_pylist()
    return indices


def _names(rows: pa.Table) -> list[str]:
    """Tell rows apart: by their keys, and pictures of one row by their numbers, so that these do not stand together."""
    keys: list[str] = rows["key"].to_pylist()
    if "image_index" not in rows.column_names:
        return keys
    return [f"{key}#{index}" for key, index in zip(keys, rows["image_index"].to_pylist(), strict=True)]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _take(rows: pa.Table, indices: Sequence[int]) -> pa.Table:
    return rows.take(pa.array(indices, pa.int64()))  # an empty list has no type of its own


def _halves(one: Sequence[T], other: Sequence[T], total: int) -> list[T]:
    """Take half of the total from each, and more of the longer one where the shorter has less."""
    first = min(len(one), max(total // 2, total - len(other)))
    return [*one[:first], *other[: total - first]]
