"""Open single pages of a column of Parquet: the levels that say what is null or in a list, and their values.

https://github.com/apache/parquet-format/blob/master/Encodings.md
"""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from pipeline.input.formats.page_headers import (
    DATA_PAGE_V2,
    DICTIONARY_PAGE,
    PLAIN,
    PLAIN_DICTIONARY,
    RLE,
    Leaf,
    read_at,
    read_header,
)
from pipeline.input.formats.page_runs import Numbers, read_runs, write_runs
from pipeline.input.formats.page_streams import CannotStream, unpacked
from pipeline.input.formats.thrift import FALSE, I32, STRUCT, Struct, write_struct
from pipeline.storage.ranged_file import SizedFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A page that is made here has about so many.
PIECE_BYTES = 16 * 2**20
# What is read at once: a disk costs nothing to jump over values, a store in a network takes its time for each request.
JUMPED_BYTES, FETCHED_BYTES = 2**12, 2**22


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
        return read_runs(self._stream.rest(), width, int(self.is_value.sum()))

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
        return read_runs(data, max_level.bit_length(), count)

    def _page(self, first: int, end: int, values: list[bytes]) -> bytes:
        levels = [write_runs(self._levels[place][first:end], self._max_levels[place]) for place in (0, 1)]
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
    levels = [write_runs(np.zeros(1, np.int64), max_level) for max_level in max_levels]
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
