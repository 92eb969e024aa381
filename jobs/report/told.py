"""What the parts of a run tell of each benchmark beside its scores: rows, wordings, verdicts, what a judge has said.

It knows columns and counts. What an own row is asked under counts as a benchmark too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Columns of the parts that it looks at, where they are.
TOLD = ("benchmark", "preset", "judge", "judge_verdict", "judged_score", "score", "row_hash")


@dataclass
class OfBenchmark:
    """What is told of one benchmark.

    Attributes:
        rows: Rows of the results.
        verdicts: How many of them are right, wrong, or neither.
        presets: Whose wordings they were asked in.
        judges: Who looked at what no rule could read.
        judged: At how many rows.
        data: The sum of the hashes of what was asked: alike for the same rows, in whatever order they come.
    """

    rows: int = 0
    verdicts: Counter[bool | None] = field(default_factory=Counter)
    presets: set[str] = field(default_factory=set)
    judges: set[str] = field(default_factory=set)
    judged: int = 0
    data: int = 0


class Told:
    """What is told over the parts seen so far, by benchmark."""

    def __init__(self) -> None:
        self._benchmarks: dict[str, OfBenchmark] = {}

    def add(self, rows: pa.Table, verdicts: Sequence[bool | None]) -> None:
        """Take the next part: its columns TOLD, and the verdict on each row."""
        for name, verdict in zip(rows["benchmark"].to_pylist(), verdicts, strict=True):
            self._of(name).verdicts[verdict] += 1
        for name in pc.unique(rows["benchmark"]).to_pylist():
            _add(self._of(name), rows.filter(pc.equal(rows["benchmark"], name)))

    def rows_of(self, name: str) -> int:
        """Return how many rows of a benchmark stand in the results."""
        return self._of(name).rows

    def summed(self, name: str, judged: Mapping[str, Any]) -> dict[str, Any]:
        """Return what stands beside a benchmark's score: rows, wordings, verdicts, and what a judge makes of it.

        Args:
            name: The benchmark.
            judged: Its numbers with what the judge has said; empty where none was asked.
        """
        told = self._of(name)
        summed: dict[str, Any] = {
            "rows": told.rows,
            "data": f"{told.data % 2**128:032x}",
            "presets": sorted(told.presets),
            "right": told.verdicts[True],
            "wrong": told.verdicts[False],
        }
        if not told.judged:
            return summed
        share = told.judged / told.rows
        judge = {"judges": sorted(told.judges), "rows": told.judged, "share": share, "score": judged.get("score")}
        return {**summed, "judge": judge}

    def _of(self, name: str) -> OfBenchmark:
        return self._benchmarks.setdefault(name, OfBenchmark())


def _add(told: OfBenchmark, rows: pa.Table) -> None:
    told.rows += rows.num_rows
    told.presets |= _words(rows, "preset")
    told.data += sum(int(hash, 16) for hash in rows["row_hash"].to_pylist() if hash is not None)
    judges = _words(rows, "judge")
    if judges:
        told.judges |= judges
        told.judged += rows.num_rows - rows["judge"].null_count


def as_judged(rows: pa.Table) -> pa.Table:
    """Put what a judge has said in the place of what no rule could read; other rows stay as they are."""
    given = pc.cast(rows["judged_score"], pa.float64())
    scores = pc.if_else(rows["judge"].is_valid(), given, pc.cast(rows["score"], pa.float64()))
    rows = rows.set_column(rows.column_names.index("score"), "score", scores)
    if "parsed" not in rows.column_names or "judge_verdict" not in rows.column_names:
        return rows
    parsed = pc.coalesce(pc.cast(rows["judge_verdict"], pa.string()), rows["parsed"])
    return rows.set_column(rows.column_names.index("parsed"), "parsed", parsed)


def _words(rows: pa.Table, name: str) -> set[str]:
    if name not in rows.column_names:
        return set()
    return {str(word) for word in pc.unique(rows[name]).to_pylist() if word is not None}
