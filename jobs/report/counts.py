"""What is counted of a run's results, part by part: over all rows, and over those of each benchmark.

It knows columns, not where the parts are and how numbers are shown.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.part_files import OpenPart
from jobs.report.unread import UNREAD_COLUMNS, Unread
from pipeline import count_rows

SUMMED = ("prompt_tokens", "image_tokens", "output_tokens")
COUNTED = ("key", "shard", "index", "finish_reason", "error", *SUMMED)
BENCHMARK_COLUMNS = (
    "benchmark", "preset", "judge", "judge_verdict", "judged_score", "score", "row_hash", *UNREAD_COLUMNS,
)  # fmt: skip
# A job whose schema has these asks questions; `benchmark` alone may mean anything.
OF_QUESTIONS = frozenset(("benchmark", "row_hash", "score", "parse_status"))
EXAMPLES_PER_FAILURE = 3


class Counts:
    """The counts over the parts seen so far.

    Attributes:
        rows: Rows of the input; each may be in the results several times, once for each of its pictures.
        answers: Rows of the results.
        failed: Those among them that have an error.
        tokens: Sums of the columns SUMMED by their names.
        finish_reasons: How often each occurs, in the order in which they came.
        spread: Of each of the columns SUMMED, how many rows that are well have so many tokens.
    """

    def __init__(self) -> None:
        self.rows = self.answers = self.failed = 0
        self.tokens = dict.fromkeys(SUMMED, 0)
        self.finish_reasons: Counter[str] = Counter()
        self.spread: dict[str, Counter[int]] = {name: Counter() for name in SUMMED}
        self._failures: Counter[tuple[str, str]] = Counter()
        self._examples: defaultdict[tuple[str, str], list[Mapping[str, str]]] = defaultdict(list)

    def add(self, rows: pa.Table) -> None:
        """Count the rows of the next part: all of it, since the results of one row of the input stand in one part."""
        self.rows += count_rows(rows)
        self.answers += rows.num_rows
        self.failed += rows.num_rows - rows["error"].null_count
        well = rows.filter(rows["error"].is_null())
        for name in SUMMED:
            self.tokens[name] += int(pc.sum(rows[name]).as_py() or 0)
            for number in pc.value_counts(well[name].drop_null()).to_pylist():
                self.spread[name][int(number["values"])] += int(number["counts"])
        for reason in pc.value_counts(rows["finish_reason"]).to_pylist():
            self.finish_reasons[str(reason["values"])] += int(reason["counts"])
        for row in rows.filter(rows["error"].is_valid()).select(["key", "error"]).to_pylist():
            kind = row["error"]["stage"], row["error"]["type"]
            self._failures[kind] += 1
            if self._failures[kind] <= EXAMPLES_PER_FAILURE:
                self._examples[kind].append({"key": row["key"], "message": row["error"]["message"]})

    @property
    def failures(self) -> Sequence[Mapping[str, Any]]:
        """Error rows by stage and type, the most frequent first, with the first few examples of each."""
        return [
            {"stage": stage, "type": kind, "count": count, "examples": self._examples[stage, kind]}
            for (stage, kind), count in sorted(self._failures.items(), key=lambda item: (-item[1], item[0]))
        ]


@dataclass
class Tally:
    """The counts of one benchmark.

    Attributes:
        rows: Rows of the results.
        verdicts: How many of them are right, wrong, or neither.
        presets: The presets whose wording they were asked in.
        judges: Who looked at answers that no rule could read.
        judged: How many rows a judge looked at.
        hashes: The sum of the hashes of what was asked: equal for the same rows, in whatever order they come.
    """

    rows: int = 0
    verdicts: Counter[bool | None] = field(default_factory=Counter)
    presets: set[str] = field(default_factory=set)
    judges: set[str] = field(default_factory=set)
    judged: int = 0
    hashes: int = 0

    def add(self, rows: pa.Table) -> None:
        """Count some rows of the benchmark."""
        self.rows += rows.num_rows
        self.presets |= _distinct(rows, "preset")
        self.hashes += sum(int(hash, 16) for hash in rows["row_hash"].to_pylist() if hash is not None)
        if judges := _distinct(rows, "judge"):
            self.judges |= judges
            self.judged += rows.num_rows - rows["judge"].null_count


class BenchmarkCounts:
    """The counts by benchmark over the parts seen so far; rows of one's own have a benchmark's name, too.

    Attributes:
        unread: The rows whose answers could not be read.
    """

    def __init__(self) -> None:
        self.unread = Unread()
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)

    def add(self, part: OpenPart, rows: pa.Table, verdicts: Sequence[bool | None]) -> None:
        """Count the next part: its columns BENCHMARK_COLUMNS, and the verdict on each row."""
        for name, verdict in zip(rows["benchmark"].to_pylist(), verdicts, strict=True):
            self._tallies[name].verdicts[verdict] += 1
        for name in pc.unique(rows["benchmark"]).to_pylist():
            self._tallies[name].add(rows.filter(pc.equal(rows["benchmark"], name)))
        self.unread.add(part, rows)

    def rows_of(self, name: str) -> int:
        """Return how many rows of a benchmark are in the results."""
        return self._tallies[name].rows

    def summary(self, name: str, judged: Mapping[str, Any]) -> dict[str, Any]:
        """Return what report.json has beside a benchmark's score.

        Args:
            name: The benchmark.
            judged: Its score with the judge's verdicts; empty without a judge.
        """
        tally = self._tallies[name]
        summary: dict[str, Any] = {
            "rows": tally.rows,
            "data": f"{tally.hashes % 2**128:032x}",
            "presets": sorted(tally.presets),
            "right": tally.verdicts[True],
            "wrong": tally.verdicts[False],
        }
        if tally.judged:
            share = tally.judged / tally.rows
            judges = sorted(tally.judges)
            summary["judge"] = {"judges": judges, "rows": tally.judged, "share": share, "score": judged.get("score")}
        return {**summary, "unread": self.unread.summary(name)}


def _distinct(rows: pa.Table, name: str) -> set[str]:
    if name not in rows.column_names:
        return set()
    return {str(value) for value in pc.unique(rows[name]).to_pylist() if value is not None}
