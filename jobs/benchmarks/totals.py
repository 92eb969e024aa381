"""The totals of a run by benchmark: a first number with its error and interval, counts beside it, the same by groups.

Of each row of a part a few bytes are kept: numbers and words that come again, no texts. Only benchmarks whose first
number is no mean over rows keep texts, too; they have some ten thousand rows at most.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.benchmarks.benchmark import Aggregation
from jobs.scoring.statistics import estimate

Mask: TypeAlias = NDArray[np.bool_]
# A breakdown and one of its groups.
Group: TypeAlias = tuple[str, str]
# Of one breakdown; the rarest of more have no line of their own.
MOST_GROUPS = 1000
# Texts that totals other than means look at.
DETAILS = ("key", "parsed", "answers", "response_clean", "facts")
COUNTED = (
    "benchmark", "score", "error", "row_hash", "finish_reason", "parse_status", "groups", "cluster", "other_scores",
)  # fmt: skip
STATUSES = ("ok", "failed", "refused", "empty", "truncated")


@dataclass(frozen=True)
class Metric:
    """What the first number of a benchmark's report is.

    Attributes:
        rule: The id of the rule that the rows were scored by.
        aggregation: How their scores become one number; None means the mean.
        with_meteor: Whether captions are scored by METEOR too, which takes Java, a minute and 2 GB.
    """

    rule: str
    aggregation: Aggregation | None = None
    with_meteor: bool = False


@dataclass(frozen=True)
class Rows:
    """Rows of one benchmark as columns of equal length.

    Attributes:
        scores: 0 to 1; not a number for a row without a gold answer.
        is_failed: The row has an error in place of an answer.
        is_truncated: Its answer ran into the token limit.
        groups: The groups of each row: an index into `combinations`.
        combinations: The (breakdown, group) pairs that rows have together.
        clusters: What rows share; None where each stands for itself.
    """

    scores: NDArray[np.float64]
    is_failed: Mask
    is_truncated: Mask
    groups: NDArray[np.int64]
    combinations: Sequence[Sequence[Group]]
    clusters: NDArray[np.int64] | None


def narrowed(results: pa.Table, detailed: Collection[str]) -> pa.Table:
    """Return what counts of some rows.

    Args:
        results: The columns COUNTED of a part, and DETAILS if there is a benchmark that looks at them.
        detailed: Those benchmarks.
    """
    names = results["benchmark"]
    columns = {
        "benchmark": pc.dictionary_encode(names),
        "score": results["score"],
        "is_failed": results["error"].is_valid(),
        # Nothing is known of it, not even whether something would have been right about it.
        "is_lost": results["row_hash"].is_null(),
        "is_truncated": pc.equal(results["finish_reason"], "length"),
        "parse_status": pc.dictionary_encode(results["parse_status"]),
        "groups": _groups(results["groups"]).dictionary_encode(),
        "cluster": _clusters(results["cluster"]),
        "others": results["other_scores"],
    }
    is_detailed = pc.is_in(names, pa.array(list(detailed), pa.string()))
    for name in DETAILS:
        nulls = pa.nulls(results.num_rows, pa.list_(pa.string()) if name == "answers" else pa.string())
        columns[name] = pc.if_else(is_detailed, results[name], nulls) if detailed else nulls
    return pa.table(columns)


def _groups(groups: pa.ChunkedArray) -> pa.Array:
    """Write the groups of each row as one JSON text, which many rows share."""
    if not pc.sum(pc.list_value_length(groups)).as_py():
        return pa.array(["[]"] * len(groups), pa.string())
    pairs = [[[group["name"], group["value"]] for group in row or ()] for row in groups.to_pylist()]
    return pa.array([json.dumps(row) for row in pairs], pa.string())


def _clusters(clusters: pa.ChunkedArray) -> pa.Array:
    """Give clusters numbers; two that meet in 64 bits are out of the question."""
    if clusters.null_count == len(clusters):
        return pa.nulls(len(clusters), pa.int64())
    return pa.array([None if name is None else _hash(name) for name in clusters.to_pylist()], pa.int64())


@lru_cache(maxsize=1 << 16)
def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


def summarize(rows: pa.Table, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Return `scores` of report.json by benchmark.

    Args:
        rows: What is kept of a whole run.
        metrics: What the first number of each benchmark is.
    """
    return {name: _score(rows.filter(pc.equal(rows["benchmark"], name)), metric) for name, metric in metrics.items()}


def _score(rows: pa.Table, metric: Metric) -> dict[str, Any]:
    aggregation = metric.aggregation if rows.num_rows else None
    merge = aggregation.merge if aggregation else None
    counted = _columns_of(rows if merge is None else merge(rows))
    sizes = _group_sizes(counted)
    shown = _most_frequent(sizes)
    breakdowns: dict[str, dict[str, Any]] = {name: {} for name in _in_order(counted.combinations)}
    for name, value in sorted(shown):
        has_group = np.array([(name, value) in combination for combination in counted.combinations], np.bool_)
        breakdowns[name][value] = _total(counted, has_group[counted.groups])
    return {
        "rule": metric.rule,
        "metric": "mean",
        **_total(counted, np.ones(len(counted.scores), np.bool_)),
        "statuses": _statuses(rows),
        "others": _others(rows),
        **(aggregation.headline(rows, metric.rule, metric.with_meteor) if aggregation else {}),
        "by": next(iter(breakdowns.values()), {}),
        "breakdowns": breakdowns,
        "cells_left_out": len(sizes) - len(shown),
    }


