"""Answers that another tool has stored: JSON lines, JSON, CSV, TSV, Excel or Parquet with an id and a response a row.

It knows files and columns, neither data sets nor rules.
"""

import csv
import io
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.evaluation import workbook
from jobs.evaluation.entries import once
from jobs.evaluation.rows import named
from jobs.report.results import ReportError
from pipeline import StorageSettings, Store

Row = Mapping[str, Any]

# Columns of places in the data, the first one being 0; lmms-eval's is `doc_id`.
PLACES = ("row", "doc_id")
# What tools call these, where nobody says it; the first that is there.
IDS = ("key", "id", "question_id", "questionId", "index", "pid", "image_id", *PLACES)
RESPONSES = ("response", "prediction", "answer", "caption")
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
# What lmms-eval logs; the raw responses are left out where they are the filtered ones.
LOGGED, RAW = "filtered_resps", "resps"
# Cells of a CSV file: of answers, reasoning included.
CELL_CHARACTERS = 16 * 2**20


@dataclass(frozen=True)
class Prediction:
    """One stored answer."""

    text: str
    is_truncated: bool = False


@dataclass(frozen=True)
class Predictions:
    """Stored answers by id, as text.

    Attributes:
        id_name: The column of the ids.
        answers: What was answered; None where the file has a row without an answer.
    """

    id_name: str
    answers: Mapping[str, Prediction | None]


def read_predictions(
    uri: str, storage: StorageSettings, *, id_name: str | None = None, response_name: str | None = None
) -> Predictions:
    """Read stored answers. A column `finish_reason` says with `length` that an answer was cut off.

    Args:
        uri: A file, or a folder of Parquet files.
        storage: How to reach it.
        id_name: The column of the ids; None means the first of IDS that is there.
        response_name: The column of the answers; None means the first of RESPONSES that is there, see `_responses`.

    Raises:
        ReportError: It is no such file, lacks a column, or an id stands there twice.
        StorageError: It cannot be read.
    """
    rows = [_from_log(row) if LOGGED in row else row for row in _rows(uri, storage)]
    if not rows:
        raise ReportError(f"found no rows in {uri}, expected answers")
    there = list(dict.fromkeys(name for row in rows[:1] for name in row))
    id_name = _column(id_name, IDS, there, "id", uri)
    response_name = _column(response_name, _responses(there), there, "response", uri)
    answers: dict[str, Prediction | None] = {}
    twice: list[str] = []
    for place, row in enumerate(rows):
        name = _id(row.get(id_name), f"{uri}, row {place}, column `{id_name}`")
        if name in answers:
            twice.append(name)
        answers[name] = _answer(row, response_name, f"{uri}, row {place}")
    if twice:
        raise ReportError(f"found {len(twice):,} ids more than once in {uri} ({named(twice)}), expected each once")
    return Predictions(id_name, answers)


def _column(asked: str | None, known: Sequence[str], there: Sequence[str], what: str, uri: str) -> str:
    found = next((name for name in ([asked] if asked else known) if name in there), None)
    if found is None:
        expected = f"`{asked}`" if asked else f"one of {', '.join(known)}"
        raise ReportError(
            f"found columns {', '.join(there)} in {uri}, expected {expected} for the {what}; `--{what}` can name it"
        )
    return found


def _responses(there: Sequence[str]) -> Sequence[str]:
    """Return what the answers may be called: `answer` is elsewhere the right one, and only beside ids what was said."""
    has_more = any(name not in (*IDS, *RESPONSES, "finish_reason") for name in there)
    return [name for name in RESPONSES if name != "answer" or not has_more]


def _id(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ReportError(f"{where}: found {value!r}, expected an id: text or a whole number")
    return str(value)


def _answer(row: Row, response_name: str, where: str) -> Prediction | None:
    text = row.get(response_name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise ReportError(f"{where}, column `{response_name}`: found {text!r}, expected the text of an answer")
    # JSON may hold halves of characters, which no file of results can.
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Prediction(whole, row.get("finish_reason") == "length")


def _rows(uri: str, storage: StorageSettings) -> Sequence[Row]:
    folder, name = posixpath.split(uri.rstrip("/"))
    kind = posixpath.splitext(name)[1].lower()
    if kind not in FORMATS:
        return _parquet_rows(Store(uri, storage))
    data = Store(folder or ".", storage).read(name)
    if kind == ".parquet":
        return _table_rows(data)
    if kind == ".xlsx":
        return [_words(line) for line in workbook.read_lines(data)[1]]
    try:
        text = data.decode("utf-8-sig")
        if kind in (".csv", ".tsv"):
            return _separated_rows(text, "\t" if kind == ".tsv" else ",")
        return _objects(json.loads(text, object_pairs_hook=once) if kind == ".json" else _lines(text))
    except (ValueError, csv.Error) as error:
        raise ReportError(f"cannot read {uri} as {kind[1:].upper()}: {error}") from error


def _words(line: Row) -> Row:
    """Undo what Excel makes of texts: nothing where they are empty, numbers where they look like one."""
    return {name: "" if value is None else str(value) for name, value in line.items()}


def _from_log(row: Row) -> Row:
    """Take the raw response of a line that lmms-eval (75571cf) has logged; a list of one stands for its only member."""
    response = row.get(RAW, row[LOGGED])
    while isinstance(response, list) and len(response) == 1:
        response = response[0]
    return {**row, "response": response}


def _lines(text: str) -> list[Any]:
    # Only at line feeds: JSON may hold other characters that Python takes for line ends.
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _objects(found: Any) -> Sequence[Row]:
    """Take a list of objects, or an object with ids as names, as some servers have it."""
    if isinstance(found, Mapping):
        by_id = {name: one if isinstance(one, Mapping) else {"response": one} for name, one in found.items()}
        found = [{"id": name, **one} for name, one in by_id.items()]
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise ValueError("found other values, expected objects with an id and a response")
    return found


def _separated_rows(text: str, delimiter: str) -> Sequence[Row]:
    before = csv.field_size_limit(CELL_CHARACTERS)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    finally:
        csv.field_size_limit(before)
    # An answer with a delimiter in it and no quotes around would be cut short.
    if longer := [place for place, row in enumerate(rows) if None in row]:
        raise ValueError(f"found more cells than columns in row {longer[0]}, expected quotes around a {delimiter!r}")
    return rows


def _parquet_rows(store: Store) -> Sequence[Row]:
    paths = [entry.path for entry in store.list() if entry.path.endswith(".parquet") and "/" not in entry.path]
    paths = [path for path in paths if not path.startswith(("_", "."))]
    if not paths:
        raise ReportError(f"found no answers at {store.name('')}, expected {', '.join(FORMATS)} or a folder of Parquet")
    return [row for path in paths for row in _table_rows(store.read(path))]


def _table_rows(data: bytes) -> Sequence[Row]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise ReportError(f"cannot read Parquet: {error}") from error
    # Images and lists that lie beside are nothing to do with it.
    plain = [field.name for field in file.schema_arrow if _is_plain(field.type)]
    rows: list[Row] = file.read(columns=plain).to_pylist()
    return rows


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))
