"""Cut the rows of a large row group into units by its pages and by what they take decoded, and note where each lies.

Pages are read by those units alone that have rows in them. It reads headers; dictionaries and pages themselves only
where a bound on what a unit takes cannot be had otherwise.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import BinaryIO

import numpy as np
import pyarrow.parquet as pq

from pipeline.input.formats.page_files import Place
from pipeline.input.formats.page_runs import Numbers
from pipeline.input.formats.page_sizes import Extent, Measure, most_bytes
from pipeline.input.formats.pages import Chunk, find_pages, leaf_of
from pipeline.input.formats.rows import LIMIT_BYTES, Slice

# Of smaller row groups each unit reads its columns from the start.
SHARED_BYTES = 4 * 2**20
# Smaller chunks are read whole.
WHOLE_BYTES = 2**18
# Numbers in the note of a unit: first the row group and its first row, then so many for each chunk.
CHUNK_NUMBERS = 10
WITHIN_ROW = 2


@dataclass(frozen=True)
class Noted:
    """Where the pages of some rows of a chunk lie.

    Attributes:
        leaf: The chunk's column.
        first_byte: Of their first page.
        head_end: Where their first page ends.
        tail_first: Where the last one begins; the end, where it is the first one.
        end_byte: Where it ends.
        first_row: Of the first page, counted in the row group.
        end_row: One more than the last page's last row.
        dictionary_first: Where the dictionary's page begins; 0 if they need none.
        dictionary_end: Where it ends.
        flags: `WITHIN_ROW` if the first page begins within a row; 1 has no meaning any more.
    """

    leaf: int
    first_byte: int
    head_end: int
    tail_first: int
    end_byte: int
    first_row: int
    end_row: int
    dictionary_first: int
    dictionary_end: int
    flags: int

    @property
    def place(self) -> Place:
        """The pages, for who reads them."""
        dictionary = self.dictionary_first, self.dictionary_end
        return Place(self.first_byte, self.end_byte, self.first_row, not self.flags & WITHIN_ROW, dictionary)

    def own(self, start: int, stop: int) -> tuple[int, int]:
        """Return the bytes that these rows alone need."""
        is_alone = self.tail_first == self.end_byte
        first = self.first_byte if self.first_row >= start else self.head_end
        end = self.end_byte if self.end_row <= stop else (self.first_byte if is_alone else self.tail_first)
        return first, max(first, end)


@dataclass(frozen=True)
class Group:
    """A row group whose pages were looked at.

    Attributes:
        number: Its place.
        num_rows: Of it.
        noted: Its large chunks.
        extents: What its rows take decoded, chunk by chunk.
        unknown: Large columns that cannot be read by their pages.
    """

    number: int
    num_rows: int
    noted: Sequence[Chunk]
    extents: Sequence[Extent]
    unknown: Sequence[str]

    @property
    def most_bytes(self) -> int:
        """A bound on all of its rows."""
        return sum(extent.at_most(0, self.num_rows) for extent in self.extents)

    def cut(self, unit_rows: int, first: int, most_rows: int) -> Iterator[Slice]:
        """Cut it into slices of at most `unit_rows` rows, with notes where their pages lie.

        Args:
            unit_rows: The most rows of a slice.
            first: The row group's first row, counted in the file.
            most_rows: So many rows of it are wanted.
        """
        main = max(self.noted, key=lambda chunk: chunk.num_bytes, default=None)
        ends = np.array([page.end_row for page in main.pages] if main else [self.num_rows], np.int64)
        for start, stop in _cuts(self.num_rows, unit_rows, self.extents, ends):
            if start >= most_rows:
                return
            is_whole = (start, stop) == (0, self.num_rows)
            places = [number for chunk in self.noted for number in astuple(note(chunk, start, stop))]
            yield Slice(first + start, first + stop, pages=() if is_whole else (self.number, first, *places))


def is_large(metadata: pq.FileMetaData, group: int, unit_rows: int) -> bool:
    """Say whether a row group's pages matter: several units read it, or rows may take more than they seem to."""
    found = metadata.row_group(group)
    if found.num_rows > unit_rows and packed_bytes(found) > SHARED_BYTES:
        return True
    rows = min(unit_rows, found.num_rows)
    return sum(_most_bytes(found.column(leaf), rows) for leaf in range(found.num_columns)) > LIMIT_BYTES // 2


