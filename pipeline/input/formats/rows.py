"""What every input format speaks of: a row as it was found, why it cannot be used, and where rows lie in a shard."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pyarrow as pa

from pipeline.storage.store import StorageError

# The most bytes that one image, one line or one read of rows may have: memory is bounded by this, not by the input.
LIMIT_BYTES = 128 * 2**20
# Rows per shard whose fields are looked at to decide the columns and their types: the first ones, later every so many.
SAMPLE_ROWS, SAMPLE_STEP = 1000, 100
MAX_FIELDS = 4096
_ON_THE_WEB = ("jpg", "jpeg", "jfif", "png", "webp", "gif", "avif")
_ELSEWHERE = ("bmp", "tif", "tiff", "ppm", "jp2", "j2k", "heic", "heif")
IMAGE_EXTENSIONS = (*_ON_THE_WEB, *_ELSEWHERE)


# What rows are beyond their format.
# imagefolder: metadata with `file_name` beside images (Hugging Face, "Create an image dataset").
# classes: images in one folder for each class.
# chat: conversations of LLaVA or OpenAI; their question, answer and images are columns of ours.
# coco: images with what a file's annotations say of them.
Shape = Literal["", "imagefolder", "classes", "chat", "coco"]


class Readable(Protocol):
    """A file, or what a compressed one holds."""

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer at the end."""
        ...


class ReadError(StorageError):
    """The input is there but is not what it should be; the message names the shard, what was found and expected."""


@dataclass(frozen=True)
class Fault:
    """Why one row cannot be read; it becomes the row's `error`."""

    type: str
    message: str
    stage: str = "fetch"


class RowError(Exception):
    """Raised inside a format where one row goes wrong."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(type, message)


@dataclass
class RawRow:
    """A row as its format gives it.

    Attributes:
        image: Compressed bytes, a path, the hub's `{bytes, path}`, a list of those, or None.
        members: What the files are called in an archive that the bytes are of.
        key: The name that the format itself gives the row, if it does.
        video: The path of the row's video, whose frames are then its images.
        subtitles: The path of its subtitles.
        values: The row's other fields, for formats that read row by row.
        fault: Why the row cannot be used.
    """

    image: Any = None
    members: Sequence[str] = ()
    key: Any = None
    video: Any = None
    subtitles: Any = None
    values: dict[str, Any] = field(default_factory=dict)
    fault: Fault | None = None


@dataclass(frozen=True)
class RawBlock:
    """The rows of one unit; formats that store columns give the other fields as Arrow columns."""

    rows: Sequence[RawRow]
    columns: Mapping[str, pa.ChunkedArray] | None = None


@dataclass(frozen=True)
class Slice:
    """Consecutive rows of a shard and the bytes they lie in (0 to 0 where the format finds rows by number).

    In a large row group of Parquet, `pages` says where their pages lie (see pipeline/input/formats/page_cuts.py).
    Of the rows in these bytes, so many as `skipped` says come before the first one: an Arrow file is read by batches.
    """

    start: int
    stop: int
    first_byte: int = 0
    end_byte: int = 0
    pages: tuple[int, ...] = ()
    skipped: int = 0


@dataclass(frozen=True)
class Index:
    """What the scan of one shard found.

    Attributes:
        slices: The rows, cut small enough to be read at once.
        fields: Fields found and their types; null where a field never had a value.
        warnings: What is wrong with the shard although its rows can be read.
        header: The names of a CSV file's columns, in order.
        extensions: The members' extensions in a tar, in lower case, and how many have them.
        passed_over: What belongs to no row: how many of each kind.
        is_packed: Whether the shard is compressed; places of slices are those in its content.
        shape: What its rows are beyond their format.
    """

    slices: Sequence[Slice]
    fields: Mapping[str, pa.DataType]
    warnings: Sequence[str] = ()
    header: Sequence[str] = ()
    extensions: Mapping[str, int] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    is_packed: bool = False
    shape: Shape = ""

    @property
    def num_rows(self) -> int:
        """How many rows the shard has."""
        return self.slices[-1].stop if self.slices else 0


class Cutter:
    """Gather rows into slices of at most `unit_rows` rows and, where a row allows it, `LIMIT_BYTES` bytes."""

    def __init__(self, unit_rows: int) -> None:
        self.unit_rows = unit_rows
        self.num_rows = 0
        self._slices: list[Slice] = []
        # Of the slice that is being filled. Plain numbers: this is the inner loop over every row of a run.
        self._start = self._first_byte = self._end_byte = 0

    def add(self, first_byte: int, end_byte: int) -> None:
        """Add the next row."""
        count = self.num_rows - self._start
        if count >= self.unit_rows or (count and end_byte - self._first_byte > LIMIT_BYTES):
            self.close()
            count = 0
        if not count:
            self._first_byte = first_byte
        self._end_byte = end_byte
        self.num_rows += 1

    def close(self) -> list[Slice]:
        """End the slice that is being filled; return all."""
        if self.num_rows > self._start:
            self._slices.append(Slice(self._start, self.num_rows, self._first_byte, self._end_byte))
            self._start = self.num_rows
        return self._slices


def is_sampled(place: int) -> bool:
    """Say whether the fields of a shard's row are looked at when the run is planned."""
    return place < SAMPLE_ROWS or place % SAMPLE_STEP == 0


def parse_json(text: bytes, what: str) -> Any:
    """Parse a JSON value; a byte order mark before it is no part of it.

    Raises:
        RowError: It is not UTF-8 or not JSON.
    """
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowError("NotUtf8", f"{what} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise RowError("NotJson", f"{what} is not JSON: {error or 'nested too deep'}") from error


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        RowError: It is not UTF-8, not JSON, or not an object.
    """
    value = parse_json(text, what)
    if not isinstance(value, dict):
        raise RowError("NotJson", f"{what} holds {type(value).__name__}, expected an object")
    return value
