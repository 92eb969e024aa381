"""Draw pictures of plain shapes, and say which shape covers which pixel.

Captions and questions follow from the shapes alone (training/questions.py). Scenes of easy-VQA's own pictures are made
in training/dataset.py. Nothing here knows a model.
"""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jobs.demo.prompts import in_reading_order, large_shapes
from jobs.demo.shapes import COLORS, KINDS, Box, Shape

SIDE = 64  # of an easy-VQA picture, and of the pictures of large shapes
# Shapes are drawn this much larger and shrunk, which softens their edges as easy-VQA's are.
_FINE = 4
_ODD_SHARE = 0.15
LARGE_GROUND = (244, 244, 244)  # behind large shapes


@dataclass(frozen=True)
class Scene:
    """A picture and what it shows.

    Attributes:
        picture: RGB.
        shapes: One or two, in the order of the caption.
        owner: uint8 (height, width): 0 for background, n for a pixel of the n-th shape.
    """

    picture: Image.Image
    shapes: tuple[Shape, ...]
    owner: NDArray[np.uint8]


def draw_scene(rng: random.Random, num_shapes: int) -> Scene:
    """Draw one or two shapes on a pale background; two lie clearly beside or above each other."""
    width, height = _size(rng)
    shapes = shapes_in(rng, _boxes(rng, num_shapes, width, height))
    red, green, blue = (rng.randint(225, 255) for _ in range(3))
    return paint(shapes, (width, height), (red, green, blue))


def draw_large_scene(rng: random.Random, num_shapes: int | None = None) -> Scene:
    """Draw one or two of the large shapes that the toy Emu3 learns, more often two, always on the same ground."""
    return paint(large_shapes(rng, num_shapes), (SIDE, SIDE), LARGE_GROUND)


def shapes_in(rng: random.Random, boxes: list[Box]) -> tuple[Shape, ...]:
    """Put a shape into each of one or two boxes; their names differ, and first is the one that lies left or above."""
    shapes = [_shape(rng, box) for box in boxes]
    while len({shape.name for shape in shapes}) < len(shapes):
        shapes = [_shape(rng, box) for box in boxes]
    return tuple(in_reading_order(shapes))


def paint(shapes: tuple[Shape, ...], size: tuple[int, int], ground: tuple[int, int, int]) -> Scene:
    """Paint shapes, later ones over earlier ones, on a ground of one colour; `size` is width and height."""
    fine = (size[0] * _FINE, size[1] * _FINE)
    picture, owner = Image.new("RGB", fine, ground), Image.new("L", fine)
    for number, shape in enumerate(shapes, start=1):
        _paint(ImageDraw.Draw(picture), shape, COLORS[shape.color])
        _paint(ImageDraw.Draw(owner), shape, number)
    return Scene(picture.reduce(_FINE), shapes, np.asarray(owner.resize(size, Image.Resampling.NEAREST)))


def _size(rng: random.Random) -> tuple[int, int]:
    """Return width and height: mostly easy-VQA's, now and then another size or an oblong."""
    if rng.random() >= _ODD_SHARE:
        return SIDE, SIDE
    longer = rng.choice((32, 48, 64, 80, 96))
    shorter = longer * rng.choice((5, 6, 8)) // 8
    return (longer, shorter) if rng.random() < 0.5 else (shorter, longer)


def _boxes(rng: random.Random, num_shapes: int, width: int, height: int) -> list[Box]:
    if num_shapes == 1:
        return [_box(rng, (0, 0, width, height))]
    # A gap between the halves keeps the relation plain to see.
    if rng.random() < width / (width + height):
        cut, gap = width * rng.uniform(0.4, 0.6), width * 0.03
        return [_box(rng, (0, 0, cut - gap, height)), _box(rng, (cut + gap, 0, width, height))]
    cut, gap = height * rng.uniform(0.4, 0.6), height * 0.03
    return [_box(rng, (0, 0, width, cut - gap)), _box(rng, (0, cut + gap, width, height))]


def _box(rng: random.Random, room: Box) -> Box:
    """Return a box inside `room`: from an eighth to about half of easy-VQA's side wide, as easy-VQA's shapes are."""
    left, top, right, bottom = room
    wide, high = (min(rng.uniform(9, 33), length) for length in (right - left, bottom - top))
    x, y = left + rng.uniform(0, right - left - wide), top + rng.uniform(0, bottom - top - high)
    return x, y, x + wide, y + high


def _shape(rng: random.Random, box: Box) -> Shape:
    kind = rng.choice(KINDS)
    left, top, right, bottom = box
    if kind != "rectangle":
        # Circles are round and triangles equilateral, point up: they shrink into their box.
        ratio = 1.0 if kind == "circle" else 3**0.5 / 2
        wide = min(right - left, (bottom - top) / ratio)
        right, bottom = left + wide, top + wide * ratio
    return Shape(kind, rng.choice(list(COLORS)), (left, top, right, bottom))


def _paint(draw: ImageDraw.ImageDraw, shape: Shape, ink: int | tuple[int, int, int]) -> None:
    left, top, right, bottom = (edge * _FINE for edge in shape.box)
    match shape.kind:
        case "circle":
            draw.ellipse((left, top, right - 1, bottom - 1), fill=ink)
        case "rectangle":
            draw.rectangle((left, top, right - 1, bottom - 1), fill=ink)
        case "triangle":
            draw.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=ink)
        case kind:
            raise ValueError(f"cannot draw a {kind!r}; the kinds are {', '.join(KINDS)}")
