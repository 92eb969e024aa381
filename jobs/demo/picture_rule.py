"""Say by rule, from the pixels alone, whether a drawn picture shows what its caption says.

Shapes are found by colour: each pixel counts as the nearest of the demo's eight colours and the picture's background.
Where a shape's edge is soft, its pixels may come nearest to a third colour; such rims are too thin to count.
"""

import re
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from jobs.demo.shapes import COLORS, KINDS, Shape, relation

CAPTION = re.compile(r"a (\w+) (\w+)(?: (left of|right of|above|below) a (\w+) (\w+))?")
# Pixels of a shape that have only their like around them; a rim has none, the smallest shapes of the demo 13 or more.
MIN_INSIDE = 12
# Share of its box that a shape covers: ideally 1, pi / 4 and 1 / 2.
MIN_OF_RECTANGLE, OF_CIRCLE, OF_TRIANGLE = 0.92, (0.68, 0.86), (0.38, 0.63)
# Share of its upper half in a shape: ideally 1 / 2, of a triangle 1 / 4.
EVEN, UNEVEN = (0.42, 0.58), (0.15, 0.36)
ROUND = 1.25  # longer side to shorter

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PictureVerdict:
    """What is right about a picture.

    Attributes:
        colors_right: Whether it shows shapes of the named colours, each once, and no others.
        relation_right: Whether they also lie as the caption says, along the axis on which they are further apart; None
            where it says nothing.
        kinds_right: Whether their outlines are also those of the named kinds; None where an outline has no known kind.
    """

    colors_right: bool
    relation_right: bool | None
    kinds_right: bool | None


def check_picture(pixels: NDArray[np.uint8], caption: str) -> PictureVerdict:
    """Compare a picture (height, width, 3) with its caption.

    Args:
        pixels: RGB.
        caption: Such as `a red circle`, or `a red circle left of a blue rectangle`.

    Raises:
        ValueError: The caption is worded otherwise.
    """
    names, position = read_caption(caption)
    all_shapes = find_shapes(pixels)
    # Of a spoilt picture with a dozen pieces there would be millions of orders.
    orders = permutations(all_shapes) if len(all_shapes) == len(names) else ()
    fitting = [order for order in orders if _has_colors(order, names)]
    if not fitting:
        return PictureVerdict(False, None if position is None else False, False)
    # Of two shapes of one colour, the kinds tell which is meant.
    shapes = max(fitting, key=lambda order: _num_right_kinds(order, names))
    are_kinds_known = all(shape.kind for shape in shapes)
    return PictureVerdict(
        colors_right=True,
        relation_right=None if position is None else relation(*shapes) == position,
        kinds_right=_num_right_kinds(shapes, names) == len(names) if are_kinds_known else None,
    )


def read_caption(caption: str) -> tuple[list[tuple[str, str]], str | None]:
    """Return the (colour, kind) of each shape that a caption names, and how the first lies to the second.

    Raises:
        ValueError: It is worded otherwise.
    """
    match = CAPTION.fullmatch(caption)
    first, second = (match.group(1, 2), match.group(4, 5)) if match else (("", ""), (None, None))
    names = [(str(color), str(kind)) for color, kind in (first, second) if color is not None]
    if match is None or not all(color in COLORS and kind in KINDS for color, kind in names):
        raise ValueError(f"found caption {caption!r}, expected such as 'a red circle left of a blue rectangle'")
    return names, match.group(3)


def find_shapes(pixels: NDArray[np.uint8]) -> list[Shape]:
    """Return the shapes of a picture; the kind of one that looks like none of them is empty."""
    nearest = _nearest(pixels)
    shapes = []
    for number, color in enumerate(COLORS):
        pieces, _ = ndimage.label(nearest == number)  # pixels of one piece touch along their sides
        for piece, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1):
            mask = pieces[rows, columns] == piece
            if ndimage.binary_erosion(mask, np.ones((3, 3))).sum() >= MIN_INSIDE:
                box = (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
                shapes.append(Shape(kind_of(mask), color, box))
    return shapes


def kind_of(mask: Mask) -> str:
    """Return the kind that a shape's outline looks like; empty if it looks like none. The mask is cut to the shape."""
    rows = mask.sum(1)
    half, middle = divmod(len(rows), 2)
    upper = (rows[:half].sum() + middle * rows[half] / 2) / rows.sum()
    fill, longer = float(mask.mean()), max(mask.shape) / min(mask.shape)
    if fill >= MIN_OF_RECTANGLE:
        return "rectangle"
    if _within(fill, OF_CIRCLE) and _within(upper, EVEN) and longer <= ROUND:
        return "circle"
    return "triangle" if _within(fill, OF_TRIANGLE) and _within(upper, UNEVEN) else ""


def _nearest(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the index in COLORS of what each pixel is nearest to; the index after the last is the background."""
    rim = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    colors = np.vstack([*COLORS.values(), np.median(rim, axis=0)])
    nearest: NDArray[np.int64] = np.square(pixels[:, :, None].astype(float) - colors).sum(-1).argmin(-1)
    return nearest


def _has_colors(shapes: tuple[Shape, ...], names: list[tuple[str, str]]) -> bool:
    return [shape.color for shape in shapes] == [color for color, _ in names]


def _num_right_kinds(shapes: tuple[Shape, ...], names: list[tuple[str, str]]) -> int:
    return sum(shape.kind == kind for shape, (_, kind) in zip(shapes, names, strict=True))


def _within(number: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= number <= limits[1]
