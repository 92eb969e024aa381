"""Take some rows out of a page that is larger than what a unit may hold, without ever holding the page.

Its bytes are unpacked as they are read, values before the wanted ones passed over, and the wanted ones put into a page
of their own. That is done for values of bytes that stand as they are (PLAIN) or in a dictionary, outside of lists.
https://github.com/apache/parquet-format/blob/master/Encodings.md
https://github.com/google/snappy/blob/main/format_description.txt
"""

import io
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.input.formats.pages import DATA_PAGE, DATA_PAGE_V2, PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY
from pipeline.input.formats.thrift import FALSE, I32, STRUCT, Struct, get, read_varint, varint, write_struct

Numbers = np.ndarray[Any, np.dtype[np.int64]]

SKIPPED_BYTES = 2**20
HISTORY_BYTES = 2**16


class CannotStream(ValueError):
    """The page is of another kind, or its bytes are not what they should be."""


@dataclass(frozen=True)
class Source:
    """A page.

    Attributes:
        header: Its header.
        body: What comes after it.
        codec: How it is packed, as Parquet calls it.
        max_level: Of the levels that say where values are null; 0: nowhere.
    """

    header: Struct
    body: BinaryIO
    codec: str
    max_level: int


def value_sizes(page: Source) -> Numbers:
    """Return how many bytes each value of a page has; a null has none. Of a dictionary's page, each of its values."""
    opened = _Opened(page)
    sizes = np.zeros(len(opened.is_value), np.int64)
    sizes[opened.is_value] = [opened.skip_value() for _ in range(int(opened.is_value.sum()))]
    return sizes


def rows_of_page(page: Source, start: int, stop: int, dictionary: Source | None = None) -> bytes:
    """Return some of a page's rows as a page of version 2, packed by nothing and without a dictionary."""
    opened = _Opened(page)
    before, within = int(opened.is_value[:start].sum()), int(opened.is_value[start:stop].sum())
    if opened.has_indices:
        if dictionary is None:
            raise CannotStream("found indices and no dictionary")
        indices = opened.indices()[before : before + within]
        found = _chosen(dictionary, indices)
        values = [found[index] for index in indices.tolist()]
    else:
        for _ in range(before):
            opened.skip_value()
        values = [opened.value() for _ in range(within)]
    levels = _run_bytes(opened.levels[start:stop], page.max_level)
    head: Struct = {
        1: (I32, stop - start),
        2: (I32, stop - start - within),
        3: (I32, stop - start),
        4: (I32, PLAIN),
        5: (I32, len(levels)),
        6: (I32, 0),
        7: (FALSE, False),
    }
    size = len(levels) + sum(map(len, values))
    header: Struct = {1: (I32, DATA_PAGE_V2), 2: (I32, size), 3: (I32, size), 8: (STRUCT, head)}
    return b"".join([write_struct(header), levels, *values])


def index_sizes(page: Source, of_values: Numbers) -> Numbers:
    """Return how many bytes each row of a page has whose values stand in a dictionary."""
    opened = _Opened(page)
    sizes = np.zeros(len(opened.is_value), np.int64)
    sizes[opened.is_value] = of_values[opened.indices()]
    return sizes


def _chosen(dictionary: Source, indices: Numbers) -> dict[int, bytes]:
    """Return some of a dictionary's values, each with its length before it."""
    opened = _Opened(dictionary)
    found: dict[int, bytes] = {}
    position = 0
    for index in np.unique(indices).tolist():
        while position < index:
            opened.skip_value()
            position += 1
        found[index] = opened.value()
        position += 1
    return found


class _Opened:
    """A page whose levels were read, and whose values come next."""

    def __init__(self, page: Source) -> None:
        kind = get(page.header, 1)
        head = get(page.header, {DATA_PAGE: 5, DATA_PAGE_V2: 8}.get(kind, 7))
        encoding = get(head, 4 if kind == DATA_PAGE_V2 else 2)
        count = get(head, 1)
        self.has_indices = kind in (DATA_PAGE, DATA_PAGE_V2) and encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY)
        if not self.has_indices and encoding not in (PLAIN, PLAIN_DICTIONARY):
            raise CannotStream(f"found encoding {encoding}")
        has_levels = page.max_level > 0 and kind in (DATA_PAGE, DATA_PAGE_V2)
        levels, body, codec = b"", page.body, page.codec
        if kind == DATA_PAGE_V2:
            levels = bytes(page.body.read(get(head, 5)))
            codec = codec if get(head, 7) is not False else "UNCOMPRESSED"
        self._stream = _unpacked(body, codec, get(page.header, 3) - len(levels))
        if kind == DATA_PAGE and has_levels:
            levels = self._exactly(int.from_bytes(self._exactly(4), "little"))
        width = page.max_level.bit_length()
        self.levels = _runs(levels, width, count) if has_levels else np.full(count, page.max_level, np.int64)
        self.is_value = self.levels == page.max_level

    def value(self) -> bytes:
        """Return the next value with its length before it."""
        head = self._exactly(4)
        return head + self._exactly(int.from_bytes(head, "little"))

    def skip_value(self) -> int:
        """Pass over the next value; return its length."""
        size = int.from_bytes(self._exactly(4), "little")
        self._stream.skip(size)
        return size

    def indices(self) -> Numbers:
        """Return the values as indices into the dictionary."""
        width = self._exactly(1)[0]
        return _runs(self._stream.rest(), width, int(self.is_value.sum()))

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise CannotStream(f"found {len(data)} bytes, expected {count}")
        return data


