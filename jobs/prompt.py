"""The text that a job asks: columns filled in, put into a chat message after the row's images.

It knows rows and messages; which model reads them, and how its chat is written, is not known here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from models.types import BadRequest, Request, Sampling

# How a question about a picture is answered where the run's settings do not say: the likeliest token, every time.
GREEDY = Sampling()

FIELD = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"\w[\w -]*")


def _check_prompt(text: str) -> str:
    if not text.strip():
        raise ValueError("the prompt is empty")
    for name in columns_of(text):
        if not _NAME.fullmatch(name):
            raise ValueError(f"found {{{name}}} in {text!r}, expected a plain column name in the braces")
    return text


def columns_of(prompt: str) -> list[str]:
    """Return the columns that a prompt names as `{column}`, each once."""
    return list(dict.fromkeys(FIELD.findall(prompt)))


# Nothing but whole column names is ever looked up: no attributes, no indices, no format specifications.
Prompt = Annotated[str, AfterValidator(_check_prompt)]


def fill(prompt: str, row: Mapping[str, Any]) -> str:
    """Put a row's columns in the place of their names.

    Raises:
        BadRequest: A column that the prompt names is empty in this row, or holds no text.
    """
    return FIELD.sub(lambda match: _text(row, match.group(1)), prompt)


def request_for(prompt: str, row: Mapping[str, Any], sampling: Sampling) -> Request:
    """Return the request that asks a prompt of one row, its images first.

    Raises:
        BadRequest: A column that the prompt names is empty in this row, or holds no text.
    """
    images: Sequence[bytes] = row["images"]
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": fill(prompt, row)}]
    messages = [{"role": "user", "content": content}]
    return Request(key=row["key"], messages=messages, images=tuple(images), sampling=sampling)


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, str | int | float):
        return str(value)
    found = "nothing" if value is None else type(value).__name__
    raise BadRequest(f"found {found} in column `{column}`, expected text for the prompt")
