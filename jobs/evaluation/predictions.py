"""Answers that another tool has stored: JSON lines, JSON, CSV, TSV, Excel or Parquet with ids and responses."""

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.evaluation import workbook
from jobs.evaluation.outputs import first_few, read_file, repeated
from jobs.evaluation.submission_files import unique_names
from jobs.report.results import ReportError
from pipeline import StorageSettings, Store

Row = Mapping[str, Any]

# Columns that hold the row's index in the data, from 0; lmms-eval's is `doc_id`.
INDEX_NAMES = ("row", "doc_id")
# The names that tools give these columns; without `--id` or `--response`, the first that is there.
ID_NAMES = ("key", "id", "question_id", "questionId", "index", "pid", "image_id", *INDEX_NAMES)
RESPONSE_NAMES = ("response", "prediction", "answer", "caption")
EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
# The responses that lmms-eval and lm-evaluation-harness log; lmms-eval leaves out the raw ones where they are equal to
# the filtered ones.
FILTERED, RAW = "filtered_resps", "resps"
# What OpenCompass stores beside a prediction; its objects are named by their place in the data.
OPENCOMPASS_PROMPT = "origin_prompt"
# An id of a column that pandas made floats of, as it writes them to CSV.
FLOAT_ID = re.compile(r"-?\d+\.0")
# From here on not each whole number has a float of its own.
FLOAT_WHOLE = 2.0**53
# The Arrow types of ids and answers; images and lists beside them are not read.
PLAIN_TYPES = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_dictionary, pa.types.is_primitive
)  # fmt: skip
# The longest cell of a CSV file: an answer, reasoning included.
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
        answers: The answers; None where the file has a row without an answer.
    """

    id_name: str
    answers: Mapping[str, Prediction | None]


def read_predictions(
    uri: str, storage: StorageSettings, *, id_name: str | None = None, response_name: str | None = None
) -> Predictions:
    """Read stored answers. A `finish_reason` of `length` marks an answer that was cut off.

    Args:
        uri: A file, or a folder of Parquet files.
        storage: How to reach it.
        id_name: The column of the ids; None for the first of ID_NAMES that is there.
        response_name: The column of the answers; None for the first of RESPONSE_NAMES that is there, see `_responses`.

    Raises:
        ReportError: It is no such file, lacks a column, or an id occurs twice.
        StorageError: It cannot be read.
    """
    rows = [_from_log(row) if FILTERED in row else row for row in _rows(uri, storage)]
    if not rows:
        raise ReportError(f"found no rows in {uri}, expected answers")
    columns = list(rows[0])
    id_name = _column(id_name, ID_NAMES, columns, "id", uri)
    response_name = _column(response_name, _responses(columns), columns, "response", uri)
    ids = [_id(row.get(id_name), f"{uri}, row {number}, column `{id_name}`") for number, row in enumerate(rows)]
    if all(FLOAT_ID.fullmatch(name) for name in ids):
        ids = [name.removesuffix(".0") for name in ids]
    answers = [_answer(row, response_name, f"{uri}, row {number}") for number, row in enumerate(rows)]
    stored = _without_filters(zip(ids, answers, rows, strict=True))
    if twice := repeated([name for name, _ in stored]):
        raise ReportError(f"found {len(twice):,} ids more than once in {uri} ({first_few(twice)}), expected each once")
    return Predictions(id_name, dict(stored))


def _column(name: str | None, known: Sequence[str], columns: Sequence[str], what: str, uri: str) -> str:
    found = next((column for column in ([name] if name else known) if column in columns), None)
    if found is None:
        expected = f"`{name}`" if name else f"one of {', '.join(known)}"
        raise ReportError(
            f"found columns {', '.join(columns)} in {uri}, expected {expected} for the {what}; `--{what}` can name it"
        )
    return found


def _responses(columns: Sequence[str]) -> Sequence[str]:
    """Return the names that a response may have; `answer` is the gold answer where there are more columns than ids."""
    has_more = any(name not in (*ID_NAMES, *RESPONSE_NAMES, "finish_reason") for name in columns)
    return [name for name in RESPONSE_NAMES if name != "answer" or not has_more]


def _without_filters(
    stored: Iterable[tuple[str, Prediction | None, Row]],
) -> Sequence[tuple[str, Prediction | None]]:
    """Take an answer once where lm-evaluation-harness (0.4.13) has logged it in a line for each of its filters."""
    filter_of: dict[tuple[str, Prediction | None], Any] = {}
    kept = []
    for name, answer, row in stored:
        name_of_filter = row.get("filter") if FILTERED in row else None
        if filter_of.setdefault((name, answer), name_of_filter) == name_of_filter:
            kept.append((name, answer))
    return kept


def _id(value: Any, where: str) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < FLOAT_WHOLE:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ReportError(f"{where}: found {value!r}, expected an id: text or a whole number")
    return str(value)


def _answer(row: Row, response_name: str, where: str) -> Prediction | None:
    text = row.get(response_name)
    if text is None:
        return None
    if isinstance(text, list) and FILTERED in row:
        raise ReportError(
            f"{where}: found {len(text)} logged responses, expected one: several samples of a row, or log-likelihoods "
            "of its options, are no answer"
        )
    if not isinstance(text, str):
        raise ReportError(f"{where}, column `{response_name}`: found {text!r}, expected the text of an answer")
    # JSON may hold halves of characters, which Parquet cannot.
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Prediction(whole, row.get("finish_reason") == "length")


def _rows(uri: str, storage: StorageSettings) -> Sequence[Row]:
    uri = uri.rstrip("/")
    extension = posixpath.splitext(uri)[1].lower()
    if extension not in EXTENSIONS:
        return _folder_rows(Store(uri, storage))
    data = read_file(uri, storage)
    if extension == ".parquet":
        return _parquet_rows(data)
    if extension == ".xlsx":
        # Excel makes nothing of empty texts, and numbers of texts that look like one.
        return [
            {name: "" if value is None else str(value) for name, value in line.items()}
            for line in workbook.decode(data)[1]
        ]
    try:
        text = data.decode("utf-8-sig")
        if extension in (".csv", ".tsv"):
            return _csv_rows(text, "\t" if extension == ".tsv" else ",")
        if extension == ".json":
            return _objects(json.loads(text, object_pairs_hook=unique_names))
        # Only at line feeds: JSON may hold other characters that Python takes for line ends.
        return _objects([json.loads(line) for line in text.split("\n") if line.strip()])
    except (ValueError, csv.Error) as error:
        raise ReportError(f"cannot read {uri} as {extension[1:].upper()}: {error}") from error


def _from_log(row: Row) -> Row:
    """Take the raw response of a line that lmms-eval (75571cf) or lm-evaluation-harness (0.4.13) has logged.

    A list of one is replaced by its member.
    """
    response = row.get(RAW, row[FILTERED])
    while isinstance(response, list) and len(response) == 1:
        response = response[0]
    return {**row, "response": response}


def _objects(content: Any) -> Sequence[Row]:
    """Take a list of objects, or an object with ids as names, as some servers have it.

    OpenCompass names its objects by their place in the data.
    """
    if isinstance(content, Mapping):
        objects = {
            name: value if isinstance(value, Mapping) else {"response": value} for name, value in content.items()
        }
        content = [{"row" if OPENCOMPASS_PROMPT in value else "id": name, **value} for name, value in objects.items()]
    if not isinstance(content, list) or not all(isinstance(entry, Mapping) for entry in content):
        raise ValueError("found other values, expected objects with an id and a response")
    return content


def _csv_rows(text: str, delimiter: str) -> Sequence[Row]:
    before = csv.field_size_limit(CELL_CHARACTERS)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    finally:
        csv.field_size_limit(before)
    # An answer that has a delimiter and no quotes would be cut short.
    if longer := [number for number, row in enumerate(rows) if None in row]:
        raise ValueError(f"found more cells than columns in row {longer[0]}, expected quotes around a {delimiter!r}")
    return [row for row in rows if any(row.values())]


def _folder_rows(store: Store) -> Sequence[Row]:
    paths = [entry.path for entry in store.list() if entry.path.endswith(".parquet") and "/" not in entry.path]
    paths = [path for path in paths if not path.startswith(("_", "."))]
    if not paths:
        expected = f"{', '.join(EXTENSIONS)} or a folder of Parquet"
        raise ReportError(f"found no answers at {store.name('')}, expected {expected}")
    return [row for path in paths for row in _parquet_rows(store.read(path))]


def _parquet_rows(data: bytes) -> Sequence[Row]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise ReportError(f"cannot read Parquet: {error}") from error
    plain = [field.name for field in file.schema_arrow if any(is_kind(field.type) for is_kind in PLAIN_TYPES)]
    rows: list[Row] = file.read(columns=plain).to_pylist()
    return rows
