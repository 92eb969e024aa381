"""The text that a job asks: columns filled in, in a chat message after the row's images, or in its conversation.

It knows rows and messages; which model reads them, and how its chat is written, is not known here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from models.types import BadRequest, Request, Sampling
from pipeline import MESSAGES

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


def request_for(prompt: str, row: Mapping[str, Any], sampling: Sampling, *, shared: bool = False) -> Request:
    """Return the request that asks a prompt of one row, its images first.

    Args:
        prompt: What is asked.
        row: Its columns.
        sampling: How it is answered.
        shared: Whether other rows have the same images, and the same text before the prompt's `{question}`.

    Raises:
        BadRequest: A column that the prompt names is empty in this row, or holds no text.
    """
    images: Sequence[bytes] = row["images"]
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": fill(prompt, row)}]
    messages = [{"role": "user", "content": content}]
    before, asks, _ = prompt.partition("{question}")
    begins = (fill(before, row) if asks else "") if shared else None
    return Request(key=row["key"], messages=messages, images=tuple(images), sampling=sampling, shared=begins)


def chat_request(prompt: str, row: Mapping[str, Any], sampling: Sampling) -> Request:
    """Return the request that asks the last turn of a row's conversation, in the words of a prompt.

    What the prompt has before and behind `{question}` is put around the turn's text; all else stays as it is written.
    Images that no turn has a place for come first.

    Raises:
        BadRequest: The turn says nothing, there are more or fewer images than places for them, or a column that the
            prompt names is empty or holds no text.
    """
    images: Sequence[bytes] = row["images"]
    turns: list[dict[str, Any]] = json.loads(row[MESSAGES])
    num_places = sum(_is_image(part) for turn in turns for part in turn["content"])
    if num_places not in (0, len(images)):
        raise BadRequest(f"the conversation has places for {num_places} images, and the row has {len(images)}")
    if not num_places:
        first = next(turn for turn in turns if turn["role"] == "user")
        first["content"] = [*({"type": "image"} for _ in images), *first["content"]]
    last = turns[-1]
    if not any(_is_image(part) or part["text"].strip() for part in last["content"]):
        raise BadRequest("found nothing in the conversation's last turn, expected a question")
    last["content"] = _worded(prompt, row, last["content"])
    return Request(key=row["key"], messages=turns, images=tuple(images), sampling=sampling)


def earlier_turns(messages: str | None) -> str:
    """Return what stands in a conversation before its last turn, for people; nothing where there is none."""
    turns = json.loads(messages)[:-1] if messages else []
    return "\n".join(f"{turn['role']}: {' '.join(map(_shown, turn['content']))}" for turn in turns)


def _worded(prompt: str, row: Mapping[str, Any], content: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    before, asks, after = prompt.partition("{question}")
    before, after = fill(before, row), fill(after, row)
    if not asks:
        return [*filter(_is_image, content), {"type": "text", "text": before}]
    texts = [place for place, part in enumerate(content) if not _is_image(part)]
    worded = [dict(part) for part in content]
    if not texts:
        return [*worded, {"type": "text", "text": before + after}] if before + after else worded
    worded[texts[0]]["text"] = before + worded[texts[0]]["text"]
    worded[texts[-1]]["text"] += after
    return worded


def _is_image(part: Mapping[str, Any]) -> bool:
    return bool(part["type"] == "image")


def _shown(part: Mapping[str, Any]) -> str:
    return "[image]" if _is_image(part) else str(part["text"]).strip()


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, str | int | float):
        return str(value)
    found = "nothing" if value is None else type(value).__name__
    raise BadRequest(f"found {found} in column `{column}`, expected text for the prompt")
