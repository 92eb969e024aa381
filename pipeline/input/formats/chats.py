"""Understand rows that are conversations: their question, their answer, their images and their key.

Two ways of writing them are known: LLaVA's `conversations` (github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md)
and OpenAI's `messages`, by themselves or as a line of a batch (`custom_id`, `body`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.input.formats.rows import RowError

# Stands in LLaVA's questions where the image belongs.
MARK = "<image>"
TEXT_PARTS, IMAGE_PARTS = ("text", "input_text"), ("image_url", "image", "input_image")
# So much of an image in a message is kept in the column that holds the message.
KEPT_LETTERS = 64


def unfolded(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a conversation says in our words: `question`, `answers`, `image`, `key`; None of a row that is none.

    A row that has a question of its own is none.

    Raises:
        RowError: It cannot be asked as it is.
    """
    if "question" in values:
        return None
    if _are_dicts_with(values.get("conversations"), "from", "value"):
        return _of_llava(values)
    if _are_dicts_with(values.get("messages"), "role", "content"):
        return {"messages": _shortened(values["messages"]), **_of_messages(values, values["messages"])}
    body = values.get("body")
    if isinstance(body, dict) and _are_dicts_with(body.get("messages"), "role", "content"):
        return {"body": _shortened(body), **_of_messages(values, body["messages"])}
    return None


def unfolded_or_none(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a conversation says in our words; None of a row that is none, nothing of one that cannot be asked."""
    try:
        return unfolded(values)
    except RowError:
        return {}


def _of_llava(values: Mapping[str, Any]) -> dict[str, Any]:
    turns = [(turn["from"], turn["value"]) for turn in values["conversations"]]
    if turns[0][0] not in ("human", "user"):
        raise RowError("WrongTurn", f"the conversation begins with {turns[0][0]!r}, expected 'human'")
    asked = turns[0][1]
    image = values.get("image", values.get("images"))
    if not isinstance(asked, str):
        raise RowError("WrongType", f"the first turn holds {type(asked).__name__}, expected text")
    if MARK in asked and not image:
        raise RowError("NoImage", f"the question says {MARK}, but the row names no image")
    answer = turns[1][1] if len(turns) > 1 and turns[1][0] in ("gpt", "assistant") else None
    question = "\n".join(line for line in (part.strip() for part in asked.split(MARK)) if line)
    return {"question": question, "answers": None if answer is None else [answer], "image": image, **_key(values)}


def _of_messages(values: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    roles = [message["role"] for message in messages]
    if roles not in (["user"], ["user", "assistant"]):
        found = ", ".join(map(str, roles))
        raise RowError("SeveralTurns", f"found messages of {found}, expected one of the user and at most its answer")
    question, images = _parts(messages[0]["content"])
    if not images:
        images = values.get("images", values.get("image"))
    elif None in images:  # parts that only mark the place of what stands beside
        beside = values.get("images", values.get("image"))
        images = beside if isinstance(beside, list) else [beside]
    answer = None if len(messages) < 2 else _parts(messages[1]["content"])[0]
    return {"question": question, "answers": None if answer is None else [answer], "image": images, **_key(values)}


def _parts(content: Any) -> tuple[str, list[Any]]:
    """Return the texts of a message, joined, and its images in their order."""
    texts: list[str] = []
    images: list[Any] = []
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or []:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in IMAGE_PARTS:
            images.append(_source(part))
        else:
            raise RowError("WrongPart", f"a message has a part of type {kind!r}, expected text or image_url")
    return "\n".join(texts), images


def _source(part: Mapping[str, Any]) -> Any:
    image = part.get("image_url", part.get("image", part.get("url", part.get("path"))))
    return image.get("url") if isinstance(image, dict) and "url" in image else image


def _key(values: Mapping[str, Any]) -> dict[str, Any]:
    found = next((values[name] for name in ("key", "custom_id", "id") if values.get(name) is not None), None)
    return {} if found is None else {"key": found}


def _shortened(value: Any) -> Any:
    """Return messages in which images that stand in them are cut short: their bytes are the row's images already."""
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    is_image = isinstance(value, str) and value.startswith("data:")
    return f"{value[:KEPT_LETTERS]}..." if is_image and len(value) > KEPT_LETTERS else value


def _are_dicts_with(value: Any, *names: str) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and all(name in item for name in names) for item in value)
    )
