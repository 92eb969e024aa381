"""How numbers are written for people: counts, shares, times, and scores in the unit of their metric."""

from collections.abc import Callable, Mapping
from typing import Any

NOTHING = "–"
# Narrow and unbreakable, so that a number and its unit stay on one line.
SPACE = "\u202f"
UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
# The lines in which a plan is set against what a run did.
PLANNED = {
    "rows": "rows",
    "failed_share": "failed",
    "loading_seconds": "time until the first rows",
    "answering_seconds": "time from then on",
    "seconds": "time in all",
    "prompt_tokens": "tokens read, a row",
    "image_tokens": "of them from images",
    "output_tokens": "tokens written, a row",
    "output_bytes": "output, without tars",
    "device_hours": "device-hours",
    "cost": "cost",
}
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


def amount(number: float, space: str = SPACE) -> str:
    """Write device-hours or money: with two decimals, or where these would say too little, two digits that do."""
    return f"{number:,.2f}".replace(",", space) if number >= 0.1 or not number else f"{number:.2g}"


def size(num_bytes: int) -> str:
    """Write bytes as people do."""
    found = ((factor, unit) for unit, factor in UNITS if num_bytes >= factor)
    factor, unit = next(found, (1, "bytes"))
    return f"{num_bytes / factor:,.1f} {unit}" if factor > 1 else f"{num_bytes:,} bytes"


def planned(number: float, name: str) -> str:
    """Write a number of PLANNED in its unit."""
    if name.endswith("seconds"):
        return duration(number)
    if name.endswith("tokens"):
        return f"{number:,.1f}".replace(",", SPACE)
    write: Callable[[Any], str] = {"rows": count, "failed_share": percent, "output_bytes": size}.get(name, amount)
    return write(number)


def off(share: float | None) -> str:
    """Write by how much a plan was too high (+) or too low (−)."""
    return NOTHING if share is None else f"{share * 100:+.1f}{SPACE}%".replace("-", "−")


def rate(per_second: float | None) -> str:
    """Write how many there are in a second."""
    if per_second is None:
        return NOTHING
    return count(round(per_second)) if per_second >= 10 else f"{per_second:.2g}"
