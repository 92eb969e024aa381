"""What a row of `synthesize` asks for, read strictly from its columns: size, guidance, seed, how many pictures.

Values may be numbers or, from CSV, texts; it knows nothing of where they were read and how pictures are drawn.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from models.images import LIMIT_PIXELS
from models.types import BadRequest

# Columns by which a row says something of its own.
COLUMNS = ("ratio", "area", "negative_prompt", "guidance_scale", "num_images", "seed")

MOST_IMAGES = 1024
NUM_SEEDS = 2**63


def read_column(row: Mapping[str, Any], name: str, usual: Any) -> Any:
    """Return what a row says in one of COLUMNS; the usual value where it says nothing: null, or a blank text.

    A blank negative prompt says something: that there is nothing to move away from.

    Raises:
        BadRequest: The value is not what the column holds.
    """
    value = row.get(name)
    if value is None or (name != "negative_prompt" and isinstance(value, str) and not value.strip()):
        return usual
    match name:
        case "guidance_scale":
            return _number(value, name)
        case "area":
            return _whole(value, name, 1, LIMIT_PIXELS)
        case "num_images":
            return _whole(value, name, 1, MOST_IMAGES)
        case "seed":
            return _whole(value, name, 0, NUM_SEEDS - 1)
        case _:
            return _text(value, name)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _bad(name, value, "text")
    return value


def _number(value: Any, name: str) -> float:
    number = _decimal(value)
    if number is None or not math.isfinite(float(number)):
        raise _bad(name, value, "a finite number")
    return float(number)


def _whole(value: Any, name: str, least: int, most: int) -> int:
    number = _decimal(value)
    # The bounds come first: a text of ten characters can stand for a number of a billion digits.
    if number is None or not least <= number <= most or number != int(number):
        raise _bad(name, value, f"a whole number from {least} to {most}")
    return int(number)


def _decimal(value: Any) -> Decimal | None:
    """Read a number exactly, which a float cannot do for large seeds; None for what is none, NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and "_" not in str(value) else None


def _bad(name: str, value: Any, expected: str) -> BadRequest:
    found = repr(value)
    return BadRequest(
        f"column `{name}`: found {found if len(found) <= 80 else f'{found[:77]}...'}, expected {expected}"
    )
