"""The continuations of a prompt that a request wants scored, cut into tokens: which are the prompt's, which theirs.

Their log-probabilities are computed in models/engine/scoring.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.guard import RenderedPrompt
from models.tokenizer import ChatTokenizer
from models.types import BadRequest


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's ids and, after it, those of each continuation; the prompt's are what an answer would follow.

    Attributes:
        ids: The prompt's.
        choices: int32 (T,) each.
    """

    ids: list[int]
    choices: tuple[NDArray[np.int32], ...] = ()


def encode_prompt(
    text: ChatTokenizer, rendered: RenderedPrompt, choices: Sequence[str], bos: int | None = None
) -> EncodedPrompt:
    """Tokenise a prompt and what may follow it.

    The rule is lm-evaluation-harness's (`_encode_pair`): blanks at the prompt's end belong to each continuation, and a
    continuation's tokens are those that the whole text has behind the prompt's own. Where the two grow together, so
    that the whole text does not begin with the prompt's tokens, the harness cuts at their number all the same, and what
    it scores may be another text. Here such a continuation is tokenised by itself, and follows the same prompt as the
    others.

    Args:
        text: The checkpoint's tokenizer.
        rendered: The prompt.
        choices: The continuations; control tokens in them are plain characters. Without any the prompt stays whole.
        bos: See ChatTokenizer.encode.

    Raises:
        BadRequest: A continuation is empty, or no text, or the prompt is empty.
    """
    if not choices:
        return EncodedPrompt(text.encode(rendered, bos))
    *before, last = rendered.pieces
    stem = last.rstrip()
    prompt = text.tokens(RenderedPrompt((*before, stem)))
    own = []
    for place, choice in enumerate(choices):
        first, *rest = _checked(place, choice, text).pieces
        whole = text.tokens(RenderedPrompt((*before, last + first, *rest)))
        if whole[: len(prompt)] == prompt:
            ids = whole[len(prompt) :]
        else:
            ids = text.tokens(RenderedPrompt((last[len(stem) :] + first, *rest)))
        if not ids:
            raise BadRequest(f"choice {place}, {choice!r}, has no tokens of its own: expected at least one")
        own.append(np.array(ids, np.int32))
    return EncodedPrompt(text.with_start(prompt, bos), tuple(own))


def _checked(place: int, choice: str, text: ChatTokenizer) -> RenderedPrompt:
    if not isinstance(choice, str) or not choice:
        raise BadRequest(f"choice {place} is {choice!r}, expected a text that may follow the prompt")
    return text.as_data(choice)
