"""Open single pages of a column of Parquet: their headers, the levels that say what is null or in a list, their values.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
https://github.com/apache/parquet-format/blob/master/Encodings.md
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from pipeline.input.formats.page_streams import CannotStream, unpacked
from pipeline.input.formats.thrift import (
    FALSE,
    I32,
    STRUCT,
    NotThrift,
    Struct,
    get,
    read_struct,
    read_varint,
    varint,
    write_struct,
)
from pipeline.storage.ranged_file import SizedFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Numbers = np.ndarray[Any, np.dtype[np.int64]]

# A header takes 20 to 100 bytes; its statistics may hold two values of up to 4 KiB.
HEADER_BYTES, LONGEST_HEADER_BYTES = 256, 2**20
DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = range(4)
PLAIN, PLAIN_DICTIONARY, RLE, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 2, 3, 7, 8
INDICES = (PLAIN_DICTIONARY, RLE_DICTIONARY)
# Types of which a page can be read piece by piece.
OF_BYTES = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
# The struct of each kind of page in its header.
HEADS = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}
# A page that is made here has about so many.
PIECE_BYTES = 16 * 2**20
# What is read at once: a disk costs nothing to jump over values, a store in a network takes its time for each request.
JUMPED_BYTES, FETCHED_BYTES = 2**12, 2**22


@dataclass(frozen=True)
class Leaf:
    """One column of a row group, or one field of a nested one.

    Attributes:
        number: Its place among all of the file, fields of nested ones counted by themselves.
        first_byte: Where its pages begin.
        end_byte: Where they end.
        codec: How they are packed, as Parquet calls it.
        max_levels: The greatest level of its lists, and of its nulls; 0: there are none.
        type: Of its values, as Parquet calls it.
        width: The bytes of each; 0: each has its length before it.
    """

    number: int
    first_byte: int
    end_byte: int
    codec: str
    max_levels: tuple[int, int]
    type: str
    width: int


@dataclass(frozen=True)
class Header:
    """What a page says of itself.

    Attributes:
        kind: Of the page.
        length: Bytes of the header.
        unpacked: Bytes of what comes after it, unpacked.
        packed: As they stand there.
        num_values: Of lists, those of their elements; nulls count.
        num_rows: Pages of the first version do not say it.
        num_nulls: So many values are known to be null.
        encoding: Of the values.
        level_bytes: Of the levels of lists, and of nulls, before what is packed; None: they are a part of it.
        level_encodings: Of both.
        is_packed: Whether the values are.
    """

    kind: int
    length: int
    unpacked: int
    packed: int
    num_values: int = 0
    num_rows: int | None = None
    num_nulls: int = 0
    encoding: int = PLAIN
    level_bytes: tuple[int, int] | None = None
    level_encodings: tuple[int | None, int | None] = (RLE, RLE)
    is_packed: bool = True

    @property
    def has_indices(self) -> bool:
        """Whether values stand in the dictionary."""
        return self.kind in (DATA_PAGE, DATA_PAGE_V2) and self.encoding in INDICES


def read_header(file: BinaryIO, position: int, end: int) -> Header:
    """Return the header of the page at a position, in a column that ends at `end`.

    Raises:
        NotThrift: There is none, or the page does not end within its column.
    """
    count = HEADER_BYTES
    while True:
        count = min(count, end - position)
        data = read_at(file, position, count)
        try:
            header = _header(*read_struct(data))
            break
        except NotThrift:
            if count in (end - position, LONGEST_HEADER_BYTES):
                raise
            count = min(count * 16, LONGEST_HEADER_BYTES)
    if position + header.length + header.packed > end:
        raise NotThrift(f"the page at byte {position} does not end within its column")
    return header


def _header(fields: Struct, length: int) -> Header:
    kind, unpacked_bytes, packed = (get(fields, number) for number in (1, 2, 3))
    if kind not in HEADS:
        return _checked(Header(kind, length, unpacked_bytes, packed))
    head = get(fields, HEADS[kind]) or {}
    count, size = get(head, 1), (kind, length, unpacked_bytes, packed)
    if kind == DATA_PAGE_V2:
        nulls, rows, encoding, of_nulls, of_lists = (get(head, number) for number in range(2, 7))
        is_packed = get(head, 7) is not False
        return _checked(Header(*size, count, rows, nulls, encoding, (of_lists, of_nulls), is_packed=is_packed))
    of_levels = get(head, 4), get(head, 3)
    return _checked(Header(*size, count, None, get(head, 5, 3) or 0, get(head, 2), level_encodings=of_levels))


def _checked(header: Header) -> Header:
    numbers = (header.kind, header.unpacked, header.packed, header.num_values, header.num_nulls, header.encoding)
    rows = () if header.level_bytes is None else (header.num_rows, *header.level_bytes)
    if not all(type(number) is int and number >= 0 for number in (*numbers, *rows)):
        raise NotThrift("found a page's header with numbers left out, or below 0")
    return header


def read_at(file: BinaryIO, position: int, count: int) -> bytes:
    """Read at a place.

    Raises:
        NotThrift: The file ends before.
    """
    file.seek(position)
    data = file.read(count)
    if len(data) < count:
        raise NotThrift(f"found {len(data)} bytes at {position}, expected {count}")
    return data


class Body:
    """A page whose levels were read, and whose values of bytes come next.

    Attributes:
        header: Its header.
        end_byte: Where it ends in the file.
        starts: Which of its entries begin a row; outside of lists each entry is one.
        is_value: Which entries are values; others are nulls, or lists without elements.
    """

    def __init__(self, file: BinaryIO, span: tuple[int, int], leaf: Leaf) -> None:
        """Open the page of a column that begins and ends at these bytes.

        Raises:
            CannotStream: It cannot be read piece by piece.
        """
        self.header = header = read_header(file, *span)
        self.end_byte = span[1]
        self._max_levels = max_levels = (0, 0) if header.kind == DICTIONARY_PAGE else leaf.max_levels
        self._width = leaf.width
        body = _window(file, span[0] + header.length, span[0] + header.length + header.packed)
        levels = [body.read(count) for count in header.level_bytes or ()]
        codec = leaf.codec if header.is_packed else "UNCOMPRESSED"
        self._stream = unpacked(body, codec, header.packed - sum(map(len, levels)))
        self._levels = [
            self._runs_of(levels[place] if levels else None, max_level, header.level_encodings[place])
            for place, max_level in enumerate(max_levels)
        ]
        self.starts = np.flatnonzero(self._levels[0] == 0)
        self.is_value = self._levels[1] == max_levels[1]

    def row_sizes(self, of_dictionary: Numbers | None) -> Numbers:
        """Return how many bytes each row has; what a page of the first version begins with may belong to one before."""
        sizes = np.zeros(len(self.is_value), np.int64)
        count = int(self.is_value.sum())
        if self.header.has_indices and of_dictionary is not None:
            sizes[self.is_value] = of_dictionary[self._indices()]
        else:
            self._check()
            sizes[self.is_value] = [self.skip_value() for _ in range(count)]
        rows = np.cumsum(self._levels[0] == 0)
        return np.bincount(rows - rows[:1], sizes).astype(np.int64) if len(rows) else sizes

    def pages(self, first: int, dictionary: "Dictionary | None") -> Iterator[bytes]:
        """Give its entries, from one on, as pages of version 2, packed by nothing and without a dictionary."""
        count = len(self.is_value)
        values = self._values(int(self.is_value[:first].sum()), dictionary)
        held: list[bytes] = []
        for place in np.flatnonzero(self.is_value[first:count]) + first:
            if sum(map(len, held)) >= PIECE_BYTES:
                yield self._page(first, int(place), held)
                first, held = int(place), []
            held.append(next(values))
        if first < count:
            yield self._page(first, count, held)

    def _values(self, skipped: int, dictionary: "Dictionary | None") -> Iterator[bytes]:
        if self.header.has_indices:
            if dictionary is None:
                raise CannotStream("found indices and no dictionary")
            yield from dictionary.values(self._indices()[skipped:])
            return
        self._check()
        for _ in range(skipped):
            self.skip_value()
        while True:
            yield self.value()

    def value(self) -> bytes:
        """Return the next value as it stands there."""
        if self._width:
            return self._stream.exactly(self._width)
        head = self._stream.exactly(4)
        return head + self._stream.exactly(int.from_bytes(head, "little"))

    def skip_value(self) -> int:
        """Pass over the next value; return its length."""
        size = self._width or int.from_bytes(self._stream.exactly(4), "little")
        self._stream.skip(size)
        return size

    def _indices(self) -> Numbers:
        width = self._stream.exactly(1)[0]
        return _runs(self._stream.rest(), width, int(self.is_value.sum()))

    def _check(self) -> None:
        plain = (PLAIN, PLAIN_DICTIONARY) if self.header.kind == DICTIONARY_PAGE else (PLAIN,)
        if self.header.encoding not in plain:
            raise CannotStream(f"found values of encoding {self.header.encoding}")

    def _runs_of(self, data: bytes | None, max_level: int, encoding: int | None) -> Numbers:
        count = self.header.num_values
        if not max_level:
            return np.zeros(count, np.int64)
        if encoding != RLE:
            raise CannotStream(f"found levels of encoding {encoding}")
        if data is None:
            data = self._stream.exactly(int.from_bytes(self._stream.exactly(4), "little"))
        return _runs(data, max_level.bit_length(), count)

    def _page(self, first: int, end: int, values: list[bytes]) -> bytes:
        levels = [_run_bytes(self._levels[place][first:end], self._max_levels[place]) for place in (0, 1)]
        num_rows = int((self._levels[0][first:end] == 0).sum())
        return _page(num_rows, end - first, levels, values)


class Dictionary:
    """The values of a dictionary that is too large to be held."""

    def __init__(self, file: BinaryIO, span: tuple[int, int], leaf: Leaf) -> None:
        self._page = file, span, leaf
        self._sizes: Numbers | None = None
        self._open, self._next = Body(*self._page), 0

    @property
    def sizes(self) -> Numbers:
        """How many bytes each value has."""
        if self._sizes is None:
            self._sizes = Body(*self._page).row_sizes(None)
        return self._sizes

    def values(self, indices: Numbers) -> Iterator[bytes]:
        """Give values by their places, some of them held at once."""
        before = np.concatenate([[0], np.cumsum(self.sizes[indices])])
        first = 0
        while first < len(indices):
            end = max(first + 1, int(np.searchsorted(before, before[first] + PIECE_BYTES)))
            found = self._found(indices[first:end])
            yield from (found[index] for index in indices[first:end].tolist())
            first = end

    def _found(self, indices: Numbers) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for index in np.unique(indices).tolist():
            if index < self._next:
                self._open, self._next = Body(*self._page), 0
            for _ in range(index - self._next):
                self._open.skip_value()
            found[index] = self._open.value()
            self._next = index + 1
        return found


# One row that is null: before pages that begin within a row, so that what comes first there is a row's end.
def beginning(max_levels: tuple[int, int]) -> bytes:
    """Return a page with one null, which begins a row."""
    levels = [_run_bytes(np.zeros(1, np.int64), max_level) for max_level in max_levels]
    return _page(1, 1, levels, [])


def _page(num_rows: int, count: int, levels: list[bytes], values: list[bytes]) -> bytes:
    of_lists, of_nulls = map(len, levels)
    numbers = (count, count - len(values), num_rows, PLAIN, of_nulls, of_lists)
    head: Struct = {place: (I32, number) for place, number in enumerate(numbers, 1)}
    size = of_lists + of_nulls + sum(map(len, values))
    header: Struct = {1: (I32, DATA_PAGE_V2), 2: (I32, size), 3: (I32, size), 8: (STRUCT, head | {7: (FALSE, False)})}
    return b"".join([write_struct(header), *levels, *values])


class _Window(SizedFile):
    """Some bytes of a file; nothing is read beyond them."""

    def __init__(self, file: BinaryIO, first_byte: int, end_byte: int) -> None:
        super().__init__(end_byte - first_byte)
        self._file, self._first = file, first_byte

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        view[:count] = read_at(self._file, self._first + self._position, count)
        self._position += count
        return count


def _window(file: BinaryIO, first_byte: int, end_byte: int) -> BinaryIO:
    is_near = isinstance(file, io.FileIO | io.BytesIO)
    block_bytes = JUMPED_BYTES if is_near else FETCHED_BYTES
    return cast(BinaryIO, io.BufferedReader(_Window(file, first_byte, end_byte), block_bytes))


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
