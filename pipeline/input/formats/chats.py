"""Understand rows that are conversations: what is asked, after which turns, its answer, its images and its key.

Two ways of writing them are known: LLaVA's `conversations` (github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md)
and OpenAI's `messages`, by themselves or as a line of a batch (`custom_id`, `body`). In JSON and in columns of structs
they become the same turns.

The user's last turn is asked, after all turns before it as they were written. If the assistant has answered it, that is
the right answer, and no part of the prompt.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.input.formats.fields import ANSWERS
from pipeline.input.formats.rows import RowError, Shape

# The column, for the job alone, with the turns that are asked: JSON of what models.types.Request calls `messages`.
MESSAGES = "job.messages"
# What conversations add to their rows.
OF_CHATS: Mapping[str, pa.DataType] = {MESSAGES: pa.string(), "question": pa.string(), "answers": ANSWERS}
# What names a row, the surest first; what else of its fields is looked at.
KEYS = ("key", "custom_id", "id")
LOOKED_AT = ("conversations", "messages", "body", "url", "system", "image", "images", "question", "answers", *KEYS)
# What each turn has in LLaVA's and in OpenAI's way of writing.
OF_LLAVA, OF_OPENAI = ("from", "value"), ("role", "content")
# Stands in LLaVA's turns where the image belongs.
MARK = "<image>"
# Who speaks, in words of LLaVA, of ShareGPT and of OpenAI, whose `developer` has taken the place of `system`.
ROLES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
TEXT_PARTS, IMAGE_PARTS = ("text", "input_text", "output_text"), ("image_url", "image", "input_image")
# What is said aloud of turns that are answered like the last one and are not asked.
EARLIER = "earlier questions of conversations, which are told with their answers and not asked,"
# So much of an image in a message is kept in the column that holds the message.
KEPT_LETTERS = 64


@dataclass(frozen=True)
class Turn:
    """What one of the two says at once.

    Attributes:
        role: `system`, `user` or `assistant`.
        parts: Texts, and dicts that hold images, in their order.
    """

    role: str
    parts: Sequence[str | Mapping[str, Any]]

    @property
    def text(self) -> str:
        """Its texts, without the newlines around each, one a line."""
        return "\n".join(part.strip("\n") for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[Mapping[str, Any]]:
        """What holds its images."""
        return [part for part in self.parts if not isinstance(part, str)]

    @property
    def message(self) -> dict[str, Any]:
        """It as a message for a chat template, images without what they are."""
        parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in self.parts]
        return {"role": self.role, "content": parts}


def are_conversations(fields: Mapping[str, pa.DataType]) -> bool:
    """Say whether columns hold conversations, by their types."""
    if "question" in fields:
        return False
    body = fields.get("body", pa.null())
    inner = {field.name: field.type for field in body} if pa.types.is_struct(body) else {}
    spoken = [(fields, "conversations", OF_LLAVA), (fields, "messages", OF_OPENAI)]
    spoken += [(inner, "messages", OF_OPENAI), (inner, "input", OF_OPENAI)]
    return any(_is_list_of(among.get(column), names) for among, column, names in spoken)


def added_by_chats(fields: Mapping[str, pa.DataType], named: Container[str]) -> Mapping[str, pa.DataType]:
    """Return the columns that conversations add to some; turns bring images where no setting names a column of them."""
    images = {} if "image" in fields or "image" in named else {"image": ANSWERS}
    return {**OF_CHATS, **images}


def unfolded(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a conversation says in our words: MESSAGES, `question`, `answers`, `image`, `key`.

    None of a row that is none; one that has a question of its own is none.

    Raises:
        RowError: It cannot be asked as it is.
    """
    if "question" in values:
        return None
    if _are_dicts_with(values.get("conversations"), OF_LLAVA):
        return _of_llava(values)
    if _are_dicts_with(values.get("messages"), OF_OPENAI):
        return {"messages": _shortened(values["messages"]), **_of_messages(values, values["messages"])}
    body = values.get("body")
    if isinstance(body, dict) and (messages := _messages_of(body, values.get("url"))):
        return {"body": _shortened(body), **_of_messages(values, messages)}
    return None


