"""What is handed in for each row of an output: its id and its answer, as the benchmark's server wants them."""

import json
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from jobs.evaluation.submission_formats import Entry, Format, Id, SubmissionError, as_id

# The columns of an output that are needed.
COLUMNS = (
    "key", "benchmark", "model", "question", "context", "choices", "answers", "groups", "facts", "preset", "rule",
    "response_clean", "parsed", "parse_status", "error",
)  # fmt: skip
LETTERS = "ABCD"


def entry_of(row: Mapping[str, Any], dataset: str, file_format: Format) -> Entry:
    """Return what is handed in for one row; an empty answer where it has none.

    Raises:
        SubmissionError: The row has no id that the server knows.
    """
    facts = json.loads(row["facts"] or "{}")
    answer = file_format.normalise(row["response_clean"] or "")
    if dataset.startswith("mmmu") and row["choices"]:
        # A letter or nothing: where none could be read, official code would hand in a random one.
        answer = row["parsed"] or ""
    others: Mapping[str, Any] = {}
    if file_format.shape == "problems":
        others = _mathvista_problem(row, facts)
    elif file_format.shape == "workbook":
        others = _mmbench_line(row, facts)
    return Entry(_id(row, facts, file_format), answer, others)


def _id(row: Mapping[str, Any], facts: Mapping[str, Any], file_format: Format) -> Id:
    # A row that could not even be read has no facts; its key is the data set's id where the data set has ids.
    value = facts.get(file_format.id_name, row["key"])
    try:
        return as_id(value, file_format)
    except ValueError as error:
        raise SubmissionError(
            f"row {row['key']}: found {file_format.id_name} {value!r}, expected a whole number"
        ) from error


def _mathvista_problem(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for group in row["groups"] or ():
        if group["name"] == "skills":
            metadata.setdefault("skills", []).append(group["value"])
        elif group["name"] not in facts:
            metadata[group["name"]] = group["value"]
    # A hidden answer is left out: the official code takes it from the file if it is there.
    gold = {"answer": row["answers"][0]} if row["answers"] else {}
    return {
        **facts,
        **gold,
        "question": row["question"],
        "choices": row["choices"] or None,
        "metadata": metadata,
        # What could not be read is left to whoever has a judge.
        "extraction": row["parsed"] or "",
    }


def _mmbench_line(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    options = dict.fromkeys(LETTERS) | dict(zip(ascii_uppercase, row["choices"] or [], strict=False))
    others = {name: value for name, value in facts.items() if name != "index"}
    return {"question": row["question"], "hint": row["context"] or None, **options, **others}
