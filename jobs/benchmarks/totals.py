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
# Of one breakdown; the rarest of more have no line of their own.
MOST_CELLS = 1000
# Texts that totals other than means look at.
DETAILS = ("key", "parsed", "answers", "response_clean", "facts")
COUNTED = (
    "benchmark", "score", "error", "row_hash", "finish_reason", "parse_status", "groups", "cluster", "other_scores",
)  # fmt: skip
TEXTS = pa.list_(pa.string())
NO_GROUPS = "[]"
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
        cells: The cells of each row: places in `combinations`.
        combinations: The (breakdown, cell) pairs that rows have together.
        clusters: What rows share; None where each stands for itself.
    """

    scores: NDArray[np.float64]
    is_failed: Mask
    is_truncated: Mask
    cells: NDArray[np.int64]
    combinations: Sequence[Sequence[tuple[str, str]]]
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
        kind = TEXTS if name == "answers" else pa.string()
        nothing = pa.nulls(results.num_rows, kind)
        columns[name] = pc.if_else(is_detailed, results[name], nothing) if detailed else nothing
    return pa.table(columns)


def _groups(groups: pa.ChunkedArray) -> pa.Array:
    """Write the cells of each row as one word, which many rows share."""
    if not pc.sum(pc.list_value_length(groups)).as_py():
        return pa.array([NO_GROUPS] * len(groups), pa.string())
    cells = [[[one["name"], one["value"]] for one in row or ()] for row in groups.to_pylist()]
    return pa.array([json.dumps(row) for row in cells], pa.string())


def _clusters(clusters: pa.ChunkedArray) -> pa.Array:
    """Give clusters numbers; two that meet in 64 bits are out of the question."""
    if clusters.null_count == len(clusters):
        return pa.nulls(len(clusters), pa.int64())
    return pa.array([None if one is None else _number(one) for one in clusters.to_pylist()], pa.int64())


@lru_cache(maxsize=1 << 16)
def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


def summarize(rows: pa.Table, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Return `scores` of report.json by benchmark.

    Args:
        rows: What is kept of a whole run.
        metrics: What the first number of each benchmark is.
    """
    return {name: _benchmark(rows.filter(pc.equal(rows["benchmark"], name)), one) for name, one in metrics.items()}


def _benchmark(rows: pa.Table, metric: Metric) -> dict[str, Any]:
    aggregation = metric.aggregation if rows.num_rows else None
    merge = aggregation.merge if aggregation else None
    counted = rows_of(rows if merge is None else merge(rows))
    whole = np.ones(len(counted.scores), np.bool_)
    cells = _cells(counted)
    kept = _most_frequent(cells)
    breakdowns: dict[str, dict[str, Any]] = {name: {} for name in _in_order(counted.combinations)}
    for name, value in sorted(kept):
        has_cell = np.array([(name, value) in combination for combination in counted.combinations], np.bool_)
        breakdowns[name][value] = _total(counted, has_cell[counted.cells])
    first = next(iter(breakdowns.values()), {})
    return {
        "rule": metric.rule,
        "metric": "mean",
        **_total(counted, whole),
        "statuses": _statuses(rows),
        "others": _others(rows),
        **(aggregation.headline(rows, metric.rule, metric.with_meteor) if aggregation else {}),
        "by": first,
        "breakdowns": breakdowns,
        "cells_left_out": len(cells) - len(kept),
    }


def _cells(rows: Rows) -> Counter[tuple[str, str]]:
    """Count the rows of each cell of each breakdown."""
    sizes = np.bincount(rows.cells, minlength=len(rows.combinations)).tolist()
    counts: Counter[tuple[str, str]] = Counter()
    for combination, size in zip(rows.combinations, sizes, strict=True):
        counts.update(dict.fromkeys(combination, size))
    return counts


def _most_frequent(cells: Counter[tuple[str, str]]) -> set[tuple[str, str]]:
    """Choose the cells of each breakdown that have a line of their own; a column of ids must not take hours."""
    kept = set()
    for name in {name for name, _ in cells}:
        ordered = sorted((-count, cell) for cell, count in cells.items() if cell[0] == name)
        kept |= {cell for _, cell in ordered[:MOST_CELLS]}
    return kept


def rows_of(rows: pa.Table) -> Rows:
    """Return kept rows as columns; a row that could not be read counts as wrong where others have gold answers."""
    scores = np.array(pc.fill_null(rows["score"], float("nan")), np.float64)
    is_lost = np.array(pc.fill_null(rows["is_lost"], False), np.bool_)
    if (~np.isnan(scores)).any():
        scores = np.where(is_lost & np.isnan(scores), 0.0, scores)
    groups = rows["groups"].combine_chunks()
    indices = np.array(groups.indices, np.int64)
    # The words are those of all benchmarks of the run.
    used = set(np.unique(indices).tolist())
    combinations = [
        tuple((cell[0], cell[1]) for cell in json.loads(word)) if place in used else ()
        for place, word in enumerate(groups.dictionary.to_pylist())
    ]
    clusters = rows["cluster"]
    has_clusters = clusters.null_count < len(clusters)
    return Rows(
        scores=scores,
        is_failed=np.array(rows["is_failed"], np.bool_),
        is_truncated=np.array(pc.fill_null(rows["is_truncated"], False), np.bool_),
        cells=indices,
        combinations=combinations,
        # Rows that name no cluster stand for themselves.
        clusters=_filled(clusters) if has_clusters else None,
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
    found = estimate(scores[has_gold], clusters)
    if clusters is not None and found.mean in (0.0, 1.0):
        # All right, or all wrong: there is no spread to go by. As many trials as clusters are sure to be none too many.
        found, clusters = estimate(np.full(len(set(clusters)), found.mean)), None
    is_wilson = clusters is None and bool(np.isin(scores[has_gold], (0.0, 1.0)).all())
    interval = "wilson" if is_wilson else "t" if clusters is None else "clustered t"
    # Student's interval does not know that a mean of shares cannot leave 0 to 1.
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (found.low, found.high))
    sure = {"se": found.error, "low": low, "high": high, "interval": interval}
    return {"score": found.mean, **sure, **counts}


def _in_order(combinations: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """Return the breakdowns in the order in which the data set's adapter names them."""
    longest = sorted(combinations, key=len, reverse=True)
    return list(dict.fromkeys(name for combination in longest for name, _ in combination))


def _statuses(rows: pa.Table) -> dict[str, int]:
    counts = {one["values"]: one["counts"] for one in pc.value_counts(rows["parse_status"]).to_pylist()}
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
    return {one["rule"]: _share(one["score_sum"], one["score_count"], failed) for one in sums}


def _share(total: float | None, count: int, failed: int) -> float | None:
    return None if total is None or not count else total / (count + failed)


def _filled(clusters: pa.ChunkedArray) -> NDArray[np.int64]:
    numbers = np.array(pc.fill_null(clusters, 0), np.int64)
    is_alone = np.array(clusters.is_null(), np.bool_)
    # Numbers that no hash is likely to have, and each has one of its own.
    own = np.iinfo(np.int64).min + np.arange(len(numbers))
    return np.where(is_alone, own, numbers)


def first_group(row: Mapping[str, Any]) -> str:
    """Return the group of a kept row in its first breakdown."""
    groups = json.loads(row["groups"])
    return str(groups[0][1]) if groups else ""