class _Stream:
    """Bytes as they are, or as Arrow unpacks them."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        pieces = []
        while count and (piece := self._file.read(count)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        while count and (piece := self._file.read(min(count, SKIPPED_BYTES))):
            count -= len(piece)

    def rest(self) -> bytes:
        return b"".join(iter(lambda: self.read(SKIPPED_BYTES), b""))


class _Plain(_Stream):
    """Bytes as they are, in which one can jump."""

    def skip(self, count: int) -> None:
        self._file.seek(count, io.SEEK_CUR)


class _Snappy(_Stream):
    """Bytes packed by Snappy, whose writers look back 64 kB at most; a stretch that is not packed is jumped over."""

    def __init__(self, file: BinaryIO, packed: int) -> None:
        super().__init__(file)
        self._left = packed
        self._length = self._varint()
        self._out = bytearray()  # what was unpacked, some of it read already
        self._taken = 0

    def read(self, count: int) -> bytes:
        while len(self._out) - self._taken < count and self._left:
            self._element(None)
        data = bytes(self._out[self._taken : self._taken + count])
        self._taken += len(data)
        self._forget()
        return data

    def skip(self, count: int) -> None:
        while count:
            here = min(count, len(self._out) - self._taken)
            self._taken += here
            count -= here
            self._forget()
            if not count or not self._left:
                return
            count -= self._element(count)

    def _forget(self) -> None:
        if self._taken > 4 * HISTORY_BYTES:
            del self._out[: self._taken - HISTORY_BYTES]
            self._taken = HISTORY_BYTES

    def _element(self, skippable: int | None) -> int:
        """Unpack the next element; return the bytes of it that were jumped over, if so many may be."""
        tag = self._bytes(1)[0]
        kind, count = tag & 3, tag >> 2
        if kind == 0:
            if count >= 60:
                count = int.from_bytes(self._bytes(count - 59), "little")
            count += 1
            # So long a one is all that its writer looked back on.
            if skippable is not None and HISTORY_BYTES <= count <= skippable:
                self._file.seek(count, io.SEEK_CUR)
                self._left -= count
                self._out.clear()  # nothing after it looks back beyond it
                self._taken = 0
                return count
            self._out += self._bytes(count)
            return 0
        if kind == 1:
            count, offset = (count & 7) + 4, (tag >> 5) << 8 | self._bytes(1)[0]
        else:
            count, offset = count + 1, int.from_bytes(self._bytes(2 * kind - 2), "little")
        if not 0 < offset <= len(self._out):
            raise CannotStream(f"found a copy of what is {offset} bytes before, and {len(self._out)} are known")
        piece = self._out[len(self._out) - offset :][:count]
        self._out += (piece * (count // len(piece) + 1))[:count]
        return 0

    def _varint(self) -> int:
        head = b""
        while not head or head[-1] > 127:
            head += self._bytes(1)
        return read_varint(head, 0)[0]

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        self._left -= count
        if len(data) < count:
            raise CannotStream("found the end within an element")
        return bytes(data)


def _unpacked(file: BinaryIO, codec: str, packed: int) -> _Stream:
    if codec == "UNCOMPRESSED":
        return _Plain(file)
    if codec == "SNAPPY":
        return _Snappy(file, packed)
    if codec in ("ZSTD", "GZIP", "BROTLI"):
        return _Stream(pa.CompressedInputStream(pa.PythonFile(file, "r"), codec.lower()))
    raise CannotStream(f"found codec {codec}")


def _runs(data: bytes, width: int, count: int) -> Numbers:
    """Return numbers of `width` bits, which stand as runs of one number or packed, eight at a time."""
    pieces: list[Numbers] = []
    position = found = 0
    size = (width + 7) // 8
    while found < count:
        head, position = read_varint(data, position)
        if head & 1:
            packed = np.frombuffer(data, np.uint8, min((head >> 1) * width, len(data) - position), position)
            position += len(packed)
            piece = _bits(packed, width) if width else np.zeros((head >> 1) * 8, np.int64)
        else:
            piece = np.full(head >> 1, int.from_bytes(data[position : position + size], "little"), np.int64)
            position += size
        if not len(piece):
            raise CannotStream("found a run of nothing")
        pieces.append(piece)
        found += len(piece)
    return np.concatenate(pieces)[:count] if pieces else np.zeros(0, np.int64)


def _bits(packed: "np.ndarray[Any, np.dtype[np.uint8]]", width: int) -> Numbers:
    bits = np.unpackbits(packed, bitorder="little")
    numbers = bits[: len(bits) // width * width].reshape(-1, width) @ (1 << np.arange(width, dtype=np.int64))
    return np.asarray(numbers, np.int64)


def _run_bytes(levels: Numbers, max_level: int) -> bytes:
    """Return levels as runs."""
    if not max_level or not len(levels):
        return b""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(levels)) + 1, [len(levels)]])
    size = (max_level.bit_length() + 7) // 8
    runs = zip(np.diff(starts).tolist(), levels[starts[:-1]].tolist(), strict=True)
    return b"".join(varint(count << 1) + level.to_bytes(size, "little") for count, level in runs)
