"""The guard between data and control tokens, while a chat template is rendered.

Text from a dataset is untrusted: a question that contains `<|img|>` or `<|im_end|>` must reach the model as those
plain characters. So control tokens inside texts are taken out before the template is rendered and put back, to be
tokenised as characters, after it.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

# Private-use characters that stand for a control token while the template is rendered. They are guarded
# themselves, so a text that contains them comes out unchanged too.
OPEN, CLOSE = "\U000f5a01", "\U000f5a02"
_MARK = re.compile(f"{OPEN}(\\d+){CLOSE}")
# What a template leaves of a mark that it cuts in two.
_RUIN = re.compile(f"{OPEN}\\d*|{CLOSE}")


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

    def first(self, num_characters: int) -> "RenderedPrompt":
        """Return what stands in its first characters."""
        ends = accumulate(map(len, self.pieces))
        return RenderedPrompt(
            tuple(p[: max(0, len(p) - end + num_characters)] for p, end in zip(self.pieces, ends, strict=True))
        )


class Guard:
    """The control tokens of a tokenizer, and how texts are kept from being taken for them."""

    def __init__(self, control: Sequence[str]) -> None:
        self._words = TokenFinder([*control, OPEN, CLOSE])
        self._begun = sorted(control)
        self._ended = sorted(word[::-1] for word in control)
        self._longest = max(map(len, control), default=0)

    def render(self, render: Callable[[Callable[[str], str]], str]) -> RenderedPrompt:
        """Render a prompt whose data is guarded.

        A control token may also come together of what several texts, or a text and the template, have of it. Then the
        ends of the texts are guarded too; not always, because a text that is cut elsewhere has other tokens.

        Args:
            render: Returns the prompt's text; it calls what it is given on each text that is data.
        """
        kept: list[str] = []
        ends: list[str] = []

        def whole(text: str) -> str:
            marked = self._words.replace(text, lambda word: _mark(kept, word))
            ends.extend(self._ends(marked))
            return marked

        prompt = _unmarked(render(whole), kept)
        if not any(ends):
            return prompt
        kept = []

        def with_ends(text: str) -> str:
            marked = self._words.replace(text, lambda word: _mark(kept, word))
            if marked.isidentifier():  # a word of JSON, which the template looks for; no control token begins as one
                return marked
            head, tail = self._ends(marked)
            if len(head) + len(tail) >= len(marked):
                return _mark(kept, marked) if marked else ""
            start = _mark(kept, head) if head else ""
            middle = marked[len(head) : len(marked) - len(tail)]
            return start + middle + (_mark(kept, tail) if tail else "")

        cut = _unmarked(render(with_ends), kept)
        return prompt if self._controls(cut) == self._controls(prompt) else cut

    def _controls(self, prompt: RenderedPrompt) -> list[str]:
        return [word for piece in prompt.pieces[::2] for word in self._words.find(piece)]

    def _ends(self, text: str) -> tuple[str, str]:
        """Return a text's longest beginning that ends a control token, and its longest end that begins one."""
        head = _longest_start(text[::-1], self._ended, self._longest)
        return head[::-1], _longest_start(text, self._begun, self._longest)


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text inside a value of JSON's kinds, names of fields too; anything else becomes its type's name.

    A template prints what it is given, and other objects have methods that its sandbox does not know.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_texts(name, change): map_texts(one, change) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(one, change) for one in value]
    return value if value is None or isinstance(value, bool | int | float) else f"<{type(value).__name__}>"


class TokenFinder:
    """Words to be found in texts: a family may have 33 thousand, too many for a regular expression that tries each."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = frozenset(words)
        self._lengths = sorted({len(word) for word in words}, reverse=True)
        self._starts = re.compile(f"[{''.join(re.escape(start) for start in sorted({word[0] for word in words}))}]")

    def find(self, text: str) -> list[str]:
        """Return the words in a text, from the left, the longest where several begin."""
        return [word for _, word in self._found(text)]

    def replace(self, text: str, change: Callable[[str], str]) -> str:
        """Replace each word that `find` returns."""
        pieces, done = [], 0
        for start, word in self._found(text):
            pieces += [text[done:start], change(word)]
            done = start + len(word)
        return "".join([*pieces, text[done:]])

    def _found(self, text: str) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        done = 0
        for match in self._starts.finditer(text):
            start = match.start()
            word = self._longest(text, start) if start >= done else None
            if word is not None:
                found.append((start, word))
                done = start + len(word)
        return found

    def _longest(self, text: str, start: int) -> str | None:
        candidates = (text[start : start + length] for length in self._lengths)
        return next((word for word in candidates if word in self._words), None)


def _longest_start(text: str, words: Sequence[str], longest: int) -> str:
    """Return the longest end of a text with which one of the sorted words begins and does not end."""
    for length in range(min(len(text), longest - 1), 0, -1):
        end = text[-length:]
        place = bisect_left(words, end)
        if place < len(words) and words[place] == end:
            place += 1
        if place < len(words) and words[place].startswith(end):
            return end
    return ""


def _mark(kept: list[str], word: str) -> str:
    kept.append(word)
    return f"{OPEN}{len(kept) - 1}{CLOSE}"


def _unmarked(text: str, kept: Sequence[str]) -> RenderedPrompt:
    parts = _MARK.split(text)
    return RenderedPrompt(tuple(kept[int(part)] if i % 2 else _RUIN.sub("", part) for i, part in enumerate(parts)))