def _group_sizes(rows: Rows) -> Counter[Group]:
    """Count the rows of each group of each breakdown."""
    counts = np.bincount(rows.groups, minlength=len(rows.combinations)).tolist()
    sizes: Counter[Group] = Counter()
    for combination, count in zip(rows.combinations, counts, strict=True):
        sizes.update(dict.fromkeys(combination, count))
    return sizes


def _most_frequent(sizes: Counter[Group]) -> set[Group]:
    """Choose the groups of each breakdown that have a line of their own; a column of ids must not take hours."""
    chosen = set()
    for name in {name for name, _ in sizes}:
        ordered = sorted((-size, group) for group, size in sizes.items() if group[0] == name)
        chosen |= {group for _, group in ordered[:MOST_GROUPS]}
    return chosen


def _columns_of(rows: pa.Table) -> Rows:
    """Return kept rows as columns; a row that could not be read counts as wrong where others have gold answers."""
    scores = np.array(pc.fill_null(rows["score"], float("nan")), np.float64)
    is_lost = np.array(pc.fill_null(rows["is_lost"], False), np.bool_)
    if (~np.isnan(scores)).any():
        scores = np.where(is_lost & np.isnan(scores), 0.0, scores)
    groups = rows["groups"].combine_chunks()
    indices = np.array(groups.indices, np.int64)
    # The dictionary is that of all benchmarks of the run.
    used = set(np.unique(indices).tolist())
    combinations = [
        tuple((name, value) for name, value in json.loads(pairs)) if index in used else ()
        for index, pairs in enumerate(groups.dictionary.to_pylist())
    ]
    clusters = rows["cluster"]
    return Rows(
        scores=scores,
        is_failed=np.array(rows["is_failed"], np.bool_),
        is_truncated=np.array(pc.fill_null(rows["is_truncated"], False), np.bool_),
        groups=indices,
        combinations=combinations,
        clusters=_filled(clusters) if clusters.null_count < len(clusters) else None,
    )


def _total(rows: Rows, mask: Mask) -> dict[str, Any]:
    """Return the mean of some rows, how sure it is, and what counts beside it."""
    scores = rows.scores[mask]
    has_gold = ~np.isnan(scores)
    n = int(has_gold.sum())
    counts = {
        "n": n,
        "unscored": int(len(scores) - n),
        "failed": int(rows.is_failed[mask].sum()),
        "truncated": int(rows.is_truncated[mask].sum()),
    }
    if not n:
        return {"score": None, "se": None, "low": None, "high": None, "interval": None, **counts}
    clusters = None if rows.clusters is None else rows.clusters[mask][has_gold].tolist()
    mean = estimate(scores[has_gold], clusters)
    if clusters is not None and mean.mean in (0.0, 1.0):
        # All right, or all wrong: there is no spread to go by. As many trials as clusters are sure to be none too many.
        mean, clusters = estimate(np.full(len(set(clusters)), mean.mean)), None
    is_wilson = clusters is None and bool(np.isin(scores[has_gold], (0.0, 1.0)).all())
    interval = "wilson" if is_wilson else "t" if clusters is None else "clustered t"
    # Student's interval does not know that a mean of shares cannot leave 0 to 1.
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (mean.low, mean.high))
    return {"score": mean.mean, "se": mean.error, "low": low, "high": high, "interval": interval, **counts}


def _in_order(combinations: Sequence[Sequence[Group]]) -> list[str]:
    """Return the breakdowns in the order in which the data set's items name them."""
    longest = sorted(combinations, key=len, reverse=True)
    return list(dict.fromkeys(name for combination in longest for name, _ in combination))


def _statuses(rows: pa.Table) -> dict[str, int]:
    counts = {count["values"]: count["counts"] for count in pc.value_counts(rows["parse_status"]).to_pylist()}
    return {status: int(counts.get(status, 0)) for status in STATUSES}


def _others(rows: pa.Table) -> dict[str, float | None]:
    """Return the means under the other rules in use, over the rows that have them; failed and lost ones are wrong."""
    flat = pc.list_flatten(rows["others"])
    if not len(flat):
        return {}
    table = pa.table({"rule": pc.struct_field(flat, "rule"), "score": pc.struct_field(flat, "score")})
    sums = table.group_by("rule", use_threads=False).aggregate([("score", "sum"), ("score", "count")]).to_pylist()
    is_wrong = pc.or_(pc.and_(rows["is_failed"], rows["score"].is_valid()), rows["is_lost"])
    failed = int(pc.sum(is_wrong).as_py() or 0)
    return {
        row["rule"]: row["score_sum"] / (row["score_count"] + failed) if row["score_count"] else None for row in sums
    }


def _filled(clusters: pa.ChunkedArray) -> NDArray[np.int64]:
    """Give rows that name no cluster a number of their own, which no hash is likely to be."""
    hashes = np.array(pc.fill_null(clusters, 0), np.int64)
    own = np.iinfo(np.int64).min + np.arange(len(hashes))
    return np.where(np.array(clusters.is_null(), np.bool_), own, hashes)


def first_group(row: Mapping[str, Any]) -> str:
    """Return the group of a kept row in its first breakdown."""
    groups = json.loads(row["groups"])
    return str(groups[0][1]) if groups else ""
