"""The ids that a submission must have: from somebody's list, in any of the forms in which data sets publish them.

It knows lists and formats, not the answers.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.evaluation.formats import Format, Id, SubmissionError, as_id
from jobs.evaluation.rows import named

# Under what the question files of VQAv2 and TextVQA, DocVQA's and COCO's keep their rows.
LISTS = ("questions", "data", "images")


def read_ids(data: bytes, wanted: Format) -> list[Id]:
    """Read a list of ids: one a line, a JSON list of them, a JSON object with ids as names, or a question file.

    Raises:
        SubmissionError: It is none of these, or names an id twice.
    """
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(text) if text.lstrip()[:1] in ("[", "{") else text.split()
    except ValueError as error:
        raise SubmissionError(f"found no list of ids, expected JSON, or an id a line: {error}") from error
    given = _listed(content, wanted)
    try:
        ids = [as_id(one, wanted) for one in given]
    except ValueError as error:
        raise SubmissionError(f"found {error} among the ids, expected whole numbers") from error
    if not ids:
        raise SubmissionError("found no ids in the list of ids, expected at least one")
    if twice := repeated(ids):
        raise SubmissionError(f"found {named(twice)} more than once in the list of ids, expected each once")
    return ids


def compare_ids(found: Sequence[Id], expected: Sequence[Id]) -> list[str]:
    """Say which ids are there twice, which are missing and which are too many."""
    there, wanted = set(found), set(expected)
    missing = [one for one in expected if one not in there]
    unknown = [one for one in dict.fromkeys(found) if one not in wanted]
    kinds = {
        "are there more than once, expected each once": repeated(found),
        f"are missing, expected all {len(wanted):,}": missing,
        "are unknown, expected none but the data set's": unknown,
    }
    return [f"{len(ids):,} ids {what} ({named(ids)})" for what, ids in kinds.items() if ids]


def repeated(ids: Sequence[Id]) -> list[Id]:
    """Return the ids that stand there more than once."""
    return [one for one, count in Counter(ids).items() if count > 1]


def _listed(content: Any, wanted: Format) -> Sequence[Any]:
    if isinstance(content, Mapping):
        name = next((name for name in LISTS if isinstance(content.get(name), list)), None)
        if name is None:
            return list(content)
        content = content[name]
    return [_id_in(one, wanted) for one in content]


def _id_in(one: Any, wanted: Format) -> Any:
    if not isinstance(one, Mapping):
        return one
    for name in (wanted.id_name, "id"):
        if name in one:
            return one[name]
    raise SubmissionError(f"found {sorted(one)} in the list of ids, expected {wanted.id_name} or id")
