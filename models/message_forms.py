"""Which form of a message's content a chat template shows: one text, or a list of items.

Templates are programs, and which form they take is found by trying: a template that was written for texts prints a list
as Python writes it, and one that was written for lists shows nothing of a text. The answer may differ by role.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from models.types import BadRequest, Message

# Two texts that are tried, and a field of messages and items that shows only where a whole one is printed. Words of one
# case, so that no template cuts or changes them.
PROBES = "firstprobe", "secondprobe"
TRACE = "itemtrace"
KEPT_ROLES = 64


class TemplateRefusal(Exception):
    """A template raised an error; the text is its own."""


class MessageForms:
    """What a template shows of messages, found out once for each role."""

    def __init__(self, render: Callable[[Sequence[Message]], str], image: str, written_image: str) -> None:
        """Keep the template.

        Args:
            render: Renders messages as they are; raises TemplateRefusal.
            image: The family's placeholder of an image.
            written_image: What is written for an image into a text.
        """
        self._render, self._image, self._written_image = render, image, written_image
        self._text_forms = lru_cache(KEPT_ROLES)(self._find_text_forms)
        self._image_forms = lru_cache(KEPT_ROLES)(self._find_image_forms)

    def fault(self, role: str) -> str | None:
        """Say that a text is not shown in either form in messages of a role, if it is so.

        Raises:
            TemplateRefusal: The template takes no message of that role as it is tried.
        """
        if self._text_forms(role):
            return None
        return (
            f"shows no text of a message of role {role!r}, whether it is given as a text or as a list of items; "
            "expected one that prints message['content'] or the text of each item in it"
        )

    def suited(self, message: Message) -> Message:
        """Return a message in a form that the template shows: as it is if it can be, else in the other form.

        Raises:
            BadRequest: There is none.
        """
        role, given = message["role"], type(message["content"])
        try:
            forms = self._image_forms(role) if None in texts_of(message) else self._text_forms(role)
        except TemplateRefusal:
            # It may take such a message beside others; if it does not, it says why when the prompt is rendered.
            return message
        if not forms:
            raise BadRequest(f"the chat template {self.fault(role) or self._image_fault(role)}")
        if given in forms:
            return message
        if list in forms:
            return {**message, "content": [{"type": "text", "text": message["content"]}]}
        return {**message, "content": "".join(self._written_image if t is None else t for t in texts_of(message))}

    def _image_fault(self, role: str) -> str:
        return (
            f"shows no image in a message of role {role!r}, expected {self._image} once for each; "
            "a template in plain text, such as '{image}{question}', can take its place"
        )

    def _find_text_forms(self, role: str) -> Sequence[type]:
        items = [{"type": "text", "text": probe, TRACE: TRACE} for probe in PROBES]
        contents = {str: " ".join(PROBES), list: items}
        refusal, forms = TemplateRefusal(), dict[type, bool]()
        for form, content in contents.items():
            try:
                forms[form] = _is_shown(self._tried(role, content))
            except TemplateRefusal as error:
                refusal = error
        if not forms:
            raise refusal
        return [form for form, is_shown in forms.items() if is_shown]

    def _find_image_forms(self, role: str) -> Sequence[type]:
        """Return the forms in which one image is shown once, beside the whole text."""
        image = {"type": "image", TRACE: TRACE}
        contents: dict[type, Any] = {list: [image, *({"type": "text", "text": p, TRACE: TRACE} for p in PROBES)]}
        if role == "user":  # only a user's text may stand for a picture; the families' authors write none elsewhere
            contents[str] = self._written_image + " ".join(PROBES)
        for form, content in contents.items():
            if form not in self._text_forms(role):
                continue
            with suppress(TemplateRefusal):
                text = self._tried(role, content)
                if _is_shown(text) and text.count(self._image) == 1:
                    return [form]
        return []

    def _tried(self, role: str, content: Any) -> str:
        """Return what the template makes of a content, in the first conversation around it that it takes.

        Raises:
            TemplateRefusal: It takes none.
        """
        message = {"role": role, "content": content, TRACE: TRACE}
        refusal = TemplateRefusal()
        for conversation in self._around(role, message):
            try:
                return self._render(conversation)
            except TemplateRefusal as error:
                refusal = error
        raise refusal

    def _around(self, role: str, message: Message) -> list[list[Message]]:
        """Return conversations in which a message of a role may stand, the likeliest first."""
        if role == "user":
            return [[message], [{"role": "system", "content": "a"}, message]]
        text = "a" if str in self._text_forms("user") else [{"type": "text", "text": "a"}]
        turn = {"role": "user", "content": text}
        inside = [[turn, message, turn], [turn, message]]
        return [[message, turn], *inside] if role == "system" else [*inside, [message, turn]]


def texts_of(message: Message) -> list[str | None]:
    """Return a message's texts in order, None for each image."""
    content = message["content"]
    if isinstance(content, str):
        return [content]
    return [item["text"] if item["type"] == "text" else None for item in content]


def _is_shown(text: str) -> bool:
    return TRACE not in text and all(probe in text for probe in PROBES)
