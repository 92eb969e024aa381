"""The text half of every processor: tokenizer.json, the chat template, and the guard between the two.

Text from a dataset is untrusted: a question that contains `<|img|>` or `<|im_end|>` must reach the model as
those plain characters. So control tokens inside message texts are taken out before the template is rendered and
put back, tokenised as characters, after it. Each family knows what its tokens mean.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from models.checkpoint import read_json
from models.template import ChatTemplate
from models.types import TEMPLATE_DATE, BadRequest, CheckpointError, Message, Request

# Private-use characters that stand for a control token while the template is rendered. They are guarded
# themselves, so a text that contains them comes out unchanged too.
_OPEN, _CLOSE = "\U000f5a01", "\U000f5a02"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt's text with its guarded control tokens set apart.

    Attributes:
        pieces: Text; every second piece, from the second on, is data that must be read as plain characters.
    """

    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        """The prompt as a person reads it."""
        return "".join(self.pieces)


class ChatTokenizer:
    """A checkpoint's tokenizer and chat template."""

    def __init__(
        self,
        folder: Path,
        template: str | None = None,
        *,
        default: str | None = None,
        today: date = TEMPLATE_DATE,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        """Load both from a checkpoint folder.

        Args:
            folder: Holds tokenizer.json and, for chat, one of models.template.TEMPLATE_FILES.
            template: A plain text with `{image}` and `{question}` that takes the chat template's place.
            default: The same, for a checkpoint without a chat template.
            today: The day it is for the chat template.
            changes: Fields of tokenizer.json that are taken in place of the file's.
        """
        content = read_json(folder, "tokenizer.json")
        if content is None:
            raise CheckpointError(f"no tokenizer: {folder / 'tokenizer.json'} does not exist")
        content |= changes or {}
        self._tokenizer = _tokenizer(folder, content)
        control = [token["content"] for token in content.get("added_tokens", [])]
        self._plain = _tokenizer(folder, content | {"added_tokens": [], "post_processor": None})
        self._prefix = _prefix(self._tokenizer)
        self._guarded = _TokenFinder([*control, _OPEN, _CLOSE])
        self._template = ChatTemplate(folder, template, default, today)

    @property
    def can_chat(self) -> bool:
        """Whether messages can be rendered."""
        return self._template.is_there

    def token_id(self, token: str) -> int | None:
        """Return the id of one token by its exact text, or None."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def read(
        self, request: Request, image: str, change: Callable[[Message], Message] = lambda message: message
    ) -> RenderedPrompt:
        """Return the prompt that a request asks for, taken as it is or rendered from its messages.

        Args:
            request: Has one of the two.
            image: The family's placeholder.
            change: What the family's template needs done to a message, of whatever shape, before it is checked.

        Raises:
            BadRequest: It has both or neither, or its messages cannot be rendered, or it wants a picture drawn.
        """
        _check_answered_in_text(request)
        if (request.prompt is None) == (request.messages is None):
            raise BadRequest("a request has either `messages` or a `prompt`")
        if request.messages is None:
            return RenderedPrompt((request.prompt or "",))
        return self.render([change(message) for message in request.messages], image)

    def render(self, messages: Sequence[Message], image: str) -> RenderedPrompt:
        """Render messages and open the assistant's turn.

        Args:
            messages: Their texts may hold anything; control tokens in them stay data.
            image: The family's placeholder, for plain templates with `{image}`.

        Raises:
            BadRequest: A message has the wrong shape, or the template refuses it, or there is none.
        """
        kept: list[str] = []
        guard = partial(self._guard, kept)
        guarded = [dict(_checked(message), content=_map_text(message, guard)) for message in messages]
        return _unguarded(self._template.render(guarded, image), kept)

    def as_data(self, text: str) -> RenderedPrompt:
        """Return a text all of which is data: control tokens in it are set apart, to be read as plain characters."""
        kept: list[str] = []
        return _unguarded(self._guard(kept, text), kept)

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

        It looks at the tail alone: called after every token, no earlier match can have been missed.
        """
        if not stop:
            return None
        # A token adds at least one byte, or none at all if it is special; 8 more leave room for those.
        window = max(len(text.encode()) for text in stop) + 8
        return lambda ids: any(text in self.decode(ids[-window:]) for text in stop)

    def _guard(self, kept: list[str], text: Any) -> str:
        """Return a text with a mark in the place of each control token, which is put into `kept`."""
        if not isinstance(text, str):
            raise BadRequest(f"a message's text is {text!r}, expected a string")

        def mark(word: str) -> str:
            kept.append(word)
            return f"{_OPEN}{len(kept) - 1}{_CLOSE}"

        return self._guarded.replace(text, mark)


class _TokenFinder:
    """Words to be found in texts: a family may have 33 thousand, too many for a regular expression that tries each."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = frozenset(words)
        self._lengths = sorted({len(word) for word in words}, reverse=True)
        self._starts = re.compile(f"[{''.join(re.escape(start) for start in sorted({word[0] for word in words}))}]")

    def replace(self, text: str, change: Callable[[str], str]) -> str:
        """Replace each word, from the left, the longest where several begin."""
        pieces, done = [], 0
        for match in self._starts.finditer(text):
            start = match.start()
            word = self._longest(text, start) if start >= done else None
            if word is not None:
                pieces += [text[done:start], change(word)]
                done = start + len(word)
        return "".join([*pieces, text[done:]])

    def _longest(self, text: str, start: int) -> str | None:
        candidates = (text[start : start + length] for length in self._lengths)
        return next((word for word in candidates if word in self._words), None)


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


def _unguarded(text: str, kept: Sequence[str]) -> RenderedPrompt:
    parts = _MARK.split(text)
    return RenderedPrompt(tuple(kept[int(part)] if i % 2 else part for i, part in enumerate(parts)))


def _checked(message: Any) -> Message:
    # Without a role a template renders an empty one, and nobody notices.
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise BadRequest(f'a message is {message!r}, expected {{"role": …, "content": …}}')
    return message


def _map_text(message: Message, change: Callable[[Any], str]) -> str | list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return change(content)
    if not isinstance(content, Sequence):
        raise BadRequest(f"a message's content is {content!r}, expected a string or a list of items")
    return [_map_item(item, change) for item in content]


def _map_item(item: Any, change: Callable[[Any], str]) -> dict[str, Any]:
    if not isinstance(item, Mapping) or item.get("type") not in ("image", "text"):
        raise BadRequest(f'a content item is {item!r}, expected {{"type": "image"}} or {{"type": "text", "text": …}}')
    return dict(item, text=change(item.get("text"))) if item["type"] == "text" else dict(item)


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
