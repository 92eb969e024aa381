"""What each code of a toy Emu3 stands for, fixed before the training: a colour and a pattern of cover.

On a plain ground, 8 x 8 pixels are described by how much of each pixel a shape covers, and by the shape's colour. The
patterns are those of many drawn scenes, each in every colour. Code 0 is the bare ground. So what the VQ-VAE
encodes and decodes, and what the language model writes, can be trained apart, each on pictures without end.

Shapes: N pictures, H x W codes of a picture, K patterns, Q pixels of a code, E width of a code.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.demo.prompts import CODE_SIDE, CODES_PER_SIDE, SIDE
from jobs.demo.shapes import COLORS
from training.scenes import LARGE_GROUND, Scene, draw_large_scene

WIDTH = 16  # of a code: the colour, then its pattern's main directions
COLOR_WEIGHT = 2.0
SCENES = 1_500
# Patterns that differ by less, in whole pixels squared, are one: colours round a little differently.
MIN_DISTANCE = 0.1

Cover = NDArray[np.float32]


@dataclass(frozen=True)
class Codebook:
    """The meaning of all codes.

    Attributes:
        patterns: (K + 1, Q), from 0 to 1; the first is empty.
    """

    patterns: Cover

    @property
    def num_codes(self) -> int:
        """Patterns in all colours, and the bare ground."""
        return 1 + (len(self.patterns) - 1) * len(COLORS)

    def parts(self, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the patterns of codes, and the indices of their colours in COLORS."""
        count = len(self.patterns) - 1
        return np.where(codes == 0, 0, (codes - 1) % count + 1), np.where(codes == 0, 0, (codes - 1) // count)

    def codes(self, scenes: Sequence[Scene]) -> NDArray[np.int64]:
        """Return the codes (N, H, W) that say best what scenes show."""
        covers, colors = zip(*map(cover_of, scenes), strict=True)
        color = np.stack(colors)
        flat = np.stack(covers).reshape(-1, CODE_SIDE**2)
        distances = (self.patterns**2).sum(1) - 2 * flat @ self.patterns.T
        pattern = distances.argmin(1).reshape(color.shape)
        return np.where(pattern == 0, 0, color * (len(self.patterns) - 1) + pattern)

    def vectors(self) -> NDArray[np.float32]:
        """Return the vector of each code (codes, E): near vectors look alike."""
        centred = self.patterns - self.patterns.mean(0)
        _, _, directions = np.linalg.svd(centred, full_matrices=False)
        along = centred @ directions[: WIDTH - 3].T
        along /= along.std(0) ** 0.5  # fine differences count more than their size says
        along /= along.std()
        colors = (np.array(list(COLORS.values())) / 127.5 - 1) * COLOR_WEIGHT
        bare = np.append(np.array(LARGE_GROUND) / 127.5 - 1, along[0])
        rows = [np.append(color, pattern) for color in colors for pattern in along[1:]]
        return np.stack([bare, *rows]).astype(np.float32)


def build_codebook(rng: random.Random) -> Codebook:
    """Collect the patterns of drawn scenes."""
    covers = np.concatenate([cover_of(draw_large_scene(rng))[0].reshape(-1, CODE_SIDE**2) for _ in range(SCENES)])
    patterns = np.zeros((1, CODE_SIDE**2), np.float32)
    for cover in np.unique(covers[covers.any(1)], axis=0):
        if ((patterns - cover) ** 2).sum(1).min() > MIN_DISTANCE:
            patterns = np.vstack([patterns, cover])
    return Codebook(patterns)


def cover_of(scene: Scene) -> tuple[Cover, NDArray[np.int64]]:
    """Return how much of each pixel a shape covers (H, W, Q), and the index of its colour in COLORS (H, W)."""
    pixels = np.asarray(scene.picture).astype(np.float32) - LARGE_GROUND
    cover, color = np.zeros((SIDE, SIDE), np.float32), np.zeros((CODES_PER_SIDE, CODES_PER_SIDE), np.int64)
    for shape in scene.shapes:
        left, top, right, bottom = (int(edge) for edge in shape.box)
        cells = slice(top // CODE_SIDE, -(-bottom // CODE_SIDE)), slice(left // CODE_SIDE, -(-right // CODE_SIDE))
        region = tuple(slice(cut.start * CODE_SIDE, cut.stop * CODE_SIDE) for cut in cells)
        full = np.array(COLORS[shape.color], np.float32) - LARGE_GROUND
        cover[region] = (pixels[region] @ full / (full @ full)).clip(0, 1)
        color[cells] = list(COLORS).index(shape.color)
    grid = cover.reshape(CODES_PER_SIDE, CODE_SIDE, CODES_PER_SIDE, CODE_SIDE).transpose(0, 2, 1, 3)
    return grid.reshape(CODES_PER_SIDE, CODES_PER_SIDE, CODE_SIDE**2), color
