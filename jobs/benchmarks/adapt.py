"""Turn rows as a data set has them into rows with one question each, in columns that are the same for all data sets.

A row that its adapter refuses becomes an error row. It knows tables and adapters, not prompts, rules or models.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.benchmarks.benchmark import BadRow, Benchmark, Item, Row
from pipeline.input.columns import ERROR, OUR_COLUMNS, TAKEN
from pipeline.job import MissingColumns
from pipeline.rows import FOR_THE_JOB, READ, row_error

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


def adapt(name: str, benchmark: Benchmark, renames: Mapping[str, str], rows: pa.Table) -> pa.Table:
    """Return the rows of a data set with nothing beside what every row has but their questions.

    Args:
        name: What the benchmark is called in this run.
        benchmark: Its adapter.
        renames: The data set's column: what this copy calls it.
        rows: As the reader gives them, other columns in the types and under the names that the copy has.

    Raises:
        MissingColumns: The copy lacks columns that the adapter needs.
    """
    names = {column: renames.get(column, column) for column in (*benchmark.needed, *benchmark.used)}
    faults = missing(name, benchmark, names, rows.column_names)
    if faults:
        raise MissingColumns(faults)
    kept = rows.select(list(READ))
    places = {column: _column(found, rows.column_names) for column, found in names.items()}
    wanted = {column: place for column, place in places.items() if place is not None}
    values = {column: rows.column(place).to_pylist() for column, place in wanted.items()}

    def row(place: int) -> Row:
        given = {column: found[place] for column, found in values.items()}
        return given if benchmark.key_column is None else {**given, benchmark.key_column: keys[place]}

    keys = rows.column("key").to_pylist()
    return with_items(name, kept, (row(place) for place in range(rows.num_rows)), benchmark.item)


def with_items(name: str, rows: pa.Table, given: Iterable[Row], item: Callable[[Row], Item]) -> pa.Table:
    """Put each row's question beside it; a row that is refused has an error, if it has none yet, and no question."""
    errors = rows.column("error").to_pylist()
    items: list[dict[str, Any]] = []
    for place, one in enumerate(given):
        try:
            items.append(as_column(name, item(one), rows.column("images")[place]))
        except BadRow as refused:
            items.append({"benchmark": name})
            errors[place] = errors[place] or row_error(STAGE, refused)
    rows = rows.append_column(COLUMN, pa.array(items, ITEM))
    return rows.set_column(rows.column_names.index("error"), pa.field("error", ERROR), pa.array(errors, ERROR))


def missing(name: str, benchmark: Benchmark, names: Mapping[str, str], found: Sequence[str]) -> list[str]:
    """Say which columns a copy lacks that the adapter cannot do without."""
    lacking = [names[column] for column in benchmark.needed if _column(names[column], found) is None]
    there = ", ".join(column for column in found if column not in (*READ, "shard")) or "no others"
    return [
        f"job.benchmarks.{name}: {benchmark.key} needs a column `{column}`, but the input has {there}; "
        f"job.benchmarks.{name}.columns can say what it is called there"
        for column in lacking
    ]


def as_column(name: str, item: Item, images: pa.Scalar) -> dict[str, Any]:
    """Return an item as a value of the column COLUMN, with a hash of its content and one of its images."""
    try:
        facts = json.dumps(item.facts, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadRow(f"found {dict(item.facts)!r} for facts, expected values that JSON has: {error}") from error
    # A video's frames and subtitles lie beside the row, and are not read where stored predictions are scored.
    context = "" if "<image 1>" in item.context else item.context
    content = [item.question, context, item.answers, item.choices, facts]
    return {
        "benchmark": name,
        "question": item.question,
        "context": item.context,
        "answers": None if item.answers is None else list(item.answers),
        "choices": list(item.choices),
        "groups": [{"name": group, "value": value} for group, value in item.groups],
        "cluster": item.cluster,
        "facts": facts,
        "row_hash": _digest([json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")]),
        "image_hash": _digest(image.as_buffer() for image in images.values) if _some(images) else None,
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


def _column(name: str, found: Sequence[str]) -> str | None:
    """Return where the reader has put a column of the input; columns that are called as ours are, it renames."""
    moved = f"input_{name}"
    if (name in TAKEN or name in OUR_COLUMNS.names) and moved in found:
        return moved
    if name in READ:
        return None
    return name if name in found else None


def _some(images: pa.Scalar) -> bool:
    return bool(images.is_valid and len(images.values))


def _digest(pieces: Iterable[Any]) -> str:
    """Hash several pieces so that what stands in one of them cannot be mistaken for what stands in the next."""
    whole = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        whole.update(hashlib.blake2b(piece, digest_size=16).digest())
    return whole.hexdigest()
