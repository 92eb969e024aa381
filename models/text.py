"""The text half of every processor: tokenizer.json, the chat template, and the guard between the two.

Text from a dataset is untrusted: a question that contains `<|img|>` or `<|im_end|>` must reach the model as
those plain characters. So control tokens inside message texts are taken out before the template is rendered and
put back, tokenised as characters, after it. Which tokens mean what is a family's business and not known here.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from models.checkpoint import read_json
from models.types import BadRequest, CheckpointError, Message

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")

# Private-use characters that stand for a control token while the template is rendered. They are guarded
# themselves, so a text that contains them comes out unchanged too.
_OPEN, _CLOSE = "\U000f5a01", "\U000f5a02"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


@dataclass(frozen=True)
class Rendered:
    """A prompt's text with its guarded control tokens set apart.

    Attributes:
        pieces: Text; every second piece, from the second on, is data that must be read as plain characters.
    """

    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        """The prompt as a person reads it."""
        return "".join(self.pieces)


class Text:
    """A checkpoint's tokenizer and chat template."""

    def __init__(self, folder: Path, template: str | None = None) -> None:
        """Load both from a checkpoint folder.

        Args:
            folder: Holds tokenizer.json and, for chat, one of TEMPLATE_FILES.
            template: A plain text with `{image}` and `{question}` that takes the chat template's place.
        """
        content = read_json(folder, "tokenizer.json")
        if content is None:
            raise CheckpointError(f"no tokenizer: {folder / 'tokenizer.json'} does not exist")
        self._tokenizer = _tokenizer(folder, content)
        self._control = [token["content"] for token in content.get("added_tokens", [])]
        self._plain = _tokenizer(folder, content | {"added_tokens": [], "post_processor": None})
        self._prefix = _prefix(self._tokenizer)
        self._guarded = re.compile("|".join(map(re.escape, sorted([*self._control, _OPEN, _CLOSE], key=len)[::-1])))
        self._folder = folder
        self._variables = _special_tokens(folder)
        self._plain_template = template
        self._template = None if template is not None else _template(folder)

    @property
    def can_chat(self) -> bool:
        """Whether messages can be rendered."""
        return self._template is not None or self._plain_template is not None

    def token_id(self, token: str) -> int | None:
        """Return the id of one token by its exact text, or None."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def render(self, messages: Sequence[Message], image: str, **variables: Any) -> Rendered:
        """Render messages and open the assistant's turn.

        Args:
            messages: Their texts may hold anything; control tokens in them stay data.
            image: The family's placeholder, for plain templates with `{image}`.
            variables: Further names the template may use.

        Raises:
            BadRequest: A message has the wrong shape, or the checkpoint has no template.
        """
        guarded, kept = self._guard(messages)
        if self._plain_template is not None:
            text = _fill(self._plain_template, guarded, image)
        elif self._template is None:
            wanted = ", ".join(TEMPLATE_FILES)
            raise BadRequest(f"{self._folder} has no chat template (looked for {wanted}): give a prompt or a template")
        else:
            try:
                text = self._template.render(
                    messages=guarded, add_generation_prompt=True, **self._variables, **variables
                )
            except Exception as error:  # a template is a program: it may divide by zero or add a word to a number
                raise BadRequest(f"the chat template refused the messages: {error}") from error
        parts = _MARK.split(text)
        return Rendered(tuple(kept[int(part)] if i % 2 else part for i, part in enumerate(parts)))

    def encode(self, rendered: Rendered) -> list[int]:
        """Tokenise a prompt, with the prefix (BOS) that tokenizer.json's own post-processor adds, if any, once."""
        ids: list[int] = []
        for i, piece in enumerate(rendered.pieces):
            tokenizer = self._plain if i % 2 else self._tokenizer
            ids += tokenizer.encode(piece, add_special_tokens=False).ids
        return ids if ids[: len(self._prefix)] == self._prefix else self._prefix + ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def stopper(self, stop: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
        """Return a test whether the ids emitted so far end in a stop string; None without stop strings.

        It looks at the tail alone: called after every token, no earlier match can have been missed.
        """
        if not stop:
            return None
        # A token adds at least one byte, or none at all if it is special; 8 more leave room for those.
        window = max(len(text.encode()) for text in stop) + 8
        return lambda ids: any(text in self.decode(ids[-window:]) for text in stop)

    def _guard(self, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[str]]:
        kept: list[str] = []

        def mark(match: re.Match[str]) -> str:
            kept.append(match.group())
            return f"{_OPEN}{len(kept) - 1}{_CLOSE}"

        def guard(text: Any) -> str:
            if not isinstance(text, str):
                raise BadRequest(f"a message's text is {text!r}, expected a string")
            return self._guarded.sub(mark, text)

        return [dict(_checked(message), content=_map_text(message, guard)) for message in messages], kept


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    ends = [place for place in (text.find(word) for word in stop) if place >= 0]
    return text[: min(ends)] if ends else text


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


def _fill(template: str, messages: Sequence[Mapping[str, Any]], image: str) -> str:
    items = [
        item
        for message in messages
        for item in (
            [{"type": "text", "text": message["content"]}]
            if isinstance(message["content"], str)
            else message["content"]
        )
    ]
    images = image * sum(item["type"] == "image" for item in items)
    question = " ".join(item["text"] for item in items if item["type"] == "text")
    return re.sub(r"\{(image|question)\}", lambda m: images if m.group(1) == "image" else question, template)


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


def _template(folder: Path) -> Template | None:
    source = _template_source(folder)
    try:
        return None if source is None else _environment().from_string(source)
    except TemplateSyntaxError as error:
        raise CheckpointError(f"the chat template of {folder} is wrong in line {error.lineno}: {error}") from error


def _template_source(folder: Path) -> str | None:
    jinja, *others = TEMPLATE_FILES
    if (folder / jinja).is_file():
        return (folder / jinja).read_text(encoding="utf-8")
    for name in others:
        source = (read_json(folder, name) or {}).get("chat_template")
        if isinstance(source, str):
            return source
    return None


def _special_tokens(folder: Path) -> dict[str, str]:
    """Return the names that templates may use, such as `bos_token`."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in (read_json(folder, name) or {}).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                tokens[key] = text
    return tokens


class _Generation(Extension):
    """Read `{% generation %}…{% endgeneration %}` as its content: training tools mark the answer with it."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """Return the environment that checkpoints' templates are written for, without a door to Python."""

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(_: str) -> NoReturn:
        raise TemplateError(f"it asks for today's date ({datetime.now():%d %b %Y}), and answers must not depend on it")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    return environment
