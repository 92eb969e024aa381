"""The chat template of a checkpoint: messages become one text, in a sandbox and on a day that never changes.

It knows where templates stand and what their writers expect to find there. models/tokenizer.py has already set the
control tokens inside messages apart.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from models.checkpoint import read_json
from models.types import BadRequest, CheckpointError

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


class ChatTemplate:
    """What turns messages into a prompt: plain text given by the run, else the checkpoint's own, else a default."""

    def __init__(self, folder: Path, plain: str | None, default: str | None, today: date) -> None:
        """Find the template.

        Args:
            folder: The checkpoint; it may hold one of TEMPLATE_FILES.
            plain: Text with `{image}` and `{question}` that takes the place of the checkpoint's.
            default: The same, for a checkpoint that has none.
            today: The day it is for the template.
        """
        self._folder = folder
        self._template = None if plain is not None else _template(folder, today)
        self._plain = default if plain is None and self._template is None else plain
        # The name by which Llama's templates are told the day, and the form in which they write it.
        self._variables = {**_special_tokens(folder), "date_string": today.strftime("%d %b %Y")}

    @property
    def is_there(self) -> bool:
        """Whether messages can be rendered."""
        return self._template is not None or self._plain is not None

    def render(self, messages: Sequence[Mapping[str, Any]], image: str) -> str:
        """Render messages and open the assistant's turn.

        Args:
            messages: Each with a role and a content of the right shape.
            image: The family's placeholder, for plain text with `{image}`.

        Raises:
            BadRequest: The template refuses the messages, or there is none.
        """
        if self._plain is not None:
            return _fill(self._plain, messages, image)
        if self._template is None:
            wanted = ", ".join(TEMPLATE_FILES)
            raise BadRequest(f"{self._folder} has no chat template (looked for {wanted}): give a prompt or a template")
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._variables)
        except Exception as error:  # a template is a program: it may divide by zero or add a word to a number
            raise BadRequest(f"the chat template refused the messages: {error}") from error


def _fill(template: str, messages: Sequence[Mapping[str, Any]], image: str) -> str:
    if len(messages) > 1:
        found = ", ".join(str(message["role"]) for message in messages)
        raise BadRequest(f"found messages of {found}; a plain template has room for one of the user alone")
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


def _template(folder: Path, today: date) -> Template | None:
    source = _source(folder)
    try:
        return None if source is None else _environment(today).from_string(source)
    except TemplateSyntaxError as error:
        raise CheckpointError(f"the chat template of {folder} is wrong in line {error.lineno}: {error}") from error


def _source(folder: Path) -> str | None:
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


def _environment(today: date) -> ImmutableSandboxedEnvironment:
    """Return the environment that checkpoints' templates are written for, without a door to Python or to a clock."""

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(form: str) -> str:
        return datetime.combine(today, time()).strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    return environment
