"""How numbers are written for people: counts, shares, times, and scores in the unit of their metric."""

from collections.abc import Mapping
from typing import Any

NOTHING = "–"
# Narrow and unbreakable, so that a number and its unit stay on one line.
SPACE = "\u202f"
# Published times a hundred, and not as a share of anything.
TIMES_HUNDRED = ("CIDEr-D",)


def count(number: int) -> str:
    """Write a count, its digits in groups of three."""
    return f"{number:,}".replace(",", SPACE)


def percent(share: float) -> str:
    """Write a share with one decimal."""
    return f"{share * 100:.1f}{SPACE}%"


def points(share: float | None) -> str:
    """Write a hundredfold with two decimals, as scores are published."""
    return NOTHING if share is None else f"{share * 100:.2f}"


def hundredths(share: float) -> str:
    """Write a share in percent with two decimals."""
    return f"{points(share)}{SPACE}%"


def scored(share: float | None, score: Mapping[str, Any], space: str = SPACE) -> str:
    """Write a score, or an end of its interval, in the unit of its metric: percent, but CIDEr-D times a hundred."""
    written = points(share)
    return written if share is None or score["metric"] in TIMES_HUNDRED else f"{written}{space}%"


def measured(number: float | None, score: Mapping[str, Any], name: str) -> str:
    """Write one of a score's further metrics in its own unit: points are counted, captions' are times a hundred."""
    if number is None:
        return NOTHING
    if name == "points":
        return count(round(number))
    return points(number) if "tokenizer" in score else hundredths(number)


def duration(seconds: float) -> str:
    """Write a time in the two largest units that it has."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def rate(per_second: float | None) -> str:
    """Write how many there are in a second."""
    if per_second is None:
        return NOTHING
    return count(round(per_second)) if per_second >= 10 else f"{per_second:.2g}"
