"""Train a toy Emu3's language model to write the codes of a picture behind its description.

The prompt is the processor's own, so what is learnt is what the jobs will ask. Some prompts are empty: what is written
then is what guidance moves away from.

Shapes: N pictures, T tokens, V vocabulary, D width, K codes.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from jobs.demo.prompts import CODES_PER_SIDE, describe, is_held_out
from jobs.demo.shapes import COLORS
from models.emu3.model import Emu3Model
from models.types import Processor, Request
from training.emu3.codebook import Codebook
from training.optimizer import minimize
from training.scenes import Scene, draw_large_scene
from training.weights import fill_weights, usual_initial

PICTURES = 8  # per step
EMPTY_SHARE = 0.1
_IGNORED = -100


class DrawingBatcher:
    """Puts pictures behind their descriptions, in tokens; each prompt is made once, by the processor."""

    def __init__(self, processor: Processor, model: Emu3Model, codebook: Codebook) -> None:
        """Keep the processor, which makes prompts, and the ids of the model's picture tokens."""
        assert model.config.vocabulary is not None
        self.codebook = codebook
        self._processor = processor
        self._vocabulary = model.config.vocabulary
        self._end = min(model.config.eos_token_ids)
        self._prompts: dict[str, list[int]] = {}

    def batch(self, texts: Sequence[str], scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
        """Return ids and what comes next (N, T), the latter below 0 where it is not to be learnt."""
        rows = [self.prompt(text) for text in texts]
        pictures = self._pictures(self.codebook.codes(scenes))
        longest = max(map(len, rows)) + pictures.shape[1]
        ids = np.zeros((len(rows), longest), np.int64)
        targets = np.full((len(rows), longest), _IGNORED, np.int64)
        for n, (prompt, picture) in enumerate(zip(rows, pictures, strict=True)):
            start, stop = len(prompt), len(prompt) + len(picture)
            ids[n, :stop] = [*prompt, *picture]
            targets[n, start - 1 : stop - 1] = picture
        return torch.from_numpy(ids), torch.from_numpy(targets)

    def prompt(self, text: str) -> list[int]:
        """Return the ids of the prompt that asks for a picture of a text."""
        if text not in self._prompts:
            request = Request(prompt=text, grid=(CODES_PER_SIDE, CODES_PER_SIDE))
            self._prompts[text] = self._processor.prepare(request).token_ids.tolist()
        return self._prompts[text]

    def _pictures(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        ids = self._vocabulary
        lines = np.pad(codes + ids.first_visual, ((0, 0), (0, 0), (0, 1)), constant_values=ids.end_of_line)
        closing = np.tile([ids.end_of_frame, ids.image_end, self._end], (len(codes), 1))
        return np.hstack([lines.reshape(len(codes), -1), closing])


def init_language_model(model: Emu3Model, codebook: Codebook, generator: torch.Generator) -> None:
    """Give the language model its initial weights: codes of one colour or one pattern begin alike."""
    decoder, vocabulary = model.decoder, model.config.vocabulary
    assert vocabulary is not None
    fill_weights(decoder, usual_initial, generator)
    pattern, color = codebook.parts(np.arange(codebook.num_codes))
    color[0] = len(COLORS)  # bare ground is like no colour
    parts = torch.from_numpy(pattern), torch.from_numpy(color)
    codes = slice(vocabulary.first_visual, vocabulary.first_visual + vocabulary.num_visual)
    with torch.no_grad():
        for table in (decoder.model.embed_tokens.weight, decoder.lm_head.weight):
            spread = (2 * table.shape[1]) ** -0.5
            vectors = [torch.randn(int(part.max()) + 1, table.shape[1], generator=generator) for part in parts]
            table[codes] = spread * sum(vector[part] for vector, part in zip(vectors, parts, strict=True))


def train_language_model(model: Emu3Model, batcher: DrawingBatcher, rng: random.Random, steps: int) -> None:
    """Train the language model to write pictures."""

    def loss(_: float) -> Tensor:
        scenes = [_training_scene(rng) for _ in range(PICTURES)]
        texts = ["" if rng.random() < EMPTY_SHARE else describe(scene.shapes, rng) for scene in scenes]
        return next_token_loss(model, *batcher.batch(texts, scenes))

    minimize([{"params": list(model.decoder.parameters())}], loss, steps, "language")


def next_token_loss(model: Emu3Model, ids: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of writing pictures; padding stands behind them, where no token sees it."""
    hidden = model.decode(model.embed(ids))
    is_target = targets >= 0
    return F.cross_entropy(model.logits(hidden[is_target]), targets[is_target])


def _training_scene(rng: random.Random) -> Scene:
    while is_held_out((scene := draw_large_scene(rng)).shapes):
        pass
    return scene
