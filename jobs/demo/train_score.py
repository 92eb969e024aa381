"""Spell questions and answers in tokens, and count how many a model gets right of those it was not trained on.

The prompt is the processor's own, so what is learnt is what the jobs will ask. All questions about a picture share
its tokens: they stand in one row, and a mask keeps each from seeing the others (a test compares with asking alone).

Shapes: N pictures, Q image rows a picture, T tokens, W text width, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from jobs.demo import train_data
from jobs.demo.questions import NUMBERS, Pair, caption
from jobs.demo.scenes import COLORS, KINDS
from jobs.demo.train_data import Example
from models.aria.model import AriaModel
from models.engine.cache import Window
from models.types import Processor

END = "<|im_end|>"
_NOTHING = -100
_SCORED_TOGETHER = 25


class Apart(Window):
    """A window without a cache: tokens see each other under a mask, at positions of their own."""

    def __init__(self, positions: Tensor, mask: Tensor) -> None:
        self.positions = positions
        self.mask = mask

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return what was given: there is nothing before it."""
        return keys, values


@dataclass(frozen=True)
class Batch:
    """Questions and answers, one row per picture.

    Attributes:
        ids: int64 (N, T).
        targets: int64 (N, T), the id that should come next where it is an answer's, else below 0.
        turns: int64 (N, T), 0 for the picture's tokens, n for the n-th question, -1 for padding.
        positions: int64 (N, T), the place that a token has when its question is asked alone.
    """

    ids: Tensor
    targets: Tensor
    turns: Tensor
    positions: Tensor

    def scores(self, model: AriaModel, rows: Tensor) -> Tensor:
        """Return scores (answer tokens, V) of what comes next.

        Args:
            model: It is run with gradients if they are on.
            rows: Image features (N, Q, W).
        """
        embeddings = model.embed(self.ids)
        is_image = self.ids == model.config.image_token_index
        embeddings = embeddings.masked_scatter(is_image[..., None], rows)
        asking, seen = self.turns[:, :, None], self.turns[:, None, :]
        mask = ((seen == asking) | (seen == 0)).tril()[:, None]
        hidden = model.decode(embeddings, Apart(self.positions, mask))
        return model.logits(hidden[self.targets >= 0])


class Lines:
    """Spells questions and answers; each prompt is made once, by the processor."""

    def __init__(self, folder: Path, processor: Processor) -> None:
        self.processor = processor
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._picture = next(iter(train_data.load_held_out()[0].values()))  # any will do
        empty = processor.prepare(train_data.question_request("", self._picture))
        self.num_queries = empty.image_tokens
        ids = empty.token_ids.tolist()
        end = len(ids) - ids[::-1].index(self._tokenizer.token_to_id("<fim_suffix>"))
        self._shared: list[int] = ids[:end]
        self._prompts: dict[str, list[int]] = {}

    def batch(self, asked: Sequence[Sequence[Pair]]) -> Batch:
        """Spell the questions asked about each picture, with their answers."""
        rows = [self._row(pairs) for pairs in asked]
        longest = max(row.shape[1] for row in rows)
        padding = np.array([0, _NOTHING, -1, 0])[:, None]
        padded = [np.hstack([row, padding.repeat(longest - row.shape[1], 1)]) for row in rows]
        return Batch(*torch.from_numpy(np.stack(padded, axis=1)))

    def spelled(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens included."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def _row(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the four lines (4, T) of a batch for one picture."""
        start = len(self._shared)
        parts = [np.array([self._shared, [_NOTHING] * start, [0] * start, range(start)])]
        for turn, pair in enumerate(pairs, start=1):
            prompt, answer = self._prompt(pair.question), self._tokenizer.encode(pair.answer + END).ids
            ids = prompt[start:] + answer[:-1]
            targets = [_NOTHING] * (len(ids) - len(answer)) + answer
            parts.append(np.array([ids, targets, [turn] * len(ids), range(start, start + len(ids))]))
        return np.hstack(parts)

    def _prompt(self, question: str) -> list[int]:
        if question not in self._prompts:
            request = train_data.question_request(question, self._picture)
            self._prompts[question] = self.processor.prepare(request).token_ids.tolist()
        return self._prompts[question]


Verdict = tuple[str, bool]  # of one answer: its kind, and whether it is right


@torch.inference_mode()
def score_questions(model: AriaModel, lines: Lines) -> Iterator[Verdict]:
    """Answer all held-out questions of easy-VQA.

    An answer is right if the likeliest token is the right one at each of its places, its end included, which is
    when greedy decoding gives it.
    """
    pictures, questions = train_data.load_held_out()
    by_picture = defaultdict(list)
    for question in questions:
        by_picture[question.picture].append(question.pair)
    names = list(by_picture)
    for some in (names[i : i + _SCORED_TOGETHER] for i in range(0, len(names), _SCORED_TOGETHER)):
        tiles = [train_data.make_tile(pictures[name], lines.processor) for name in some]
        asked = [by_picture[name] for name in some]
        kinds = [answer_kind(pair.answer) for pairs in asked for pair in pairs]
        rows = model.encode(tiles, lines.num_queries)
        yield from zip(kinds, answers_right(model, rows, lines, asked), strict=True)


@torch.inference_mode()
def score_captions(model: AriaModel, lines: Lines, examples: Iterable[Example]) -> Iterator[Verdict]:
    """Caption scenes; a caption is right if it is so word for word."""
    for example in examples:
        rows = model.encode([example.tile], lines.num_queries)
        (is_right,) = answers_right(model, rows, lines, [[caption(example.scene)]])
        yield f"caption of {NUMBERS[len(example.scene.shapes)]}", is_right


def tally(verdicts: Iterable[Verdict]) -> str:
    """Say how many are right, by kind."""
    by_kind = defaultdict(list)
    for kind, is_right in verdicts:
        by_kind[kind].append(is_right)
    shares = {kind: f"{sum(those)}/{len(those)} = {sum(those) / len(those):.1%}" for kind, those in by_kind.items()}
    return ", ".join(f"{kind} {shares[kind]}" for kind in sorted(shares))


def answers_right(model: AriaModel, rows: Tensor, lines: Lines, asked: Sequence[Sequence[Pair]]) -> list[bool]:
    """Say of each question, picture by picture, whether greedy decoding gives its answer."""
    batch = lines.batch(asked)
    is_answer = batch.targets >= 0
    is_wrong = torch.zeros_like(is_answer)
    is_wrong[is_answer] = batch.scores(model, rows).argmax(-1) != batch.targets[is_answer]
    turns = [(place, turn) for place, pairs in enumerate(asked) for turn in range(1, len(pairs) + 1)]
    return [not is_wrong[place][batch.turns[place] == turn].any() for place, turn in turns]


def answer_kind(answer: str) -> str:
    """Name the kind of an easy-VQA answer: yes/no, shape or color."""
    if answer in KINDS:
        return "shape"
    return "color" if answer in COLORS else "yes/no"
