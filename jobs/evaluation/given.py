"""What an output has to hand in: each row's id and answer in a server's words, and whether anything is missing.

It knows rows of an output; how a file is written is not known here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from jobs.evaluation.formats import Entry, Format, Id, SubmissionError, as_id
from jobs.evaluation.rows import named
from pipeline import Store, Unit, ledger, read_plan

COLUMNS = (
    "key",
    "benchmark",
    "model",
    "question",
    "context",
    "choices",
    "answers",
    "groups",
    "facts",
    "preset",
    "rule",
    "response_clean",
    "parsed",
    "parse_status",
    "error",
)
LETTERS = "ABCD"


def entry_of(row: Mapping[str, Any], dataset: str, wanted: Format) -> Entry:
    """Return what is handed in for one row; nothing ("") where it has no answer.

    Raises:
        SubmissionError: The row has no id that the server knows.
    """
    facts = json.loads(row["facts"] or "{}")
    answer = wanted.normalise(row["response_clean"] or "")
    if dataset.startswith("mmmu") and row["choices"]:
        # A letter or nothing: where none could be read, official code would hand in a random one.
        answer = row["parsed"] or ""
    beside: Mapping[str, Any] = {}
    if wanted.shape == "problems":
        beside = _problem(row, facts)
    elif wanted.shape == "workbook":
        beside = _line(row, facts)
    return Entry(_id(row, facts, wanted), answer, beside)


def refuse_incomplete(
    output: Store,
    known: Mapping[str, Any],
    benchmark: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    has_ids: bool,
    allow_missing: bool,
) -> None:
    """Refuse to hand in less than the whole benchmark, unless that is asked for.

    Args:
        output: Where the rows stand.
        known: What the run has frozen there.
        benchmark: Whose rows.
        rows: Those.
        has_ids: Whether a list says which ids there must be; without one, the run's plan must have been the whole set.
        allow_missing: Whether rows may be missing.

    Raises:
        SubmissionError: The run has not come to all its rows yet, was told to leave some out, or rows have failed.
    """
    planned = sum(unit.num_rows for unit in _planned(output, benchmark))
    if len(rows) < planned and not (allow_missing and has_ids):
        raise SubmissionError(
            f"{benchmark}: found {len(rows):,} of {planned:,} rows in {output.uri}, expected all: `triptych run` goes "
            "on, or `--ids` says which ids `--allow-missing` adds without an answer"
        )
    if allow_missing:
        return
    limit = _limit(known, benchmark)
    if limit is not None and not has_ids:
        raise SubmissionError(
            f"{benchmark}: the run was told to read {limit:,} rows at most (`limit`), expected the whole set; "
            "`--ids` can say what the server expects"
        )
    failed = [str(row["key"]) for row in rows if row["response_clean"] is None]
    if failed:
        raise SubmissionError(
            f"{benchmark}: found {len(failed):,} rows without an answer ({named(failed)}), expected none; "
            "`triptych retry` runs them again, `--allow-missing` hands in empty answers"
        )


def _planned(output: Store, benchmark: str) -> Iterator[Unit]:
    """Give the units that a benchmark's rows come from; a run without benchmarks has sources without a name."""
    if not ledger.read_output(output).is_planned:  # parts that were put together by other means
        return iter(())
    return (unit for unit in read_plan(output) if unit.source in (benchmark, ""))


def _limit(known: Mapping[str, Any], benchmark: str) -> int | None:
    settings = known.get("settings", {})
    entry = (settings.get("job", {}).get("benchmarks") or {}).get(benchmark) or {}
    limit = entry.get("limit") or settings.get("read", {}).get("limit")
    return None if limit is None else int(limit)


def _id(row: Mapping[str, Any], facts: Mapping[str, Any], wanted: Format) -> Id:
    # A row that could not even be read has no facts; its key is the data set's id where the data set has ids.
    given = facts.get(wanted.id_name, row["key"])
    try:
        return as_id(given, wanted)
    except ValueError as error:
        raise SubmissionError(f"row {row['key']}: found {wanted.id_name} {given!r}, expected a whole number") from error


def _problem(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for cell in row["groups"] or ():
        if cell["name"] == "skills":
            metadata.setdefault("skills", []).append(cell["value"])
        elif cell["name"] not in facts:
            metadata[cell["name"]] = cell["value"]
    # Where it is hidden it is left out: the official code takes it from the file if it is there.
    known = {"answer": row["answers"][0]} if row["answers"] else {}
    return {
        **facts,
        **known,
        "question": row["question"],
        "choices": row["choices"] or None,
        "metadata": metadata,
        # What could not be read without a judge is left to whoever has one.
        "extraction": row["parsed"] or "",
    }


def _line(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    choices = row["choices"] or []
    options = dict.fromkeys(LETTERS) | dict(zip(ascii_uppercase, choices, strict=False))
    others = {name: value for name, value in facts.items() if name != "index"}
    return {"question": row["question"], "hint": row["context"] or None, **options, **others}
