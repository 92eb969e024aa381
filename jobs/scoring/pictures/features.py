"""Bring pictures to a feature network that the user supplies, batch by batch, sized as published numbers want it.

It knows pictures and rows of numbers. The network itself, its weights and its normalisation of pixels are the user's:
any callable from a batch of pixels to one row of features a picture.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from jobs.scoring.pictures.fid import Moments

INCEPTION_SIDE = 299
CLIP_SIDE = 224


class Network(Protocol):
    """What turns a batch of pixels, (B, side, side, 3) of 0 to 255, into B rows of features."""

    def __call__(self, pixels: NDArray[np.float32]) -> ArrayLike:
        """Return one row a picture."""


def inception_pixels(picture: Image.Image) -> NDArray[np.float32]:
    """Resize an RGB picture for FID and KID: bicubic with antialiasing, neither rounded nor clipped after it.

    Source: clean-fid 0.1.35, resize.py, mode "clean". Other ways of resizing move FID by whole points.
    """
    sides = (INCEPTION_SIDE, INCEPTION_SIDE)
    channels = [
        Image.fromarray(np.asarray(channel, np.float32)).resize(sides, Image.Resampling.BICUBIC)
        for channel in picture.split()
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def clip_pixels(picture: Image.Image) -> NDArray[np.float32]:
    """Resize an RGB picture's short side to 224, bicubic, and cut out the middle: jmhessel/clipscore, clipscore.py."""
    width, height = picture.size
    short = min(width, height)
    wide, high = CLIP_SIDE * width // short, CLIP_SIDE * height // short
    resized = picture.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((wide - CLIP_SIDE) / 2), round((high - CLIP_SIDE) / 2)
    return np.asarray(resized.crop((left, top, left + CLIP_SIDE, top + CLIP_SIDE)), np.float32)


def features(pixels: Iterable[NDArray[np.float32]], network: Network, *, batch: int) -> Iterator[NDArray[np.float64]]:
    """Give the features of each batch of pictures, which are read as they are needed.

    Raises:
        ValueError: The network did not give one row a picture.
    """
    left = iter(pixels)
    while taken := list(islice(left, batch)):
        rows = np.asarray(network(np.stack(taken)), np.float64)
        if rows.ndim != 2 or len(rows) != len(taken):
            raise ValueError(
                f"found features of shape {rows.shape}, expected one row for each of {len(taken)} pictures"
            )
        yield rows


def moments(batches: Iterable[ArrayLike]) -> Moments:
    """Add up batches of features for FID; only one batch is in memory at a time."""
    added = Moments()
    for rows in batches:
        added.add(rows)
    return added
