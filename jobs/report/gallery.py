"""A few rows of a run with their images, small enough to stand inside a page.

What the model saw is read again from the input, what it drew from the parts, both for the shown rows only. It knows
rows and pictures, not pages.
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

from jobs.report.pictures import Pictures
from jobs.report.results import Results
from jobs.report.shown import Words
from models.images import decode_image
from models.types import BadImage
from pipeline.check import STAGE
from pipeline.formats.rows import ReadError
from pipeline.read import read_unit
from pipeline.storage.store import StorageError
from pipeline.units import ReadSettings, Unit

log = logging.getLogger(__name__)

MOST_CARDS = 24
# Whole units are read again, so few of them: the gallery of a large run must not cost a large read.
MOST_UNITS = 8
SIDE_PIXELS = 320
IMAGES_PER_CARD = 4
NOT_AGAIN = "its image could not be read again"
NOT_DRAWN = "no picture"

RULE = (
    f"Up to {MOST_CARDS} rows: from {MOST_UNITS} stretches spread evenly over the run, in the order of a hash of their "
    "names, so every report of this run shows the same ones."
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


Shown = tuple[Sequence[str], str | None]


def build_gallery(results: Results, read: ReadSettings, verdicts: Sequence[bool | None], words: Words) -> Gallery:
    """Choose rows and fetch their images.

    Args:
        results: The finished parts; rows that failed are not shown here, but pictures that could not be checked are.
        read: How to reach the input.
        verdicts: For each row of the results whether it is right; None where nothing is known.
        words: What verdicts are called.
    """
    units = _spread(results.units, MOST_UNITS)
    numbers = _choose(results.rows, units, verdicts)
    rows = _take(results.rows, numbers).to_pylist()
    images = _drawn(results.pictures, numbers) if results.pictures else _given(rows, units, read)
    cards = [
        Card(row, *shown, _verdict(verdicts[number])) for row, shown, number in zip(rows, images, numbers, strict=True)
    ]
    known = [verdict for verdict in verdicts if verdict is not None]
    if not known:
        return Gallery(cards, RULE, None, None)
    halves = f"Half of them {words.good} and half {words.bad}, as far as there are so many"
    rule = f"{RULE} {halves}: this is not the share of the run."
    return Gallery(cards, rule, sum(known), len(known) - sum(known))


def _choose(rows: pa.Table, units: Sequence[Unit], verdicts: Sequence[bool | None]) -> list[int]:
    """Return the numbers of the rows to be shown."""
    numbers = [number for unit in units for number in _rows_of(rows, unit)]
    hashed = sorted(zip(map(_hash, _names(_take(rows, numbers))), numbers, strict=True))
    ordered = [number for _, number in hashed]
    wrong = [number for number in ordered if verdicts[number] is False]
    right = [number for number in ordered if verdicts[number]]
    unknown = [number for number in ordered if verdicts[number] is None]
    return [*_halves(wrong, right, MOST_CARDS), *unknown][:MOST_CARDS]


def _names(rows: pa.Table) -> list[str]:
    """Tell rows apart: by their keys, and pictures of one row by their numbers, so that these do not stand together."""
    keys: list[str] = rows["key"].to_pylist()
    if "image_index" not in rows.column_names:
        return keys
    return [f"{key}#{index}" for key, index in zip(keys, rows["image_index"].to_pylist(), strict=True)]


def _take(rows: pa.Table, numbers: Sequence[int]) -> pa.Table:
    return rows.take(pa.array(numbers, pa.int64()))  # an empty list has no type of its own


def _halves(one: Sequence[int], other: Sequence[int], total: int) -> list[int]:
    """Take half of the total from each, and more of the longer one where the shorter has less."""
    first = min(len(one), max(total // 2, total - len(other)))
    return [*one[:first], *other[: total - first]]


def _rows_of(rows: pa.Table, unit: Unit) -> list[int]:
    """Find the rows of a unit that did not fail, or whose picture is there and only its check failed."""
    inside = pc.and_(pc.greater_equal(rows["index"], unit.start), pc.less(rows["index"], unit.stop))
    if unit.shard:
        inside = pc.and_(inside, pc.equal(rows["shard"], unit.shard))
    else:  # an image folder: every file is a shard
        inside = pc.is_in(rows["shard"], pa.array(unit.paths))
    is_unchecked = pc.equal(pc.struct_field(rows["error"], "stage"), STAGE)
    found = pc.and_(inside, pc.or_kleene(rows["error"].is_null(), is_unchecked))  # without an error, null is no stage
    numbers: list[int] = pc.indices_nonzero(found.combine_chunks()).to_pylist()
    return numbers


def _drawn(pictures: Pictures, numbers: Sequence[int]) -> list[Shown]:
    """Fetch what was drawn, from the parts."""
    found = pictures.read(numbers)
    return [_thumbnails([picture], None) if (picture := found[number]) else ((), NOT_DRAWN) for number in numbers]


def _given(rows: Sequence[Mapping[str, Any]], units: Iterable[Unit], read: ReadSettings) -> list[Shown]:
    """Fetch what the model saw, from the input."""
    wanted = {_place(row) for row in rows}
    fetched: dict[tuple[str, int], Shown] = {}
    for unit in units:
        try:
            table = read_unit(unit, read).select(["shard", "index", "images", "error"])
        except (StorageError, ReadError) as error:
            log.warning("the gallery lacks some images: %s", error)
            continue
        for row in table.to_pylist():
            if _place(row) in wanted:
                fetched[_place(row)] = _thumbnails(row["images"], row["error"])
    return [fetched.get(_place(row), ((), NOT_AGAIN)) for row in rows]


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
