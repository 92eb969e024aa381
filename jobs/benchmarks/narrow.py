"""What totals need of each row of a part, in a few bytes: numbers and words that come again, no texts.

Only benchmarks whose headline is no mean over rows keep texts; they have some ten thousand rows at most.
"""

import hashlib
import json
from collections.abc import Collection
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

# Texts that totals other than means look at.
DETAILS = ("key", "parsed", "answers", "response_clean", "facts")
COUNTED = (
    "benchmark", "score", "error", "row_hash", "finish_reason", "parse_status", "groups", "cluster", "other_scores",
)  # fmt: skip
TEXTS = pa.list_(pa.string())
NO_GROUPS = "[]"


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
