"""Put rows that were answered again in the places of those that they replace.

It knows the columns of a part and nothing of storage, of plans or of Ray.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Where a row of the input stands: its shard and its index there.
RowId = tuple[str, int]


def replace_rows(rows: pa.Table, again: pa.Table) -> pa.Table:
    """Return a part's rows with some of them replaced; each may stand there several times, before and afterwards.

    A row that had more good answers the first time stays as it was.

    Raises:
        ValueError: What came again is no row of the part, or a row stands in two places.
    """
    before, after = spans(rows), spans(again)
    if strangers := [place for place in after if place not in before]:
        raise ValueError(f"{len(strangers)} rows that were answered again are not in the part, first {strangers[0]}")
    pieces: list[pa.Table] = []
    end = 0
    for place, span in before.items():
        if place not in after:
            continue
        old, new = _cut(rows, span), _cut(again, after[place])
        pieces += [rows.slice(end, span.start - end), new if _worth(new) >= _worth(old) else old]
        end = span.stop
    return pa.concat_tables([*pieces, rows.slice(end)])


def spans(rows: pa.Table) -> dict[RowId, range]:
    """Say, in order, which results stand for which row of the input.

    Raises:
        ValueError: A row's results do not stand together.
    """
    found: dict[RowId, range] = {}
    last: RowId | None = None
    for number, place in enumerate(_row_ids(rows)):
        if place != last and place in found:
            raise ValueError(f"row {place[1]} of {place[0]} has answers in two places, expected them in one")
        start = found[place].start if place == last else number
        found[place] = range(start, number + 1)
        last = place
    return found


def count_failures(rows: pa.Table) -> dict[str, Any]:
    """Count rows of the input, those among them that are well now, and the others by the first of their errors."""
    errors = rows["error"].to_pylist()
    firsts = [next((errors[number] for number in span if errors[number]), None) for span in spans(rows).values()]
    kinds = Counter((error["stage"], error["type"]) for error in firsts if error)
    return {
        "rows": len(firsts),
        "recovered": sum(error is None for error in firsts),
        "failures": [{"stage": stage, "type": kind, "count": count} for (stage, kind), count in sorted(kinds.items())],
    }


def only_rows(rows: pa.Table, places: Mapping[RowId, Any]) -> pa.Table:
    """Return the results of some rows."""
    return rows.filter(pa.array([place in places for place in _row_ids(rows)], pa.bool_()))


def _row_ids(rows: pa.Table) -> Iterator[RowId]:
    return zip(rows["shard"].to_pylist(), rows["index"].to_pylist(), strict=True)


def _cut(rows: pa.Table, span: range) -> pa.Table:
    return rows.slice(span.start, len(span))


def _worth(answers: pa.Table) -> tuple[int, int]:
    """Return how many of a row's answers are well, and how many it has at all, well or not."""
    return answers["error"].null_count, pc.sum(pc.not_equal(answers["finish_reason"], "error")).as_py() or 0
