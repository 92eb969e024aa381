"""The text half of every processor: tokenizer.json, the chat template, and where answers end.

Control tokens that stand in data are set apart by models/guard.py. Each family knows what its tokens mean.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from models.checkpoint import read_json
from models.guard import Guard, RenderedPrompt, map_texts
from models.template import ChatTemplate
from models.types import TEMPLATE_DATE, BadRequest, CheckpointError, Message, Request

# What a message's role may be: templates write it among control tokens, as it is.
ROLE = re.compile(r"\w[\w .-]*")


class ChatTokenizer:
    """A checkpoint's tokenizer and chat template."""

    def __init__(
        self,
        folder: Path,
        image: str,
        template: str | None = None,
        *,
        today: date = TEMPLATE_DATE,
        changes: Mapping[str, Any] | None = None,
        written_image: str = "",
    ) -> None:
        """Load both from a checkpoint folder.

        Args:
            folder: Holds tokenizer.json and, for chat, one of models.template_files.TEMPLATE_FILES.
            image: The family's placeholder of an image.
            template: A plain text with `{image}` and `{question}` that takes the chat template's place.
            today: The day it is for the chat template.
            changes: Fields of tokenizer.json that are taken in place of the file's.
            written_image: See ChatTemplate.
        """
        content = read_json(folder, "tokenizer.json")
        if content is None:
            raise CheckpointError(f"no tokenizer: {folder / 'tokenizer.json'} does not exist")
        content |= changes or {}
        self._tokenizer = _tokenizer(folder, content)
        added = content.get("added_tokens", [])
        self._special = frozenset(token["id"] for token in added if token["special"])
        self._plain = _tokenizer(folder, content | {"added_tokens": [], "post_processor": None})
        self._prefix = _prefix(self._tokenizer)
        self._guard = Guard([token["content"] for token in added])
        self._template = ChatTemplate(folder, template, image, today, written_image=written_image)

    @property
    def chat_fault(self) -> str | None:
        """Why messages cannot be rendered, whatever they say; None if they can."""
        return self._template.fault

    def token_id(self, token: str) -> int | None:
        """Return the id of one token by its exact text, or None."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def read(self, request: Request) -> RenderedPrompt:
        """Return the prompt that a request asks for, taken as it is or rendered from its messages.

        Raises:
            BadRequest: It has both or neither, or its messages cannot be rendered, or it wants a picture drawn.
        """
        _check_answered_in_text(request)
        if (request.prompt is None) == (request.messages is None):
            raise BadRequest("a request has either `messages` or a `prompt`")
        if request.messages is None:
            return RenderedPrompt((request.prompt or "",))
        return self.render(request.messages)

    def render(self, messages: Sequence[Message]) -> RenderedPrompt:
        """Render messages and open the assistant's turn.

        Args:
            messages: Their texts may hold anything; control tokens in them stay data.

        Raises:
            BadRequest: A message has the wrong shape, or the template refuses it, or there is none.
        """
        checked = [_checked(message) for message in messages]

        def guarded(message: Message, change: Callable[[str], str]) -> Message:
            return {name: value if name == "role" else map_texts(value, change) for name, value in message.items()}

        return self._guard.render(lambda change: self._template.render([guarded(one, change) for one in checked]))

    def as_data(self, text: str) -> RenderedPrompt:
        """Return a text all of which is data: control tokens in it are set apart, to be read as plain characters."""
        return self._guard.render(lambda change: change(text))

    def encode(self, rendered: RenderedPrompt, bos: int | None = None) -> list[int]:
        """Tokenise a prompt, with what belongs before it.

        Args:
            rendered: The prompt.
            bos: Stands in every prompt exactly once, put first where the text has none. None leaves it to
                tokenizer.json's own post-processor whether there is anything to put first.

        Raises:
            BadRequest: The prompt is empty, or has several BOS.
        """
        return self.with_start(self.tokens(rendered), bos)

    def tokens(self, rendered: RenderedPrompt) -> list[int]:
        """Tokenise a text as it stands, with nothing before it."""
        ids: list[int] = []
        for i, piece in enumerate(rendered.pieces):
            tokenizer = self._plain if i % 2 else self._tokenizer
            ids += tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    def with_start(self, ids: list[int], bos: int | None = None) -> list[int]:
        """Return a prompt's ids with what belongs before them; see encode."""
        if bos is None:
            ids = ids if ids[: len(self._prefix)] == self._prefix else self._prefix + ids
        elif ids.count(bos) > 1:
            raise BadRequest(f"the prompt has {ids.count(bos)} begin-of-text tokens (id {bos}), expected one or none")
        elif bos not in ids:
            ids = [bos, *ids]
        if not ids:
            raise BadRequest("the prompt is empty: expected at least one token")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def stop_condition(self, stop: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
        """Return a test whether the ids emitted so far end in a stop string; None without stop strings.

        A stop string may hold special tokens, and those that stand inside of another one do not hide it. The test looks
        at the tail alone: called after every token, no earlier match can have been missed.
        """
        if not stop:
            return None
        # Every token adds at least one byte to a text in which it is shown, or none if its id is beyond the vocabulary;
        # 8 more leave room for those.
        window = max(len(text.encode()) for text in stop) + 8

        def ends(ids: Sequence[int]) -> bool:
            texts = self._decode_whole(ids[-window:]), self.decode(self._shown_tail(ids, window))
            return any(word in text for word in stop for text in texts)

        return ends

    def before_stop(self, ids: Sequence[int], stop: Sequence[str]) -> str | None:
        """Return what is shown of an answer before a stop string with special tokens in it; None if it has none.

        Args:
            ids: The answer, the id that ended it included.
            stop: The stop strings; those without special tokens are found too.
        """
        whole = self._decode_whole(ids) if stop else ""
        places = [place for place in (whole.find(word) for word in stop) if place >= 0]
        if not places:
            return None
        first = min(places)
        # The ids that stand before it, and what is before it of the token in which it begins.
        before = next(n for n in range(len(ids) - 1, -1, -1) if whole[:first].startswith(self._decode_whole(ids[:n])))
        start = "" if ids[before] in self._special else whole[len(self._decode_whole(ids[:before])) : first]
        return self.decode(ids[:before]) + start

    def _decode_whole(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def _shown_tail(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the last ids that are not special."""
        return [*islice((i for i in reversed(ids) if i not in self._special), count)][::-1]


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    ends = [place for place in (text.find(word) for word in stop) if place >= 0]
    return text[: min(ends)] if ends else text


def check_placeholders(num_placeholders: int, num_images: int, placeholder: str) -> None:
    """Check that every image of a request has its place in the prompt.

    Raises:
        BadRequest: It has not, or a place has no image.
    """
    if num_placeholders != num_images:
        raise BadRequest(
            f"the prompt has {num_placeholders} image placeholders ({placeholder}) for {num_images} images"
        )


def _check_answered_in_text(request: Request) -> None:
    if request.grid is not None:
        rows, columns = request.grid
        raise BadRequest(f"found a grid of {rows} x {columns} codes, but this family draws no pictures")
    if request.negative_prompt is not None:
        raise BadRequest(f"found the negative prompt {request.negative_prompt!r} without a grid: it is for pictures")
    if request.sampling.guidance_scale != 1:
        raise BadRequest(
            f"found guidance_scale {request.sampling.guidance_scale:g} without a grid, expected 1: it is for pictures"
        )


def _checked(message: Any) -> Message:
    # Without a role a template renders an empty one, and nobody notices.
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise BadRequest(f'a message is {message!r}, expected {{"role": …, "content": …}}')
    role, content = message["role"], message.get("content")
    if not ROLE.fullmatch(role):
        raise BadRequest(f"a message's role is {role!r}, expected a word such as user or assistant")
    if isinstance(content, str):
        return message
    if not isinstance(content, Sequence):
        raise BadRequest(f"a message's content is {content!r}, expected a string or a list of items")
    return {**message, "content": [_checked_item(item) for item in content]}


def _checked_item(item: Any) -> Mapping[str, Any]:
    if not isinstance(item, Mapping) or item.get("type") not in ("image", "text"):
        raise BadRequest(f'a content item is {item!r}, expected {{"type": "image"}} or {{"type": "text", "text": …}}')
    if item["type"] == "text" and not isinstance(item.get("text"), str):
        raise BadRequest(f"a message's text is {item.get('text')!r}, expected a string")
    return item


def _tokenizer(folder: Path, content: Mapping[str, Any]) -> Tokenizer:
    # Some files carry the cutting and padding of the training that they were saved in.
    content = dict(content, truncation=None, padding=None)
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise CheckpointError(f"{folder / 'tokenizer.json'} is not a tokenizer: {error}") from error


def _prefix(tokenizer: Tokenizer) -> list[int]:
    """Return the ids that the tokenizer puts first of its own; what it puts last would end a prompt at once."""
    bare: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    whole: list[int] = tokenizer.encode("a", add_special_tokens=True).ids
    starts = (i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[: next(starts, 0)]
