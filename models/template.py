"""The chat template of a checkpoint: messages become one text, in a sandbox and on a day that never changes.

It is rendered as `transformers` 5.23 does (render_jinja_template in utils/chat_template_utils.py). models/guard.py has
already set the control tokens inside messages apart.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from models.guard import CLOSE, OPEN
from models.message_forms import MessageForms, TemplateRefusal, texts_of
from models.template_files import TEMPLATE_FILES, find_template, special_tokens
from models.types import BadRequest, CheckpointError, Message

# How JSON in ASCII writes the two marks.
ESCAPED_MARKS = {json.dumps(mark)[1:-1]: mark for mark in (OPEN, CLOSE)}
# Names for what a model thought before it answered; templates read the first, or older ones.
REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """What turns messages into a prompt: plain text given by the run, else the checkpoint's own template."""

    def __init__(self, folder: Path, plain: str | None, image: str, today: date, *, written_image: str = "") -> None:
        """Find the template.

        Args:
            folder: The checkpoint; it may hold one in TEMPLATE_FILES.
            plain: Text with `{image}` and `{question}` that takes the place of the checkpoint's.
            image: The family's placeholder of an image.
            today: The day it is for the template.
            written_image: What the family's authors write for an image, if that is more than the placeholder.
        """
        self._folder, self._plain, self._image = folder, plain, image
        self._template = None if plain is not None else _template(folder, today)
        # The name by which Llama's templates are told the day, and the form in which they write it.
        self._variables = {**special_tokens(folder), "date_string": today.strftime("%d %b %Y")}
        self._forms = MessageForms(self._rendered, image, written_image or image)

    @cached_property
    def fault(self) -> str | None:
        """Why messages cannot be rendered, whatever they say; None if they can."""
        if self._plain is not None:
            return None
        if self._template is None:
            wanted = ", ".join(TEMPLATE_FILES)
            return (
                f"{self._folder} has no chat template (looked for {wanted}); a base model has none and is asked by one "
                "in plain text, such as template: '{image}{question}'; one that was taught to chat needs its own file"
            )
        try:
            fault = self._forms.fault("user")
        except TemplateRefusal as error:
            fault = f"refuses a user's message: {error}"
        return fault and f"the chat template of {self._folder} {fault}"

    def render(self, messages: Sequence[Message]) -> str:
        """Render messages and open the assistant's turn.

        Args:
            messages: Each with a role and a content, either a text or a list of items.

        Raises:
            BadRequest: The template refuses the messages, or there is none.
        """
        if self.fault is not None:
            raise BadRequest(self.fault)
        if self._plain is not None:
            return _fill(self._plain, messages, self._image)
        try:
            return self._rendered([self._forms.suited(message) for message in messages])
        except TemplateRefusal as error:
            raise BadRequest(f"the chat template refused the messages: {error}") from error

    def _rendered(self, messages: Sequence[Message]) -> str:
        assert self._template is not None
        given = {
            **self._variables,
            "messages": [_as_the_reference_gives_it(message) for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
        }
        try:
            return self._template.render(given)
        except Exception as error:  # a template is a program: it may divide by zero or add a word to a number
            raise TemplateRefusal(str(error)) from error


def _as_the_reference_gives_it(message: Message) -> dict[str, Any]:
    """Leave out fields that are null, and give what a model thought under each name that templates know."""
    given = {name: value for name, value in message.items() if value is not None}
    thought = next((given[name] for name in REASONING if name in given), None)
    return given if thought is None else {"thinking": thought, **given, "reasoning_content": thought}


def _fill(template: str, messages: Sequence[Message], image: str) -> str:
    if len(messages) > 1:
        found = ", ".join(str(message["role"]) for message in messages)
        raise BadRequest(f"found messages of {found}; a plain template has room for one of the user alone")
    items = [item for message in messages for item in texts_of(message)]
    images = image * items.count(None)
    question = " ".join(text for text in items if text is not None)
    return re.sub(r"\{(image|question)\}", lambda m: images if m.group(1) == "image" else question, template)


def _template(folder: Path, today: date) -> Template | None:
    source = find_template(folder)
    try:
        return None if source is None else _environment(today).from_string(source)
    except TemplateSyntaxError as error:
        raise CheckpointError(f"the chat template of {folder} is wrong in line {error.lineno}: {error}") from error


class _Generation(Extension):
    """Read `{% generation %}…{% endgeneration %}` as its content: training tools mark the answer with it.

    As in the reference it is a block of its own, and what is set inside is not known outside.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()


class _PlainNamespace(Namespace):
    """A namespace whose names cannot begin with an underscore: those are doors to Python."""

    def __init__(*args: Any, **fields: Any) -> None:
        own, *given = args
        whole = dict(*given, **fields)
        for name in whole:
            _check_name(name)
        Namespace.__init__(own, whole)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has a name that begins with an underscore: {name}")


class _PlainDict:
    """`dict` as a function alone."""

    def __call__(self, *args: Any, **fields: Any) -> dict[Any, Any]:
        return dict(*args, **fields)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _environment(today: date) -> ImmutableSandboxedEnvironment:
    """Return the environment that checkpoints' templates are written for, without a door to Python or to a clock."""

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(format: str) -> str:
        return datetime.combine(today, time()).strftime(format)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": _PlainDict(),
        "namespace": _PlainNamespace,
    }
    environment.filters["tojson"] = _tojson
    return environment


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return JSON; names and order of the arguments are the reference's. Marks stay marks."""
    text = json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    for escaped, mark in ESCAPED_MARKS.items():
        text = text.replace(escaped, mark)
    return text
