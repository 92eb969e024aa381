"""Turn questions and answers into batches of tokens, many questions to a picture.

The prompt is the processor's own, so what is learnt is what the jobs will ask. All questions about a picture share
its tokens: they form one row, and a mask keeps each from attending to the others. A test compares with asking alone.

Shapes: N pictures, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.cache.memory import MemoryView
from models.cache.slots import CacheView
from models.layers import attend
from models.types import Processor
from training.dataset import load_held_out, question_request
from training.questions import Pair

_IGNORED = -100


class MaskedView(CacheView):
    """A view without a cache: tokens see each other under a mask, at positions of their own."""

    def __init__(self, positions: Tensor, mask: Tensor, view: MemoryView | None) -> None:
        self.positions = positions
        self.mask = mask
        self.memory = view
        self._ends = self._rows = None  # nothing is read in place

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend to the given keys: there is nothing before them."""
        return attend(query, keys, values, self.mask)


@dataclass(frozen=True)
class QuestionBatch:
    """Questions and answers, one row per picture.

    Attributes:
        ids: int64 (N, T).
        targets: int64 (N, T), the id that should come next where it is an answer's, else below 0.
        question_of: int64 (N, T), 0 for the picture's tokens, n for the n-th question, -1 for padding.
        positions: int64 (N, T), a token's position when its question is asked alone.
    """

    ids: Tensor
    targets: Tensor
    question_of: Tensor
    positions: Tensor

    @property
    def is_answer(self) -> Tensor:
        """Bool (N, T), where the next token belongs to an answer."""
        return self.targets >= 0

    def cache_view(self, view: MemoryView | None = None) -> MaskedView:
        """Return the view in which each question sees its picture's tokens and itself."""
        query, key = self.question_of[:, :, None], self.question_of[:, None, :]
        mask = ((key == query) | (key == 0)).tril()[:, None]
        return MaskedView(self.positions[..., None], mask, view)


class QuestionBatcher:
    """Makes batches of questions and answers; each prompt is made once, by the processor."""

    def __init__(self, folder: Path, processor: Processor, picture_end: str, answer_end: str) -> None:
        """Learn what is common to all prompts.

        Args:
            folder: For its tokenizer.
            processor: Makes the prompts.
            picture_end: The last token that belongs to the picture.
            answer_end: The token that ends an answer.
        """
        self.processor = processor
        self._end = answer_end
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._picture = next(iter(load_held_out()[0].values()))  # any will do
        ids = processor.prepare(question_request("", self._picture)).token_ids.tolist()
        shared = len(ids) - ids[::-1].index(self._tokenizer.token_to_id(picture_end))
        self._shared: list[int] = ids[:shared]
        self._prompts: dict[str, list[int]] = {}

    def batch(self, pairs_of_pictures: Sequence[Sequence[Pair]]) -> QuestionBatch:
        """Put the questions about each picture, with their answers, into one row."""
        rows = [self._row(pairs) for pairs in pairs_of_pictures]
        longest = max(row.shape[1] for row in rows)
        padding = np.array([0, _IGNORED, -1, 0])[:, None]
        padded = [np.hstack([row, padding.repeat(longest - row.shape[1], 1)]) for row in rows]
        return QuestionBatch(*torch.from_numpy(np.stack(padded, axis=1)))

    def _row(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the four rows (4, T) of a batch for one picture."""
        start = len(self._shared)
        parts = [np.array([self._shared, [_IGNORED] * start, [0] * start, range(start)])]
        for number, pair in enumerate(pairs, start=1):
            prompt = self._prompt(pair.question)
            answer = self._tokenizer.encode(pair.answer + self._end, add_special_tokens=False).ids
            ids = prompt[start:] + answer[:-1]
            targets = [_IGNORED] * (len(ids) - len(answer)) + answer
            parts.append(np.array([ids, targets, [number] * len(ids), range(start, start + len(ids))]))
        return np.hstack(parts)

    def _prompt(self, question: str) -> list[int]:
        if question not in self._prompts:
            request = question_request(question, self._picture)
            self._prompts[question] = self.processor.prepare(request).token_ids.tolist()
        return self._prompts[question]