def unfolded_beside(values: Mapping[str, Any], images: Sequence[Any]) -> dict[str, Any] | None:
    """Return what a conversation says whose row has its images and its name already; None of a row that is none.

    Raises:
        RowError: It cannot be asked as it is.
    """
    said = unfolded({**values, "image": images, "images": None})
    return said and {name: value for name, value in said.items() if name not in ("image", "key")}


@dataclass
class Sampled:
    """The conversations among the rows that a plan looks at.

    Attributes:
        is_possible: Whether there may be any.
        has_members: Whether rows are members of an archive, with images of their own.
        is_found: Whether there was one.
        num_earlier: How many turns of the user were told and not asked, although they are answered as the last one is.
    """

    is_possible: bool
    has_members: bool = False
    is_found: bool = False
    num_earlier: int = 0

    def fields_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's fields with what its conversation says, or nulls where that cannot be asked."""
        if not self.is_possible:
            return dict(values)
        try:
            said = unfolded_beside(values, ["one"]) if self.has_members else unfolded(values)
        except RowError:
            said = dict.fromkeys(OF_CHATS)
        if said is None:
            return dict(values)
        self.is_found = True
        self.num_earlier += num_answered_before(said)
        return {**values, **said}

    @property
    def shape(self) -> Shape:
        """What the rows are."""
        return "chat" if self.is_found else ""

    @property
    def passed_over(self) -> dict[str, int]:
        """What is to be said aloud."""
        return {EARLIER: self.num_earlier} if self.num_earlier else {}


def key_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a conversation is called as its `key`; nothing where it has no name."""
    found = next((values[name] for name in KEYS if values.get(name) is not None), None)
    return {} if found is None else {"key": found}


def num_answered_before(said: Mapping[str, Any]) -> int:
    """Say how many turns of the user stand in a conversation, answered like its last one, that are not asked."""
    if not said.get("answers"):  # the last turn waits for its answer, and what comes before is but its history
        return 0
    roles = [message["role"] for message in json.loads(said[MESSAGES])]
    return roles.count("user") - 1


def _messages_of(body: Mapping[str, Any], address: Any) -> list[Any] | None:
    """Return the messages of a line of a batch, in the words of chat completions or of responses; None without any."""
    messages: Any = body.get("messages") or body.get("input")
    if isinstance(messages, str) and str(address).endswith("/responses"):
        messages = [{"role": "user", "content": messages}]
    if not _are_dicts_with(messages, OF_OPENAI):
        return None
    told = body.get("instructions")
    return [*([{"role": "system", "content": told}] if told else []), *messages]


def _with_system(turns: Sequence[Turn], values: Mapping[str, Any]) -> Sequence[Turn]:
    """Put a system message that stands beside a conversation, as LLaMA-Factory has it, before one that has none."""
    beside = values.get("system")
    if turns[0].role == "system" or "body" in values or not isinstance(beside, str) or not beside.strip():
        return turns
    return [Turn("system", [beside]), *turns]


def _of_llava(values: Mapping[str, Any]) -> dict[str, Any]:
    turns = [Turn(_role(turn["from"]), _marked(turn["value"])) for turn in values["conversations"]]
    asked, answer = _apart(_with_system(turns, values))
    image = values.get("image") or values.get("images")
    if not image and any(turn.images for turn in asked):
        raise RowError("NoImage", f"the conversation says {MARK}, but the row names no image")
    return {**_in_our_words(asked, answer, values), "image": image, **key_of(values)}


def _of_messages(values: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    turns = [Turn(_role(message["role"]), _parts(message["content"])) for message in messages]
    asked, answer = _apart(_with_system(turns, values))
    beside = values.get("images") or values.get("image")
    if beside and not any(turn.images for turn in asked):  # ms-swift and LLaMA-Factory write LLaVA's marks into texts
        asked = [Turn(turn.role, [part for text in turn.parts for part in _marked(text)]) for turn in asked]
        return {**_in_our_words(asked, answer, values), "image": beside, **key_of(values)}
    named = [image for turn in asked for image in turn.images]
    images = list(_placed(named, beside if isinstance(beside, list) else [beside])) if named else beside
    return {**_in_our_words(asked, answer, values), "image": images, **key_of(values)}


def _in_our_words(asked: Sequence[Turn], answer: Turn | None, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        MESSAGES: json.dumps([turn.message for turn in asked], ensure_ascii=False),
        "question": asked[-1].text,
        "answers": values.get("answers") if answer is None else [answer.text],
    }


def _apart(turns: Sequence[Turn]) -> tuple[Sequence[Turn], Turn | None]:
    """Return the turns up to the one that is asked, and its answer if there is one."""
    asked, answer = (turns[:-1], turns[-1]) if turns[-1].role == "assistant" else (turns, None)
    if not asked or asked[-1].role != "user":
        found = ", ".join(turn.role for turn in turns)
        raise RowError("WrongTurn", f"found turns of {found}, expected the user's, and at most one answer, at the end")
    if answer is not None and answer.images:
        raise RowError("WrongPart", "the assistant's last turn holds an image, expected an answer in text")
    return asked, answer


def _role(said: Any) -> str:
    if said not in ROLES:
        raise RowError("WrongTurn", f"found a turn of {said!r}, expected one of {', '.join(ROLES)}")
    return ROLES[said]


def _marked(value: Any) -> list[str | Mapping[str, Any]]:
    """Return what a turn of LLaVA says, without the blanks between its text and marks at the turn's start or end."""
    if not isinstance(value, str):
        raise RowError("WrongType", f"a turn holds {type(value).__name__}, expected text")
    texts = value.split(MARK)
    written = [place for place, text in enumerate(texts) if text.strip()]
    first, last = (written[0], written[-1]) if written else (len(texts), -1)
    parts: list[str | Mapping[str, Any]] = []
    for place, text in enumerate(texts):
        kept = text.lstrip() if place == first > 0 else text
        kept = kept.rstrip() if place == last < len(texts) - 1 else kept
        parts += [{}] if place else []
        parts += [kept] if kept and (first <= place <= last or len(texts) == 1) else []
    return parts


