"""The questions of rows that belong to no published data set: columns `question` and `answers`, and what else is named.

It knows rows and columns, not how a question is put or scored.
"""

from typing import Any

import pyarrow as pa

from jobs.benchmarks.adapt import with_items
from jobs.benchmarks.benchmark import Item, Row
from jobs.benchmarks.cells import bad, decoded
from pipeline.job import MissingColumns

# Where the rows have it: the options' texts, a list or its JSON text.
CHOICES = "choices"


def adapt_own(name: str, group_by: str | None, cluster_by: str | None, rows: pa.Table) -> pa.Table:
    """Put each row's question beside it, under all that the row has.

    Args:
        name: What the benchmark is called.
        group_by: The column by whose values the score is also shown.
        cluster_by: The column that names what rows share.
        rows: As the reader gives them.

    Raises:
        MissingColumns: A column is not there.
    """
    wanted = {"question": "question", "answers": "answers", "group_by": group_by, "cluster_by": cluster_by}
    there = rows.column_names
    others = ", ".join(column for column in there if column not in ("shard", "index", "images", "error")) or "no others"
    faults = [
        f"{'read.columns' if word == column else f'job.{word}'}: job vqa needs a column `{column}`, but the input has "
        f"{others}"
        for word, column in wanted.items()
        if column is not None and column not in there
    ]
    if faults:
        raise MissingColumns(faults)

    def item(row: Row) -> Item:
        return Item(
            question=_text(row["question"]) or "",
            answers=gold_answers(row["answers"]),
            choices=_choices(row.get(CHOICES)),
            groups=((group_by, str(row[group_by])),) if group_by and row[group_by] is not None else (),
            cluster=_text(row[cluster_by]) if cluster_by else None,
        )

    named = [column for column in (*wanted.values(), CHOICES) if column is not None and column in there]
    return with_items(name, rows, rows.select(named).to_pylist(), item)


def gold_answers(value: Any) -> tuple[str, ...] | None:
    """Return a row's gold answers: given as one string or as a list, or not at all, which is null or nothing but ""."""
    if value is None:
        return None
    answers = [value] if not isinstance(value, list | tuple) else [one for one in value if one is not None]
    texts = tuple(str(one) for one in answers)
    return texts if any(texts) else None


def _choices(value: Any) -> tuple[str, ...]:
    value = decoded(value, CHOICES, "a list of texts")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
        raise bad(CHOICES, value, "a list of texts")
    return tuple(str(one) for one in value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
