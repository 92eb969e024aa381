"""The score of many rows: their mean with its interval and counts, also by group.

It knows scores and groups, as columns of a few bytes a row; which rule gave the scores is a name to it.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from jobs.scoring.intervals import wilson

Column: TypeAlias = pa.Array | pa.ChunkedArray

_SUMS = [("score", "count"), ("score", "sum"), ("is_failed", "sum"), ("is_truncated", "sum"), ([], "count_all")]


def score_table(
    scores: Column, *, is_failed: Column | None = None, is_truncated: Column | None = None, group: Column | None = None
) -> pa.Table:
    """Return a table of what counts of some rows.

    Args:
        scores: 0 or 1; a row that failed has 0, a row without a gold answer has null.
        is_failed: The row has an error instead of an answer.
        is_truncated: The answer ran into its limit of tokens.
        group: What the row is counted under beside the whole, e.g. its answer type; as text.
    """
    nothing = pa.nulls(len(scores), pa.bool_())
    columns = {
        "score": pc.cast(scores, pa.float64()),
        "is_failed": nothing if is_failed is None else is_failed,
        "is_truncated": nothing if is_truncated is None else is_truncated,
    }
    if group is None:
        return pa.table(columns)
    names = pa.array([None if name is None else str(name) for name in group.to_pylist()], pa.string())
    return pa.table({**columns, "group": names.dictionary_encode()})


def summarize_scores(rule: str, rows: pa.Table) -> dict[str, Any]:
    """Return `rule, score, low, high, n, unscored, failed, truncated, by` for report.json.

    `n` counts the rows that have a gold answer; failed ones among them score 0. Rows without a gold answer
    are `unscored`: they are counted beside the score, not in it.

    Args:
        rule: What gave the scores.
        rows: What `score_table` has put together, of a whole run.
    """
    by = {}
    if "group" in rows.column_names:
        groups = {sums["group"]: _score(sums) for sums in _sums(rows, ["group"]) if sums["group"] is not None}
        by = {group: groups[group] for group in sorted(groups)}
    (whole,) = _sums(rows, [])
    return {"rule": rule, **_score(whole), "by": by}


def _sums(rows: pa.Table, keys: list[str]) -> list[dict[str, Any]]:
    # On one thread, so that sums of fractions are the same every time.
    sums: list[dict[str, Any]] = rows.group_by(keys, use_threads=False).aggregate(_SUMS).to_pylist()
    return sums


def _score(sums: Mapping[str, Any]) -> dict[str, Any]:
    n = sums["score_count"]
    counts = {
        "n": n,
        "unscored": sums["count_all"] - n,
        "failed": sums["is_failed_sum"] or 0,
        "truncated": sums["is_truncated_sum"] or 0,
    }
    if not n:
        return {"score": None, "low": None, "high": None, **counts}
    interval = wilson(sums["score_sum"], n)
    return {"score": sums["score_sum"] / n, "low": interval.low, "high": interval.high, **counts}
