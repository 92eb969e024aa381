"""Count how many pictures a toy Emu3 draws right, by rule, and how well its VQ-VAE copies. Knows no training."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from jobs.demo.picture_rule import check_picture
from jobs.demo.prompts import CODES_PER_SIDE, held_out_captions
from models import ask
from models.emu3.vqvae import VqVae
from models.types import Request, Sampling
from training.emu3.book import Book
from training.emu3.codec import lesson

# What draws best of what was tried, see the model card.
SAMPLING = Sampling(guidance_scale=1.2, temperature=0.5, top_k=64)
_COPIED = 32


@dataclass(frozen=True)
class Tally:
    """How many of some pictures are right."""

    pictures: int
    colors: int
    relations: int
    kinds: int
    with_relation: int

    def __str__(self) -> str:
        told = (
            ("colours", self.colors, self.pictures),
            ("relation", self.relations, self.with_relation),
            ("kinds", self.kinds, self.pictures),
        )
        return ", ".join(f"{name} {right}/{of} = {right / of:.1%}" for name, right, of in told if of)


def new_captions(rng: random.Random, number: int) -> list[str]:
    """Describe scenes of two shapes that no training shows together."""
    return list(islice(held_out_captions(rng), number))


def draw(folder: Path, captions: Sequence[str], sampling: Sampling, slots: int = 64) -> list[NDArray[np.uint8]]:
    """Draw a picture (h, w, 3) for each caption; the n-th has the n-th seed."""
    requests = [
        Request(prompt=caption, grid=(CODES_PER_SIDE, CODES_PER_SIDE), sampling=replace(sampling, seed=n))
        for n, caption in enumerate(captions)
    ]
    answers = ask(str(folder), requests, slots=slots)
    return [np.asarray(Image.open(io.BytesIO(answer.image or b"")).convert("RGB")) for answer in answers]


def tally(pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Tally:
    """Compare pictures with their captions."""
    found = [check_picture(picture, caption) for picture, caption in zip(pictures, captions, strict=True)]
    return Tally(
        pictures=len(found),
        colors=sum(one.colors_right for one in found),
        relations=sum(one.relation_right is True for one in found),
        kinds=sum(one.kinds_right is True for one in found),
        with_relation=sum(one.relation_right is not None for one in found),
    )


@torch.inference_mode()
def copies(codec: VqVae, book: Book, rng: random.Random) -> tuple[float, float]:
    """Return the share of shapes' codes that are named as in the book, and the ratio of signal to noise of copies."""
    pixels, codes = lesson(book, rng, _COPIED)
    named = codec.encode(pixels)
    is_shape = codes > 0
    noise = (codec.decode(named).clamp(-1, 1) - pixels).square().mean() / 4
    return float((named == codes)[is_shape].float().mean()), float(-10 * noise.log10())
