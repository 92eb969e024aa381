"""A few rows of a run with their images, small enough to stand inside a page.

The images are read again from the input, for the shown rows' units only. It knows rows and pictures, not pages.
"""

import base64
import hashlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from jobs.report.results import Results
from models.images import decode_image
from models.types import BadImage
from pipeline.formats.rows import ReadError
from pipeline.read import read_unit
from pipeline.storage import StorageError
from pipeline.units import ReadSettings, Unit

log = logging.getLogger(__name__)

MOST_CARDS = 24
# Whole units are read again, so few of them: the gallery of a large run must not cost a large read.
MOST_UNITS = 8
SIDE_PIXELS = 320
IMAGES_PER_CARD = 4
NOT_AGAIN = "its image could not be read again"

RULE = (
    f"Up to {MOST_CARDS} rows: from {MOST_UNITS} stretches spread evenly over the run, in the order of a hash of their "
    "keys, so every report of this run shows the same ones."
)


@dataclass(frozen=True)
class Card:
    """One row as the page shows it.

    Attributes:
        row: The columns of its part.
        images: Thumbnails as data URIs.
        note: Why there is no image, where one was expected.
        verdict: `right`, `wrong`, or None where nothing is known.
    """

    row: Mapping[str, Any]
    images: Sequence[str]
    note: str | None
    verdict: str | None


@dataclass(frozen=True)
class Gallery:
    """The cards, how they were chosen, and out of how many rows."""

    cards: Sequence[Card]
    rule: str
    num_right: int | None
    num_wrong: int | None


def build_gallery(results: Results, read: ReadSettings, verdicts: Sequence[bool | None]) -> Gallery:
    """Choose rows and fetch their images.

    Args:
        results: The finished parts; rows that failed are not shown here.
        read: How to reach the input.
        verdicts: For each row of the results whether it is right; None where nothing is known.
    """
    units = _spread(results.units, MOST_UNITS)
    chosen = _choose(results.rows, units, verdicts)
    images = _fetch(chosen, units, read)
    cards = [Card(row, *images.get(_place(row), ((), NOT_AGAIN)), _verdict(right)) for row, right in chosen]
    known = [verdict for verdict in verdicts if verdict is not None]
    if not known:
        return Gallery(cards, RULE, None, None)
    rule = f"{RULE} Half of them right and half wrong, as far as there are so many: this is not the share of the run."
    return Gallery(cards, rule, sum(known), len(known) - sum(known))


Chosen = Sequence[tuple[Mapping[str, Any], bool | None]]


def _choose(rows: pa.Table, units: Sequence[Unit], verdicts: Sequence[bool | None]) -> Chosen:
    numbers = [number for unit in units for number in _rows_of(rows, unit)]
    keys = _take(rows, numbers)["key"].to_pylist()
    hashed = sorted(zip(map(_hash, keys), numbers, strict=True))
    ordered = [number for _, number in hashed]
    wrong = [number for number in ordered if verdicts[number] is False]
    right = [number for number in ordered if verdicts[number]]
    unknown = [number for number in ordered if verdicts[number] is None]
    shown = [*_halves(wrong, right, MOST_CARDS), *unknown][:MOST_CARDS]
    return [(row, verdicts[number]) for number, row in zip(shown, _take(rows, shown).to_pylist(), strict=True)]


def _take(rows: pa.Table, numbers: Sequence[int]) -> pa.Table:
    return rows.take(pa.array(numbers, pa.int64()))  # an empty list has no type of its own


def _halves(one: Sequence[int], other: Sequence[int], total: int) -> list[int]:
    """Take half of the total from each, and more of the longer one where the shorter has less."""
    first = min(len(one), max(total // 2, total - len(other)))
    return [*one[:first], *other[: total - first]]


def _rows_of(rows: pa.Table, unit: Unit) -> list[int]:
    """Find the rows of a unit that did not fail."""
    inside = pc.and_(pc.greater_equal(rows["index"], unit.start), pc.less(rows["index"], unit.stop))
    if unit.shard:
        inside = pc.and_(inside, pc.equal(rows["shard"], unit.shard))
    else:  # an image folder: every file is a shard
        inside = pc.is_in(rows["shard"], pa.array(unit.paths))
    found = pc.and_(inside, rows["error"].is_null())
    numbers: list[int] = pc.indices_nonzero(found.combine_chunks()).to_pylist()
    return numbers


def _fetch(
    chosen: Chosen, units: Iterable[Unit], read: ReadSettings
) -> dict[tuple[str, int], tuple[Sequence[str], str | None]]:
    wanted = {_place(row) for row, _ in chosen}
    fetched: dict[tuple[str, int], tuple[Sequence[str], str | None]] = {}
    for unit in units:
        try:
            table = read_unit(unit, read).select(["shard", "index", "images", "error"])
        except (StorageError, ReadError) as error:
            log.warning("the gallery lacks some images: %s", error)
            continue
        for row in table.to_pylist():
            if _place(row) in wanted:
                fetched[_place(row)] = _thumbnails(row["images"], row["error"])
    return fetched


def _thumbnails(images: Sequence[bytes], error: Mapping[str, str] | None) -> tuple[Sequence[str], str | None]:
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


def _spread(units: Sequence[Unit], most: int) -> list[Unit]:
    """Take at most so many units, evenly spread, the first and the last among them."""
    if len(units) <= most:
        return list(units)
    return [units[round(i * (len(units) - 1) / (most - 1))] for i in range(most)]


def _place(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["shard"], row["index"]


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _verdict(is_right: bool | None) -> str | None:
    return None if is_right is None else "right" if is_right else "wrong"
