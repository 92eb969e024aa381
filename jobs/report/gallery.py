"""A few rows of a run with their images, small enough to stand inside a page.

What the model saw is read again from the input, what it drew from the parts, both for the shown rows only.
"""

import base64
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from jobs.report.candidates import CARDS_OF_BENCHMARK, MOST_CARDS, MOST_UNITS
from jobs.report.job import Labels
from jobs.report.part_files import Pictures
from jobs.report.results import Results
from models.images import decode_image
from models.types import BadImage
from pipeline import ReadError, ReadSettings, StorageError, Unit, read_unit

log = logging.getLogger(__name__)

SIDE_PIXELS = 320
IMAGES_PER_CARD = 4
# A store answers several at once; more would hold too many images.
READER_THREADS = 4
NOT_READ = "its image could not be read again"
NOT_DRAWN = "no picture"

SELECTION = (
    f"Up to {MOST_CARDS} rows: from {MOST_UNITS} stretches spread evenly over the run, in the order of a hash of their "
    "names, so every report of this run shows the same ones."
)
SELECTION_BY_BENCHMARK = (
    f"Of each benchmark up to {CARDS_OF_BENCHMARK[False]} wrong rows and {CARDS_OF_BENCHMARK[True]} right ones, in the "
    "order of a hash of their names, so every report of this run shows the same ones."
)


@dataclass(frozen=True)
class Card:
    """One row as the page shows it.

    Attributes:
        row: The columns of its part.
        images: Thumbnails as data URIs.
        note: Why there is no image, where one was expected.
        verdict: `right`, `wrong`, or None where nothing is known.
        benchmark: The benchmark that shows it; empty where the run has one gallery.
    """

    row: Mapping[str, Any]
    images: Sequence[str]
    note: str | None
    verdict: str | None
    benchmark: str = ""


@dataclass(frozen=True)
class Gallery:
    """The cards, how they were selected, and out of how many rows."""

    cards: Sequence[Card]
    rule: str
    num_right: int | None
    num_wrong: int | None


RowId = tuple[str, int]
# The thumbnails of a row, or why there are none.
Thumbnails = tuple[Sequence[str], str | None]


def build_gallery(results: Results, sources: Mapping[str, ReadSettings], labels: Labels) -> Gallery:
    """Choose rows and fetch their images.

    Args:
        results: The finished parts; rows that failed are not shown here, but pictures that could not be checked are.
        sources: How to reach each source of the input, by its name.
        labels: What verdicts are called.
    """
    candidates = results.candidates
    chosen = candidates.choose()
    if results.pictures:
        images = drawn_images(results.pictures, [candidate.number for candidate in chosen])
    else:
        images = seen_images([candidate.row for candidate in chosen], candidates.units, sources)
    verdicts = {None: None, True: "right", False: "wrong"}
    cards = [
        Card(candidate.row, *thumbnails, verdicts[candidate.verdict], candidate.benchmark)
        for candidate, thumbnails in zip(chosen, images, strict=True)
    ]
    num_right, num_wrong = results.verdicts[True], results.verdicts[False]
    if candidates.are_by_benchmark:
        return Gallery(cards, SELECTION_BY_BENCHMARK, num_right, num_wrong)
    if not num_right + num_wrong:
        return Gallery(cards, SELECTION, None, None)
    halves = f"Half of them {labels.good} and half {labels.bad}, as far as there are so many"
    return Gallery(cards, f"{SELECTION} {halves}: this is not the share of the run.", num_right, num_wrong)


def drawn_images(pictures: Pictures, numbers: Sequence[int], side: int = SIDE_PIXELS) -> list[Thumbnails]:
    """Fetch what was drawn, from the parts, shrunk to `side` pixels."""
    drawn = pictures.read(numbers)
    return [_thumbnails([picture], None, side) if (picture := drawn[number]) else ((), NOT_DRAWN) for number in numbers]


def seen_images(
    rows: Sequence[Mapping[str, Any]],
    units: Iterable[Unit],
    sources: Mapping[str, ReadSettings],
    side: int = SIDE_PIXELS,
) -> list[Thumbnails]:
    """Fetch what the model saw of some rows, from the input, shrunk to `side` pixels."""
    wanted = {_id(row) for row in rows}
    restricted = [few for unit in units if (few := _restricted(unit, wanted)) is not None]
    fetched: dict[RowId, Thumbnails] = {}
    with ThreadPoolExecutor(READER_THREADS) as readers:
        for some in readers.map(lambda unit: _fetch(unit, sources[unit.source], side), restricted):
            fetched |= some
    return [fetched.get(_id(row), ((), NOT_READ)) for row in rows]


def _fetch(unit: Unit, read: ReadSettings, side: int) -> dict[RowId, Thumbnails]:
    """Read a few rows again for their images; none where they cannot be reached."""
    try:
        table = read_unit(unit, read).select(["shard", "index", "images", "error"])
    except (StorageError, ReadError) as error:
        log.warning("the gallery lacks some images: %s", error)
        return {}
    return {_id(row): _thumbnails(row["images"], row["error"], side) for row in table.to_pylist()}


def _restricted(unit: Unit, wanted: Iterable[RowId]) -> Unit | None:
    """Return a unit restricted to the rows that are wanted; None if it has none of them."""
    if unit.paths:
        shards = {shard for shard, _ in wanted}
        only = [number for number, path in enumerate(unit.paths) if path in shards]
    else:
        inside = range(unit.start, unit.stop)
        only = sorted(index - unit.start for shard, index in wanted if shard == unit.shard and index in inside)
    if not only:
        return None
    if unit.format != "parquet":
        return replace(unit, only=tuple(only))
    # Rows of Parquet are found by their numbers, so those around need not be read.
    near = tuple(number - only[0] for number in only)
    return replace(unit, start=unit.start + only[0], stop=unit.start + only[-1] + 1, only=near)


def _thumbnails(images: Sequence[bytes], error: Mapping[str, str] | None, side: int) -> Thumbnails:
    if error is not None:
        return [], f"{NOT_READ}: {error['message']}"
    try:
        return [thumbnail(data, side) for data in images[:IMAGES_PER_CARD]], None
    except BadImage as bad:
        return [], f"{NOT_READ}: {bad}"


def thumbnail(data: bytes, side: int = SIDE_PIXELS) -> str:
    """Shrink an image to `side` pixels and return it as a data URI, encoded anew: no byte of the input is passed on.

    Raises:
        BadImage: It cannot be decoded.
    """
    image = decode_image(data)
    is_tiny = max(image.size) <= SIDE_PIXELS // 2
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    if is_tiny:  # every pixel counts, and PNG costs little
        image.save(sink, "PNG", optimize=True)
    else:
        image.save(sink, "JPEG", quality=82)
    kind = "png" if is_tiny else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(sink.getvalue()).decode()}"


def _id(row: Mapping[str, Any]) -> RowId:
    return row["shard"], row["index"]
