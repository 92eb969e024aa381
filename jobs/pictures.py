"""What a row of `synthesize` asks for, read strictly from its columns: size, guidance, seed, how many pictures.

Values may be numbers or, from CSV, texts; it knows nothing of where they were read and how pictures are drawn.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from models.emu3.grid import PIXELS_PER_CODE, Grid
from models.images import LIMIT_PIXELS
from models.sampling import MOST_GUIDANCE, NUM_SEEDS
from models.types import BadRequest

# Columns by which a row says something of its own.
COLUMNS = ("ratio", "area", "negative_prompt", "guidance_scale", "num_images", "seed")

# All pictures of a row travel together, at least as one unit and one part, and a process holds a few units at once: at
# 0.7 MB a PNG of 720 x 720 these are 45 MB.
MOST_IMAGES = 64

# Pixels of a side that a file format holds, as far as its encoder goes; PNG has no such limit.
MOST_SIDE = {"jpeg": 65_500, "webp": 16_383}


def read_column(row: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return what a row says in one of COLUMNS; the default where it says nothing: null, or a blank text.

    A blank negative prompt says something: that there is nothing to move away from.

    Raises:
        BadRequest: The value is not what the column holds.
    """
    value = row.get(name)
    if value is None or (name != "negative_prompt" and isinstance(value, str) and not value.strip()):
        return default
    match name:
        case "guidance_scale":
            return _number(value, name, -MOST_GUIDANCE, MOST_GUIDANCE)
        case "area":
            return _whole(value, name, 1, LIMIT_PIXELS)
        case "num_images":
            return _whole(value, name, 1, MOST_IMAGES)
        case "seed":
            return _whole(value, name, 0, NUM_SEEDS - 1)
        case _:
            return _text(value, name)


def check_fits(grid: Grid, image_format: str) -> None:
    """Check that a picture can be encoded, before it is drawn.

    Raises:
        BadRequest: A side has more pixels than a file of that format.
    """
    width, height = grid.columns * PIXELS_PER_CODE, grid.rows * PIXELS_PER_CODE
    most = MOST_SIDE.get(image_format)
    if most is not None and max(width, height) > most:
        raise BadRequest(
            f"found a picture of {width} x {height} pixels, expected at most {most} on a side in {image_format}"
        )


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _bad_column(name, value, "text")
    return value


def _number(value: Any, name: str, least: int, most: int) -> float:
    number = _decimal(value)
    if number is None or not least <= number <= most:
        raise _bad_column(name, value, f"a number from {least} to {most}")
    return float(number)


def _whole(value: Any, name: str, least: int, most: int) -> int:
    number = _decimal(value)
    # The bounds come first: a text of ten characters can stand for a number of a billion digits.
    if number is None or not least <= number <= most or number != int(number):
        raise _bad_column(name, value, f"a whole number from {least} to {most}")
    return int(number)


def _decimal(value: Any) -> Decimal | None:
    """Read a number exactly, which a float cannot do for large seeds; None for what is none, NaN and infinity."""
    if not isinstance(value, int | float | Decimal | str):
        return None
    try:
        number = Decimal(str(value))  # of a truth value it is a word, and no number
    except InvalidOperation:
        return None
    return number if number.is_finite() and "_" not in str(value) else None


def _bad_column(name: str, value: Any, expected: str) -> BadRequest:
    found = repr(value)
    return BadRequest(
        f"column `{name}`: found {found if len(found) <= 80 else f'{found[:77]}...'}, expected {expected}"
    )
