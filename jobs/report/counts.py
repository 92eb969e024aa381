"""What is counted of a run's results, part by part: rows, tokens, how answers ended, what failed and why.

It knows the columns that every part has, not where the parts stand and how numbers are shown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import count_rows

SUMMED = ("prompt_tokens", "image_tokens", "output_tokens")
COUNTED = ("key", "shard", "index", "finish_reason", "error", *SUMMED)
EXAMPLES_PER_FAILURE = 3


class Counts:
    """The counts over the parts seen so far.

    Attributes:
        rows: Rows of the input; each may stand in the results several times, once for each of its pictures.
        answers: Rows of the results.
        failed: Those among them that have an error.
        tokens: Sums of the columns SUMMED by their names.
        finish_reasons: How often each stands there, in the order in which they came.
    """

    def __init__(self) -> None:
        self.rows = self.answers = self.failed = 0
        self.tokens = dict.fromkeys(SUMMED, 0)
        self.finish_reasons: dict[str, int] = {}
        self._kinds: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[Mapping[str, str]]] = {}

    def add(self, rows: pa.Table) -> None:
        """Count the rows of the next part: all of it, since the results of one row of the input stand in one part."""
        self.rows += count_rows(rows)
        self.answers += rows.num_rows
        self.failed += rows.num_rows - rows["error"].null_count
        for name in SUMMED:
            self.tokens[name] += int(pc.sum(rows[name]).as_py() or 0)
        for one in pc.value_counts(rows["finish_reason"]).to_pylist():
            reason = str(one["values"])
            self.finish_reasons[reason] = self.finish_reasons.get(reason, 0) + int(one["counts"])
        for row in rows.filter(rows["error"].is_valid()).select(["key", "error"]).to_pylist():
            self._add_failure(row["key"], row["error"])

    @property
    def failures(self) -> Sequence[Mapping[str, Any]]:
        """Error rows by stage and type, the most frequent first, with the first few examples of each."""
        counted = sorted(self._kinds.items(), key=lambda item: (-item[1], item[0]))
        return [
            {"stage": stage, "type": kind, "count": count, "examples": self._examples[stage, kind]}
            for (stage, kind), count in counted
        ]

    def _add_failure(self, key: str, error: Mapping[str, str]) -> None:
        kind = error["stage"], error["type"]
        self._kinds[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES_PER_FAILURE:
            examples.append({"key": key, "message": error["message"]})
