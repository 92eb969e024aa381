"""What every scoring rule starts from: a raw response without its reasoning. It knows strings only."""

from collections.abc import Sequence

# What opens and closes a model's reasoning, where a run does not say otherwise.
REASONING = ("<think>", "</think>")


def clean(response: str, reasoning: tuple[str, str] = REASONING, end_tokens: Sequence[str] = ()) -> str:
    """Drop text between the reasoning's tags and the model's end tokens, then strip white space around.

    If only the closing tag occurs, what follows the last one is kept; an opening tag without its end stays.

    Args:
        response: The raw response.
        reasoning: The opening and the closing tag.
        end_tokens: What may stand at the end of responses that another tool has stored; our own have none.
    """
    opening, closing = reasoning
    kept = _without(response, opening, closing)
    if closing in kept:
        kept = kept.rpartition(closing)[2]
    return _without_ends(kept, end_tokens).strip()


def after_marker(text: str, marker: str | None) -> str:
    """Return what follows the last marker, whatever its case; the whole text if there is none, or nothing to look for.

    Prompts that ask for step-by-step reasoning name such a marker, e.g. `FINAL ANSWER:`. Where a model has written it
    in bold, as `**FINAL ANSWER:** B` or `**FINAL ANSWER: B**`, the asterisks are no part of the answer.
    """
    if marker is None:
        return text
    place = text.casefold().rfind(marker.casefold()) if text.isascii() else _last(text, marker)
    if place < 0:
        return text
    answer = text[place + len(marker) :].strip()
    return answer.strip("*").strip() if text[:place].endswith("*") else answer


def _without(text: str, opening: str, closing: str) -> str:
    """Cut out each stretch from an opening tag to the next closing one."""
    pieces: list[str] = []
    while True:
        before, found, rest = text.partition(opening)
        _, closed, after = rest.partition(closing)
        if not found or not closed:
            return "".join([*pieces, text])
        pieces.append(before)
        text = after


def _without_ends(text: str, end_tokens: Sequence[str]) -> str:
    stripped = text.rstrip()
    for token in end_tokens:
        if token and stripped.endswith(token):
            return _without_ends(stripped[: -len(token)], end_tokens)
    return text


def _last(text: str, marker: str) -> int:
    """Find the last marker where changing the case of other letters may change the text's length."""
    wanted, length = marker.casefold(), len(marker)
    places = range(len(text) - length, -1, -1)
    return next((place for place in places if text[place : place + length].casefold() == wanted), -1)
