"""The pictures that a toy Emu3 learns to draw: one or two large shapes on one pale ground, with what they are called.

A code stands for 8 x 8 pixels, and there are a few hundred of them. So that they can hold every outline sharply,
shapes are larger than easy-VQA's and fill whole codes but for a narrow rim, and the ground is always the same. Nothing
here knows the model.
"""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.demo.questions import OPPOSITE
from jobs.demo.scenes import COLORS, KINDS, Scene, Shape, paint, relation

SIDE = 64
PATCH = 8  # pixels along the side of a code
CELLS = SIDE // PATCH
GROUND = (244, 244, 244)
RIM = 1  # pixels between a shape and the codes around it
SIZES = (3, 4)  # in codes
RECTANGLE_SIZES = (2, 3, 4)
TRIANGLE_HEIGHTS = {3: 19, 4: 26}  # equilateral, as jobs.demo.scenes has them
PAIR_SHARE = 0.75
# Two shapes lie so much further apart along one axis than along the other that nobody argues which it is.
PLAIN = 1.6
SWAP_SHARE = 0.5
HELD_OUT = 10  # one of so many pairs of shapes is never shown to the pupil


def draw_large_scene(rng: random.Random, num_shapes: int | None = None) -> Scene:
    """Draw one or two shapes, more often two; two lie plainly beside or above each other."""
    number = num_shapes or (2 if rng.random() < PAIR_SHARE else 1)
    shapes = [_shape(rng) for _ in range(number)]
    while number == 2 and not _are_plain(*shapes):
        shapes = [_shape(rng), _shape(rng)]
    if number == 2 and relation(*shapes) in ("right of", "below"):
        shapes = shapes[::-1]
    return paint(tuple(shapes), (SIDE, SIDE), GROUND)


def describe(scene: Scene, rng: random.Random) -> str:
    """Say what a scene shows, as jobs.demo.questions does; of two shapes either is named first."""
    names = [shape.name for shape in scene.shapes]
    if len(names) == 1:
        return f"a {names[0]}"
    place = relation(*scene.shapes)
    if rng.random() < SWAP_SHARE:
        names, place = names[::-1], OPPOSITE[place]
    return f"a {names[0]} {place} a {names[1]}"


def pixels_of(scenes: Sequence[Scene]) -> NDArray[np.uint8]:
    """Return pictures (N, SIDE, SIDE, 3)."""
    return np.stack([np.asarray(scene.picture) for scene in scenes])


def _shape(rng: random.Random) -> Shape:
    kind, color = rng.choice(KINDS), rng.choice(list(COLORS))
    wide = high = rng.choice(SIZES)
    if kind == "rectangle":
        wide, high = rng.choice(RECTANGLE_SIZES), rng.choice(RECTANGLE_SIZES)
    left, top = rng.randrange(CELLS - wide + 1) * PATCH + RIM, rng.randrange(CELLS - high + 1) * PATCH + RIM
    right, bottom = left + wide * PATCH - 2 * RIM, top + high * PATCH - 2 * RIM
    if kind == "triangle":
        top += (bottom - top - TRIANGLE_HEIGHTS[high]) // 2
        bottom = top + TRIANGLE_HEIGHTS[high]
    return Shape(kind, color, (left, top, right, bottom))


def _are_plain(first: Shape, second: Shape) -> bool:
    """Whether two shapes have different names, a code of ground between them, and lie plainly beside or above."""
    if first.name == second.name:
        return False
    gaps = [max(first.box[i] - second.box[i + 2], second.box[i] - first.box[i + 2]) for i in (0, 1)]
    apart = [abs(one - other) for one, other in zip(first.center, second.center, strict=True)]
    far, near = (0, 1) if apart[0] >= apart[1] else (1, 0)
    return gaps[far] >= PATCH and apart[far] >= PLAIN * apart[near]


def is_held_out(scene: Scene) -> bool:
    """Whether a scene shows two shapes that are kept for measuring, in whatever order and place."""
    places = [KINDS.index(shape.kind) + len(KINDS) * list(COLORS).index(shape.color) for shape in scene.shapes]
    return len(places) == 2 and sum(places) % HELD_OUT == 0