def _parts(content: Any) -> list[str | Mapping[str, Any]]:
    """Return the texts and images of a message in their order."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list) or not content:
        found = "an empty list" if content == [] else "nothing" if content is None else type(content).__name__
        raise RowError("WrongPart", f"a message holds {found}, expected a text or a list of parts")
    parts: list[str | Mapping[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXT_PARTS and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif kind in IMAGE_PARTS:
            parts.append(part)
        else:
            raise RowError("WrongPart", f"a message has a part of type {kind!r}, expected text or image_url")
    return parts


def _placed(parts: Sequence[Mapping[str, Any]], beside: Sequence[Any]) -> Iterator[Any]:
    """Return the image of each part: its own, or the next of those beside the messages, or the one that it numbers.

    Raises:
        RowError: There are fewer or more beside than parts without an image of their own.
    """
    sources = [_source(part) for part in parts]
    waiting = [part for part, source in zip(parts, sources, strict=True) if source is None]
    numbers = [number if type(number := part.get("index")) is int else place for place, part in enumerate(waiting)]
    there = [image for image in beside if image]
    if waiting and set(numbers) != set(range(len(there))):
        wanted = f"{len(waiting)} parts of the messages stand for images beside them"
        raise RowError("WrongImages", f"{wanted}, and the row has {len(there)} of these")
    numbered = iter(numbers)
    return (there[next(numbered)] if source is None else source for source in sources)


def _source(part: Mapping[str, Any]) -> Any:
    # A struct has all names, and nothing under most of them.
    image = next((part[name] for name in ("image_url", "image", "url", "path", "base64") if part.get(name)), None)
    return image.get("url") if isinstance(image, dict) and "url" in image else image


def _shortened(value: Any) -> Any:
    """Return messages in which images that stand in them are cut short: their bytes are the row's images already."""
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, bytes):
        return value[:KEPT_LETTERS]
    is_image = isinstance(value, str) and value.startswith("data:")
    return f"{value[:KEPT_LETTERS]}..." if is_image and len(value) > KEPT_LETTERS else value


def _is_list_of(kind: pa.DataType | None, names: Sequence[str]) -> bool:
    if kind is None or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return pa.types.is_struct(kind.value_type) and set(names) <= {field.name for field in kind.value_type}


def _are_dicts_with(value: Any, names: Sequence[str]) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and all(name in item for name in names) for item in value)
    )
