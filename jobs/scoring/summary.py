"""Scores of rows brought together: a mean with its interval, what counts beside it, and the same by group.

It knows scores and groups; which rule gave the scores is a name to it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from jobs.scoring.intervals import wilson


class ScoredRow(NamedTuple):
    """What counts of one row.

    Attributes:
        score: 0 or 1; a row that failed has 0, a row without a gold answer has None.
        is_failed: The row has an error instead of an answer.
        is_truncated: The answer ran into its limit of tokens.
        group: What the row is counted under beside the whole, e.g. its answer type.
    """

    score: float | None
    is_failed: bool
    is_truncated: bool
    group: str | None = None


def summarize_scores(rule: str, rows: Sequence[ScoredRow]) -> dict[str, Any]:
    """Return `rule, score, low, high, n, unscored, failed, truncated, by` for report.json.

    `n` counts the rows that have a gold answer; failed ones among them score 0. Rows without a gold answer
    are `unscored`: nothing can be said about them, so they stand beside the score and not in it.
    """
    groups: dict[str, list[ScoredRow]] = defaultdict(list)
    for row in rows:
        if row.group is not None:
            groups[row.group].append(row)
    return {"rule": rule, **_score(rows), "by": {group: _score(groups[group]) for group in sorted(groups)}}


def _score(rows: Sequence[ScoredRow]) -> dict[str, Any]:
    scores = [row.score for row in rows if row.score is not None]
    counts = {
        "n": len(scores),
        "unscored": len(rows) - len(scores),
        "failed": sum(row.is_failed for row in rows),
        "truncated": sum(row.is_truncated for row in rows),
    }
    if not scores:
        return {"score": None, "low": None, "high": None, **counts}
    interval = wilson(sum(scores), len(scores))
    return {"score": sum(scores) / len(scores), "low": interval.low, "high": interval.high, **counts}
