"""Texts for the toy Emu3 to draw: descriptions of two large shapes that no training picture showed together.

One code of the toy stands for 8 x 8 pixels, and there are a few hundred codes. So that they can show every outline
sharply, shapes are larger than easy-VQA's and fill whole codes but for a narrow rim. The training draws the same kind
of shapes; this file only describes them.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo.picture_rule import read_caption
from jobs.demo.shapes import COLORS, KINDS, OPPOSITE, Shape, relation

NUM_PROMPTS = 64
_SEED = 20_000

SIDE = 64  # of a picture, in pixels
CODE_SIDE = 8  # pixels along the side of a code
CODES_PER_SIDE = SIDE // CODE_SIDE
RIM = 1  # pixels between a shape and the codes around it
SIZES = (3, 4)  # in codes
RECTANGLE_SIZES = (2, 3, 4)
TRIANGLE_HEIGHTS = {3: 19, 4: 26}  # in pixels; equilateral
PAIR_SHARE = 0.75
# Two shapes lie so much further apart along one axis than along the other that the relation is plain.
MIN_AXIS_RATIO = 1.6
SWAP_SHARE = 0.5
HELD_OUT = 10  # one of so many pairs of shapes is kept out of the training


def write_prompts(folder: Path, number: int) -> None:
    """Write a Parquet shard: `text`, and of each text the `first` and the `second` shape that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"key": f"{index:02d}", "text": text, **_shapes_named(text)} for index, text in enumerate(prompts(number))]
    pq.write_table(pa.Table.from_pylist(rows), folder / "prompts-000.parquet")


def _shapes_named(text: str) -> dict[str, str]:
    names, _ = read_caption(text)
    return dict(zip(("first", "second"), (" ".join(name) for name in names), strict=True))


def prompts(number: int) -> list[str]:
    """Return this many different texts; a longer list begins with the shorter ones."""
    captions = held_out_captions(random.Random(_SEED))
    texts: dict[str, None] = {}
    while len(texts) < number:
        texts[next(captions)] = None
    return list(texts)


def held_out_captions(rng: random.Random) -> Iterator[str]:
    """Describe pairs of shapes that were kept out of the training, without end; texts may repeat."""
    while True:
        shapes = large_shapes(rng, 2)
        if is_held_out(shapes):
            yield describe(shapes, rng)


def large_shapes(rng: random.Random, num_shapes: int | None = None) -> tuple[Shape, ...]:
    """Choose one or two shapes and where they lie, more often two; the one on the left or above comes first."""
    number = num_shapes or (2 if rng.random() < PAIR_SHARE else 1)
    shapes = [_large_shape(rng) for _ in range(number)]
    while number == 2 and not _lie_plainly(*shapes):
        shapes = [_large_shape(rng), _large_shape(rng)]
    return tuple(in_reading_order(shapes))


def in_reading_order(shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Order two shapes so that the one on the left or above comes first."""
    return shapes[::-1] if len(shapes) == 2 and relation(*shapes) in ("right of", "below") else shapes


def describe(shapes: Sequence[Shape], rng: random.Random) -> str:
    """Say which shapes there are, in the words of captions; either of two is named first."""
    names = [shape.name for shape in shapes]
    if len(names) == 1:
        return f"a {names[0]}"
    position = relation(*shapes)
    if rng.random() < SWAP_SHARE:
        names, position = names[::-1], OPPOSITE[position]
    return f"a {names[0]} {position} a {names[1]}"


def is_held_out(shapes: Sequence[Shape]) -> bool:
    """Whether these are two shapes that are kept for measuring, in whatever order and position."""
    numbers = [KINDS.index(shape.kind) + len(KINDS) * list(COLORS).index(shape.color) for shape in shapes]
    return len(numbers) == 2 and sum(numbers) % HELD_OUT == 0


def _large_shape(rng: random.Random) -> Shape:
    kind, color = rng.choice(KINDS), rng.choice(list(COLORS))
    wide = high = rng.choice(SIZES)
    if kind == "rectangle":
        wide, high = rng.choice(RECTANGLE_SIZES), rng.choice(RECTANGLE_SIZES)
    left = rng.randrange(CODES_PER_SIDE - wide + 1) * CODE_SIDE + RIM
    top = rng.randrange(CODES_PER_SIDE - high + 1) * CODE_SIDE + RIM
    right, bottom = left + wide * CODE_SIDE - 2 * RIM, top + high * CODE_SIDE - 2 * RIM
    if kind == "triangle":
        top += (bottom - top - TRIANGLE_HEIGHTS[high]) // 2
        bottom = top + TRIANGLE_HEIGHTS[high]
    return Shape(kind, color, (left, top, right, bottom))


def _lie_plainly(first: Shape, second: Shape) -> bool:
    """Whether two shapes have different names, a code of ground between them, and lie plainly beside or above."""
    if first.name == second.name:
        return False
    gaps = [max(first.box[i] - second.box[i + 2], second.box[i] - first.box[i + 2]) for i in (0, 1)]
    apart = [abs(a - b) for a, b in zip(first.center, second.center, strict=True)]
    far, near = (0, 1) if apart[0] >= apart[1] else (1, 0)
    return gaps[far] >= CODE_SIDE and apart[far] >= MIN_AXIS_RATIO * apart[near]
