"""Submission files: entries written, and files and lists of ids read back with everything that is wrong with them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from jobs.evaluation import workbook
from jobs.evaluation.outputs import first_few, repeated
from jobs.evaluation.submission_formats import Entry, Format, Id, SubmissionError, as_id

FAULTS_SHOWN = 10
# The names under which question files of VQAv2, TextVQA, DocVQA and COCO have their rows.
ROW_LISTS = ("questions", "data", "images")


def encode(entries: Sequence[Entry], file_format: Format) -> bytes:
    """Return the file of some entries, in their order.

    Raises:
        SubmissionError: A text does not fit into a cell of an Excel file, or openpyxl is missing.
    """
    id_name, answer_name = file_format.id_name, file_format.answer_name
    content: Any
    match file_format.shape:
        case "mapping":
            content = {entry.id: entry.answer for entry in entries}
        case "problems":
            content = {entry.id: {**entry.others, answer_name: entry.answer} for entry in entries}
        case "list" | "workbook":
            content = [{id_name: entry.id, **entry.others, answer_name: entry.answer} for entry in entries]
        case unknown:
            assert_never(unknown)
    if file_format.shape == "workbook":
        others = dict.fromkeys(name for entry in entries for name in entry.others)
        return workbook.encode([id_name, *others, answer_name], content)
    return json.dumps(content).encode()


def decode(data: bytes, file_format: Format) -> list[Entry]:
    """Read the ids and answers of a file.

    Raises:
        SubmissionError: It is not of this format; every fault is listed.
    """
    entries: list[Entry] = []
    faults: list[str] = []
    match file_format.shape:
        case "workbook":
            rows = _workbook_rows(data, file_format)
        case "list" | "mapping" | "problems":
            rows = _json_rows(data, file_format)
        case unknown:
            assert_never(unknown)
    for where, row in rows:
        wrong = list(_faults(row, file_format))
        faults += [f"{where}: {fault}" for fault in wrong]
        if not wrong:
            entries.append(Entry(row[file_format.id_name], row[file_format.answer_name]))
    if faults:
        raise SubmissionError(list_faults(faults))
    return entries


def list_faults(faults: Sequence[str]) -> str:
    """List what is wrong with a file: the first few faults, a line each, and how many more there are."""
    more = [f"and {len(faults) - FAULTS_SHOWN:,} more"] if len(faults) > FAULTS_SHOWN else []
    return "\n  ".join([f"{len(faults):,} fault{'s' if len(faults) > 1 else ''}", *faults[:FAULTS_SHOWN], *more])


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, in which no name may occur twice: readers would keep only one.

    Raises:
        SubmissionError: A name occurs twice.
    """
    if twice := repeated(name for name, _ in pairs):
        raise SubmissionError(f"found {twice[0]!r} twice in one object, expected each id once")
    return dict(pairs)


def _workbook_rows(data: bytes, file_format: Format) -> Iterator[tuple[str, Any]]:
    header, lines = workbook.decode(data)
    columns = (file_format.id_name, *file_format.other_names, file_format.answer_name)
    if missing := [name for name in columns if name not in header]:
        raise SubmissionError(f"found columns {', '.join(header) or 'none'}, expected also {', '.join(missing)}")
    for number, line in enumerate(lines, start=2):
        # An empty cell is an empty answer; Excel makes numbers of answers that look like one.
        answer = line[file_format.answer_name]
        yield f"line {number}", {**line, file_format.answer_name: "" if answer is None else str(answer)}


def _json_rows(data: bytes, file_format: Format) -> Iterator[tuple[str, Any]]:
    content = _parse(data)
    if file_format.shape == "list" and isinstance(content, list):
        yield from ((f"entry {number}", entry) for number, entry in enumerate(content))
    elif file_format.shape != "list" and isinstance(content, dict):
        for name, value in content.items():
            if file_format.shape == "mapping":
                value = {file_format.answer_name: value}
            yield name, {**(value if isinstance(value, dict) else {}), file_format.id_name: name}
    else:
        expected = "a list of objects" if file_format.shape == "list" else "an object with ids as names"
        raise SubmissionError(f"found a JSON {type(content).__name__}, expected {expected}")


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data, object_pairs_hook=unique_names)
    except SubmissionError:
        raise
    except ValueError as error:  # bytes that are not UTF-8, too
        lines = data.strip().splitlines()
        hint = " (JSON lines are refused)" if len(lines) > 1 and lines[0].lstrip().startswith(b"{") else ""
        raise SubmissionError(f"found no JSON, expected one value in the whole file{hint}: {error}") from error


def _faults(row: Any, file_format: Format) -> Iterator[str]:
    """Give what is wrong with one entry."""
    id_name, answer_name = file_format.id_name, file_format.answer_name
    if file_format.shape == "list" and (not isinstance(row, dict) or set(row) != {id_name, answer_name}):
        found = sorted(row) if isinstance(row, dict) else row
        yield f"found {found!r}, expected {id_name} and {answer_name}"
    elif missing := [name for name in (*file_format.other_names, answer_name) if name not in row]:
        yield f"found no {', '.join(missing)}, expected the problem with its answer"
    else:
        if type(row[id_name]) is not file_format.id_type:
            kind = "a whole number" if file_format.id_type is int else "a text"
            yield f"found {id_name} {row[id_name]!r}, expected {kind}"
        if not isinstance(row[answer_name], str):
            yield f"found {answer_name} {row[answer_name]!r}, expected a text"


def read_ids(data: bytes, file_format: Format) -> list[Id]:
    """Read a list of ids: one a line, a JSON list of them, a JSON object with ids as names, or a question file.

    Raises:
        SubmissionError: It is none of these, or names an id twice.
    """
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(text) if text.lstrip()[:1] in ("[", "{") else text.split()
    except ValueError as error:
        raise SubmissionError(f"found no list of ids, expected JSON, or one id on each line: {error}") from error
    values = _listed_ids(content, file_format)
    try:
        ids = [as_id(value, file_format) for value in values]
    except ValueError as error:
        raise SubmissionError(f"found {error} among the ids, expected whole numbers") from error
    if not ids:
        raise SubmissionError("found no ids in the list of ids, expected at least one")
    if twice := repeated(ids):
        raise SubmissionError(f"found {first_few(twice)} more than once in the list of ids, expected each once")
    return ids


def id_faults(ids: Sequence[Id], expected: Sequence[Id]) -> list[str]:
    """Say which ids occur twice, which are missing and which are unknown."""
    found, known = set(ids), set(expected)
    kinds = {
        "occur more than once, expected each once": repeated(ids),
        f"are missing, expected all {len(known):,}": [wanted for wanted in expected if wanted not in found],
        "are unknown, expected only the data set's": [given for given in dict.fromkeys(ids) if given not in known],
    }
    return [f"{len(wrong):,} ids {what} ({first_few(wrong)})" for what, wrong in kinds.items() if wrong]


def _listed_ids(content: Any, file_format: Format) -> Sequence[Any]:
    if isinstance(content, Mapping):
        content = next((content[name] for name in ROW_LISTS if isinstance(content.get(name), list)), list(content))
    return [_id_of(entry, file_format) for entry in content]


def _id_of(entry: Any, file_format: Format) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    for name in (file_format.id_name, "id"):
        if name in entry:
            return entry[name]
    raise SubmissionError(f"found {sorted(entry)} in the list of ids, expected {file_format.id_name} or id")
