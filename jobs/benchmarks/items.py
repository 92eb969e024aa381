"""Turn rows into rows with one question each, in columns that are the same for all data sets and for rows of one's own.

A row that is not as its data set should be becomes an error row. It knows tables, not prompts, rules or models.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.benchmarks.benchmark import Benchmark, Item
from jobs.benchmarks.row import BadRow, Row, bad_column, decoded
from jobs.prompt import earlier_turns
from pipeline import (
    ERROR,
    FOR_THE_JOB,
    MESSAGES,
    OUR_COLUMNS,
    READ,
    TAKEN,
    MissingColumns,
    own_name,
    row_error,
    setting_for,
)

STAGE = "adapt"
COLUMN = f"{FOR_THE_JOB}item"
GROUPS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))
ITEM = pa.struct(
    [
        ("benchmark", pa.string()),
        ("question", pa.string()),
        ("context", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("choices", pa.list_(pa.string())),
        ("groups", GROUPS),
        ("cluster", pa.string()),
        ("facts", pa.string()),
        ("row_hash", pa.string()),
        ("image_hash", pa.string()),
    ]
)
# Where rows of one's own have it: the options' texts, a list or its JSON text.
CHOICES = "choices"


def published_items(name: str, benchmark: Benchmark, renames: Mapping[str, str], rows: pa.Table) -> pa.Table:
    """Return the rows of a published data set with nothing beside what every row has but their questions.

    Args:
        name: What the benchmark is called in this run.
        benchmark: The data set.
        renames: The data set's column: what this copy calls it.
        rows: As the reader gives them, other columns in the types and under the names that the copy has.

    Raises:
        MissingColumns: The copy lacks columns that the data set's questions need.
    """
    names = {column: renames.get(column, column) for column in (*benchmark.needed, *benchmark.used)}
    sources = {column: _column(name_here, rows.column_names) for column, name_here in names.items()}
    others = ", ".join(column for column in rows.column_names if column not in (*READ, "shard")) or "no others"
    faults = [
        f"job.benchmarks.{name}: {benchmark.key} needs a column `{names[column]}`, but the input has {others}; "
        f"job.benchmarks.{name}.columns can say what it is called there"
        for column in benchmark.needed
        if sources[column] is None
    ]
    if faults:
        raise MissingColumns(faults)
    values = {column: rows.column(source).to_pylist() for column, source in sources.items() if source is not None}
    if benchmark.key_column is not None:
        values[benchmark.key_column] = rows.column("key").to_pylist()
    read = (Row((column, cells[index]) for column, cells in values.items()) for index in range(rows.num_rows))
    return _with_items(name, rows.select(list(READ)), read, benchmark.to_item)


def own_items(name: str, group_by: str | None, cluster_by: str | None, rows: pa.Table) -> pa.Table:
    """Put the question of each row of one's own beside all that the row has; without `answers` no gold answer is known.

    Args:
        name: What the benchmark is called.
        group_by: The column by whose values the score is also shown.
        cluster_by: The column that names what rows share.
        rows: As the reader gives them.

    Raises:
        MissingColumns: A column is not there.
    """
    needed = {"question": "question", "group_by": group_by, "cluster_by": cluster_by}
    found = rows.column_names
    others = [column for column in found if column not in (*READ, MESSAGES)]
    listed = ", ".join(["key", *map(own_name, others)])
    faults = [
        f"{'read.columns' if setting == column else f'job.{setting}'}: job vqa needs a column `{column}`, but the "
        f"input has {listed}{_advice(setting, rows.select(others))}"
        for setting, column in needed.items()
        if column is not None and column not in found
    ]
    if faults:
        raise MissingColumns(faults)

    def to_item(row: Row) -> Item:
        return Item(
            question=_text(row["question"]) or "",
            context=earlier_turns(row.get(MESSAGES)),
            answers=gold_answers(row.get("answers")),
            choices=_choices(row.get(CHOICES)),
            groups=((group_by, str(row[group_by])),) if group_by and row[group_by] is not None else (),
            cluster=_text(row[cluster_by]) if cluster_by else None,
        )

    wanted = (*needed.values(), "answers", CHOICES, MESSAGES)
    named = [column for column in wanted if column is not None and column in found]
    return _with_items(name, rows, map(Row, rows.select(named).to_pylist()), to_item)


def _advice(word: str, rows: pa.Table) -> str:
    proposed = setting_for(word, rows)
    if proposed:
        return f"; set {proposed}"
    otherwise = "; job.kind=caption asks one prompt of all rows, and job.reference names what is right"
    return otherwise if word == "question" else ""


def gold_answers(value: Any) -> tuple[str, ...] | None:
    """Return a row's gold answers: given as one string or as a list, or not at all, which is null or nothing but ""."""
    answers = value if isinstance(value, list | tuple) else [value]
    texts = tuple(str(answer) for answer in answers if answer is not None)
    return texts if any(texts) else None


