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
TOLD = ("benchmark", "preset", "judge", "judged_score", "score", "row_hash")


@dataclass
class OfBenchmark:
    """What is told of one benchmark.

    Attributes:
        rows: Rows of the results.
        verdicts: How many of them are right, wrong, or neither.
        presets: Whose wordings they were asked in.
        judges: Who looked at what no rule could read.
        judged: At how many rows.
        gained: What the score of all rows together would gain by what the judges say.
        data: The sum of the hashes of what was asked: alike for the same rows, in whatever order they come.
    """

    rows: int = 0
    verdicts: Counter[bool | None] = field(default_factory=Counter)
    presets: set[str] = field(default_factory=set)
    judges: set[str] = field(default_factory=set)
    judged: int = 0
    gained: float = 0.0
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

    def summed(self, name: str, score: Mapping[str, Any]) -> dict[str, Any]:
        """Return what stands beside a benchmark's score: rows, wordings, verdicts, and what a judge makes of it."""
        told = self._of(name)
        summed: dict[str, Any] = {
            "rows": told.rows,
            "data": f"{told.data % 2**128:032x}",
            "presets": sorted(told.presets),
            "right": told.verdicts[True],
            "wrong": told.verdicts[False],
        }
        return {**summed, "judge": _judged(told, score)} if told.judged else summed

    def _of(self, name: str) -> OfBenchmark:
        return self._benchmarks.setdefault(name, OfBenchmark())


def _add(told: OfBenchmark, rows: pa.Table) -> None:
    told.rows += rows.num_rows
    told.presets |= _words(rows, "preset")
    told.data += sum(int(hash, 16) for hash in rows["row_hash"].to_pylist() if hash is not None)
    judges = _words(rows, "judge")
    if judges:
        told.judges |= judges
        judged = rows.filter(rows["judge"].is_valid())
        told.judged += judged.num_rows
        gained = pc.subtract(pc.cast(judged["judged_score"], pa.float64()), pc.cast(judged["score"], pa.float64()))
        told.gained += float(pc.sum(gained).as_py() or 0.0)


def _words(rows: pa.Table, name: str) -> set[str]:
    if name not in rows.column_names:
        return set()
    return {str(word) for word in pc.unique(rows[name]).to_pylist() if word is not None}


def _judged(told: OfBenchmark, score: Mapping[str, Any]) -> dict[str, Any]:
    """Return what judges have changed; a headline that is no mean over rows has no score with them."""
    is_mean = score.get("metric") == "mean" and score["score"] is not None
    return {
        "judges": sorted(told.judges),
        "rows": told.judged,
        "share": told.judged / told.rows,
        "score": score["score"] + told.gained / score["n"] if is_mean else None,
    }
