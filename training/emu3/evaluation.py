"""Count how many pictures a toy Emu3 draws right, by rule, and how well its VQ-VAE copies pictures."""

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from jobs.demo.picture_rule import check_picture
from jobs.demo.prompts import CODES_PER_SIDE
from models import ask
from models.emu3.vqvae import VqVae
from models.types import Request, Sampling
from training.emu3.codebook import Codebook
from training.emu3.vqvae import draw_batch
from training.evaluation import Result

# What draws best of what was tried, see the model card.
SAMPLING = Sampling(guidance_scale=1.2, temperature=0.5, top_k=64)
_COPIES = 32


def draw(folder: Path, captions: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Draw a picture (h, w, 3) for each caption; the n-th has the n-th seed."""
    requests = [
        Request(prompt=caption, grid=(CODES_PER_SIDE, CODES_PER_SIDE), sampling=replace(SAMPLING, seed=n))
        for n, caption in enumerate(captions)
    ]
    answers = ask(str(folder), requests, slots=64)
    return [np.asarray(Image.open(io.BytesIO(answer.image or b"")).convert("RGB")) for answer in answers]


def score_pictures(pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Iterator[Result]:
    """Compare pictures with their captions; a relation counts where the caption names one."""
    for picture, caption in zip(pictures, captions, strict=True):
        verdict = check_picture(picture, caption)
        yield "colours", verdict.colors_right
        yield "kinds", verdict.kinds_right is True
        if verdict.relation_right is not None:
            yield "relation", verdict.relation_right


@torch.inference_mode()
def score_copies(vqvae: VqVae, codebook: Codebook, rng: random.Random) -> tuple[float, float]:
    """Return the share of shapes' codes that the encoder finds, and the copies' ratio of signal to noise in dB."""
    pixels, codes = draw_batch(codebook, rng, _COPIES)
    encoded = vqvae.encode(pixels)
    is_shape = codes > 0
    noise = (vqvae.decode(encoded).clamp(-1, 1) - pixels).square().mean() / 4
    return float((encoded == codes)[is_shape].float().mean()), float(-10 * noise.log10())