def _choices(value: Any) -> tuple[str, ...]:
    value = decoded(value, CHOICES, "a list of texts")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(option, str | int | float) for option in value):
        raise bad_column(CHOICES, value, "a list of texts")
    return tuple(map(str, value))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _with_items(name: str, rows: pa.Table, values: Iterable[Row], to_item: Callable[[Row], Item]) -> pa.Table:
    """Put each row's question beside it; a row that is refused has an error, if it has none yet, and no question."""
    errors = rows.column("error").to_pylist()
    items: list[dict[str, Any]] = []
    for index, row in enumerate(values):
        try:
            items.append(as_column(name, to_item(row), rows.column("images")[index]))
        except BadRow as refused:
            items.append({"benchmark": name})
            errors[index] = errors[index] or row_error(STAGE, refused)
    rows = rows.append_column(COLUMN, pa.array(items, ITEM))
    return rows.set_column(rows.column_names.index("error"), pa.field("error", ERROR), pa.array(errors, ERROR))


def as_column(name: str, item: Item, images: pa.Scalar) -> dict[str, Any]:
    """Return an item as a value of the column COLUMN, with a hash of its content and one of its images."""
    try:
        facts = json.dumps(item.facts, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadRow(f"found {dict(item.facts)!r} for facts, expected values that JSON has: {error}") from error
    # A video's frames and subtitles lie beside the row, and are not read where stored predictions are scored.
    context = "" if "<image 1>" in item.context else item.context
    content = [item.question, context, item.answers, item.choices, facts]
    has_images = images.is_valid and len(images.values) > 0
    return {
        "benchmark": name,
        "question": item.question,
        "context": item.context,
        "answers": None if item.answers is None else list(item.answers),
        "choices": list(item.choices),
        "groups": [{"name": name, "value": value} for name, value in item.groups],
        "cluster": item.cluster,
        "facts": facts,
        "row_hash": _digest([json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")]),
        "image_hash": _digest(image.as_buffer() for image in images.values) if has_images else None,
    }


def from_column(value: Mapping[str, Any]) -> Item:
    """Read an item back from a value of COLUMN, or from a part's columns."""
    answers = value["answers"]
    return Item(
        question=value["question"],
        answers=None if answers is None else tuple(answers),
        choices=tuple(value["choices"] or ()),
        context=value["context"] or "",
        groups=tuple((group["name"], group["value"]) for group in value["groups"] or ()),
        cluster=value["cluster"],
        facts=json.loads(value["facts"] or "{}"),
    )


def _column(name: str, columns: Sequence[str]) -> str | None:
    """Return where the reader has put a column of the input; columns that are called as ours are, it renames."""
    moved = f"input_{name}"
    if (name in TAKEN or name in OUR_COLUMNS.names) and moved in columns:
        return moved
    return name if name in columns and name not in READ else None


def _digest(pieces: Iterable[Any]) -> str:
    """Hash several pieces so that what stands in one of them cannot be mistaken for what stands in the next."""
    whole = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        whole.update(hashlib.blake2b(piece, digest_size=16).digest())
    return whole.hexdigest()
