"""Submission files in JSON: entries written, and files read back with everything that is wrong with them.

It knows formats and bytes; which ids should be there is not known here.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from jobs.evaluation.formats import Entry, Format, SubmissionError

FAULTS_SHOWN = 10


def encode(entries: Sequence[Entry], wanted: Format) -> bytes:
    """Return the file of some entries, in their order."""
    content: Any
    if wanted.shape == "list":
        content = [{wanted.id_name: entry.id, wanted.answer_name: entry.answer} for entry in entries]
    elif wanted.shape == "mapping":
        content = {entry.id: entry.answer for entry in entries}
    else:
        content = {entry.id: {**entry.beside, wanted.answer_name: entry.answer} for entry in entries}
    return json.dumps(content).encode()


def decode(data: bytes, wanted: Format) -> list[Entry]:
    """Read a file.

    Raises:
        SubmissionError: It is none of this format; every fault is listed.
    """
    content = _parsed(data)
    entries, faults = _listed(content, wanted) if wanted.shape == "list" else _mapped(content, wanted)
    if faults:
        raise SubmissionError(said(faults))
    return entries


def said(faults: Sequence[str]) -> str:
    """Say what is wrong with a file: the first few faults, a line each, and how many more there are."""
    more = [f"and {len(faults) - FAULTS_SHOWN:,} more"] if len(faults) > FAULTS_SHOWN else []
    return "\n  ".join([f"{len(faults):,} fault{'s' if len(faults) > 1 else ''}", *faults[:FAULTS_SHOWN], *more])


class _Twice(ValueError):
    """A JSON object has a name twice, of which readers would keep one."""


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data, object_pairs_hook=once)
    except _Twice as error:
        raise SubmissionError(str(error)) from error
    except ValueError as error:  # what is no UTF-8, too
        lines = data.strip().splitlines()
        hint = " (JSON lines are refused)" if len(lines) > 1 and lines[0].lstrip().startswith(b"{") else ""
        raise SubmissionError(f"found no JSON, expected one value in the whole file{hint}: {error}") from error


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, in which no name may stand twice.

    Raises:
        ValueError: One does.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"found {twice!r} twice in one object, expected each id once")
    return found


def _listed(content: Any, wanted: Format) -> tuple[list[Entry], list[str]]:
    if not isinstance(content, list):
        return [], [f"found a JSON {type(content).__name__}, expected a list of objects"]
    entries, faults = [], []
    for place, one in enumerate(content):
        where = f"entry {place}"
        if not isinstance(one, dict) or set(one) != {wanted.id_name, wanted.answer_name}:
            found = sorted(one) if isinstance(one, dict) else one
            faults.append(f"{where}: found {found!r}, expected {wanted.id_name} and {wanted.answer_name}")
            continue
        entries.append(Entry(one[wanted.id_name], one[wanted.answer_name]))
        faults += check_types(entries[-1], where, wanted)
    return entries, faults


def _mapped(content: Any, wanted: Format) -> tuple[list[Entry], list[str]]:
    if not isinstance(content, dict):
        return [], [f"found a JSON {type(content).__name__}, expected an object with ids as names"]
    entries: list[Entry] = []
    faults: list[str] = []
    for name, value in content.items():
        entry, missing = (Entry(name, value), []) if wanted.shape == "mapping" else _problem(name, value, wanted)
        entries.append(entry)
        faults += missing or check_types(entry, f"{name}", wanted)
    return entries, faults


def _problem(name: str, value: Any, wanted: Format) -> tuple[Entry, list[str]]:
    given = value if isinstance(value, dict) else {}
    lacking = [column for column in (*wanted.beside, wanted.answer_name) if column not in given]
    faults = [f"{name}: found no {', '.join(lacking)}, expected the problem with its answer"] if lacking else []
    return Entry(name, given.get(wanted.answer_name, ""), given), faults


def check_types(entry: Entry, where: str, wanted: Format) -> Iterable[str]:
    """Say what is wrong with the types of one entry."""
    if type(entry.id) is not wanted.id_type:
        kind = "a whole number" if wanted.id_type is int else "a text"
        yield f"{where}: found {wanted.id_name} {entry.id!r}, expected {kind}"
    if not isinstance(entry.answer, str):
        yield f"{where}: found {wanted.answer_name} {entry.answer!r}, expected a text"
