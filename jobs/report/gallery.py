"""A few rows of a run with their images, small enough to stand inside a page.

What the model saw is read again from the input, what it drew from the parts, both for the shown rows only. It knows
rows and pictures, not pages.
"""

import base64
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from jobs.report.candidates import MOST_CARDS, MOST_UNITS, OF_BENCHMARK
from jobs.report.pictures import Pictures
from jobs.report.results import Results
from jobs.report.shown import Words
from models.images import decode_image
from models.types import BadImage
from pipeline import ReadError, ReadSettings, StorageError, Unit, read_unit

log = logging.getLogger(__name__)

SIDE_PIXELS = 320
IMAGES_PER_CARD = 4
# A store answers several at once; more would hold too many images.
READERS = 4
NOT_AGAIN = "its image could not be read again"
NOT_DRAWN = "no picture"

RULE = (
    f"Up to {MOST_CARDS} rows: from {MOST_UNITS} stretches spread evenly over the run, in the order of a hash of their "
    "names, so every report of this run shows the same ones."
)
RULE_OF_BENCHMARKS = (
    f"Of each benchmark up to {OF_BENCHMARK[False]} wrong rows and {OF_BENCHMARK[True]} right ones, in the order of a "
    "hash of their names, so every report of this run shows the same ones."
)


@dataclass(frozen=True)
class Card:
    """One row as the page shows it.

    Attributes:
        row: The columns of its part.
        images: Thumbnails as data URIs.
        note: Why there is no image, where one was expected.
        verdict: `right`, `wrong`, or None where nothing is known.
        benchmark: What it is shown under; empty where the run has one gallery.
    """

    row: Mapping[str, Any]
    images: Sequence[str]
    note: str | None
    verdict: str | None
    benchmark: str = ""


@dataclass(frozen=True)
class Gallery:
    """The cards, how they were chosen, and out of how many rows."""

    cards: Sequence[Card]
    rule: str
    num_right: int | None
    num_wrong: int | None


Shown = tuple[Sequence[str], str | None]


def build_gallery(results: Results, sources: Mapping[str, ReadSettings], words: Words) -> Gallery:
    """Choose rows and fetch their images.

    Args:
        results: The finished parts; rows that failed are not shown here, but pictures that could not be checked are.
        sources: How to reach each source of the input, by its name.
        words: What verdicts are called.
    """
    gathered = results.gathered
    chosen = gathered.candidates.choose()
    if gathered.pictures:
        images = _drawn(gathered.pictures, [one.number for one in chosen])
    else:
        images = _given([one.row for one in chosen], gathered.candidates.units, sources)
    cards = [
        Card(one.row, *shown, _verdict(one.verdict), one.benchmark) for one, shown in zip(chosen, images, strict=True)
    ]
    if gathered.candidates.are_by_benchmark:
        return Gallery(cards, RULE_OF_BENCHMARKS, gathered.num_right, gathered.num_wrong)
    if not gathered.num_right + gathered.num_wrong:
        return Gallery(cards, RULE, None, None)
    halves = f"Half of them {words.good} and half {words.bad}, as far as there are so many"
    rule = f"{RULE} {halves}: this is not the share of the run."
    return Gallery(cards, rule, gathered.num_right, gathered.num_wrong)


def _drawn(pictures: Pictures, numbers: Sequence[int]) -> list[Shown]:
    """Fetch what was drawn, from the parts."""
    found = pictures.read(numbers)
    return [_thumbnails([picture], None) if (picture := found[number]) else ((), NOT_DRAWN) for number in numbers]


def _given(
    rows: Sequence[Mapping[str, Any]], units: Iterable[Unit], sources: Mapping[str, ReadSettings]
) -> list[Shown]:
    """Fetch what the model saw, from the input."""
    wanted = {_place(row) for row in rows}
    stretches = [stretch for unit in units if (stretch := _stretch(unit, wanted)) is not None]
    fetched: dict[tuple[str, int], Shown] = {}
    with ThreadPoolExecutor(READERS) as readers:
        for found in readers.map(lambda stretch: _fetch(stretch, sources[stretch.source]), stretches):
            fetched |= found
    return [fetched.get(_place(row), ((), NOT_AGAIN)) for row in rows]


def _fetch(stretch: Unit, read: ReadSettings) -> dict[tuple[str, int], Shown]:
    """Read a few rows again for their images; nothing comes of it if they cannot be reached."""
    try:
        table = read_unit(stretch, read).select(["shard", "index", "images", "error"])
    except (StorageError, ReadError) as error:
        log.warning("the gallery lacks some images: %s", error)
        return {}
    return {_place(row): _thumbnails(row["images"], row["error"]) for row in table.to_pylist()}


def _stretch(unit: Unit, wanted: Iterable[tuple[str, int]]) -> Unit | None:
    """Return a unit restricted to the rows that are wanted; None if it has none of them."""
    if unit.paths:
        named = {shard for shard, _ in wanted}
        only = [number for number, path in enumerate(unit.paths) if path in named]
    else:
        inside = range(unit.start, unit.stop)
        only = sorted(index - unit.start for shard, index in wanted if shard == unit.shard and index in inside)
    if not only:
        return None
    if unit.format != "parquet":
        return replace(unit, only=tuple(only))
    # Rows of Parquet are found by their numbers, so those around need not be read.
    first = unit.start + only[0]
    near = tuple(number - only[0] for number in only)
    return replace(unit, start=first, stop=unit.start + only[-1] + 1, only=near)


def _thumbnails(images: Sequence[bytes], error: Mapping[str, str] | None) -> Shown:
    if error is not None:
        return [], f"{NOT_AGAIN}: {error['message']}"
    try:
        return [thumbnail(data) for data in images[:IMAGES_PER_CARD]], None
    except BadImage as bad:
        return [], f"{NOT_AGAIN}: {bad}"


def thumbnail(data: bytes) -> str:
    """Shrink an image to SIDE_PIXELS and return it as a data URI, made anew: no byte of the input is passed on.

    Raises:
        BadImage: It cannot be decoded.
    """
    image = decode_image(data)
    is_tiny = max(image.size) <= SIDE_PIXELS // 2
    image.thumbnail((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    if is_tiny:  # every pixel counts, and PNG costs little
        image.save(sink, "PNG", optimize=True)
    else:
        image.save(sink, "JPEG", quality=82)
    kind = "png" if is_tiny else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(sink.getvalue()).decode()}"


def _place(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["shard"], row["index"]


def _verdict(is_right: bool | None) -> str | None:
    return None if is_right is None else "right" if is_right else "wrong"