def look_at(
    file: BinaryIO, metadata: pq.FileMetaData, group: int, unit_rows: int, whole_leaves: Collection[int]
) -> Group:
    """Find a row group's pages, and what they take decoded.

    Args:
        file: The Parquet file.
        metadata: Its footer.
        group: The row group.
        unit_rows: The most rows of a unit.
        whole_leaves: Fields of columns that cannot be put together of their fields.
    """
    num_rows = metadata.row_group(group).num_rows
    chunks, others, unknown = _chunks(file, metadata, group, unit_rows, whole_leaves)
    measure = Measure(file, group, unit_rows, len(chunks))
    extents = [measure.extent(chunk) for chunk in chunks]
    extents.append(Extent(np.array([0]), np.array([num_rows]), np.array([0, others])))
    return Group(group, num_rows, [chunk for chunk in chunks if chunk.num_bytes > WHOLE_BYTES], extents, unknown)


def read_note(numbers: Sequence[int]) -> tuple[int, int, list[Noted]]:
    """Return the row group of a unit, the group's first row in the file, and where the unit's pages lie."""
    group, first, *rest = numbers
    notes = [rest[place : place + CHUNK_NUMBERS] for place in range(0, len(rest), CHUNK_NUMBERS)]
    return group, first, [Noted(*note) for note in notes]


def note(chunk: Chunk, start: int, stop: int) -> Noted:
    """Return where the pages of some rows of a chunk lie."""
    first = bisect_right(chunk.pages, start, key=lambda page: page.end_row)
    pages = chunk.pages[first : bisect_left(chunk.pages, stop, key=lambda page: page.first_row)]
    head, tail = pages[0], pages[-1]
    dictionary = chunk.dictionary if any(page.shares_values for page in pages) else (0, 0)
    tail_first = tail.first_byte if len(pages) > 1 else tail.end_byte
    lies = (head.first_byte, head.end_byte, tail_first, tail.end_byte)
    flags = 0 if head.begins_row else WITHIN_ROW
    return Noted(chunk.leaf.number, *lies, head.first_row, tail.end_row, *dictionary, flags)


def _cuts(num_rows: int, unit_rows: int, extents: Sequence[Extent], ends: Numbers) -> Iterator[tuple[int, int]]:
    """Cut at the ends of pages where there are some, by rows and by bytes."""
    start = 0
    while start < num_rows:
        stop = _fitting(start, min(start + unit_rows, num_rows), extents)
        place = np.searchsorted(ends, stop, "right")
        if place and ends[place - 1] > start:
            stop = int(ends[place - 1])
        while stop - start > 1 and sum(extent.at_most(start, stop) for extent in extents) > most_bytes():
            stop = start + (stop - start) // 2
        yield start, stop
        start = stop


def _fitting(start: int, stop: int, extents: Sequence[Extent]) -> int:
    """Return the largest stop with which rows are about as many bytes as a unit may have."""

    def is_fitting(stop: int) -> bool:
        return sum(extent.about(start, stop) for extent in extents) <= LIMIT_BYTES

    if is_fitting(stop):
        return stop
    low, high = start + 1, stop
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_fitting(middle) else (low, middle)
    return low


def _chunks(
    file: BinaryIO, metadata: pq.FileMetaData, group: int, unit_rows: int, whole_leaves: Collection[int]
) -> tuple[list[Chunk], int, list[str]]:
    """Return the chunks whose pages matter, the bytes of all others together, and those whose pages say too little."""
    found = metadata.row_group(group)
    rows = min(unit_rows, found.num_rows)
    chunks: list[Chunk] = []
    unknown: list[str] = []
    others = 0
    for leaf in range(found.num_columns):
        column = found.column(leaf)
        is_bounded = _most_bytes(column, rows) <= LIMIT_BYTES // 8 // found.num_columns
        is_whole = column.total_compressed_size <= WHOLE_BYTES and is_bounded
        is_noted = not is_whole and leaf not in whole_leaves
        chunk = find_pages(file, leaf_of(metadata, group, leaf), found.num_rows) if is_noted else None
        if chunk is not None:
            chunks.append(chunk)
            continue
        others += column.total_uncompressed_size
        if not is_whole:
            unknown.append(column.path_in_schema)
    return chunks, others, unknown


def packed_bytes(found: pq.RowGroupMetaData) -> int:
    """Return the bytes of a row group's columns in the file."""
    return sum(found.column(leaf).total_compressed_size for leaf in range(found.num_columns))


def _most_bytes(column: pq.ColumnChunkMetaData, rows: int) -> int:
    """Return a bound on what some rows of a chunk take decoded: each may be the largest value of its dictionary."""
    if column.physical_type != "BYTE_ARRAY" or not _SHARING.intersection(column.encodings):
        return int(column.total_uncompressed_size)
    return int(column.total_uncompressed_size) * max(1, rows)


_SHARING = {"PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_BYTE_ARRAY"}
