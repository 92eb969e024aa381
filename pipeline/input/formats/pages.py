"""Find where the pages of a Parquet file's columns lie and what is in them, from their headers alone.

A column of a row group is a chunk: perhaps a page with a dictionary, then pages of values, one behind the other, each
after a header that says its size. The structs are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

import functools
import struct
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from pipeline.input.formats.thrift import NotThrift, Struct, get, read_struct

# A header takes 20 to 100 bytes; its statistics may hold two values of up to 4 KiB.
HEADER_BYTES, LONGEST_HEADER_BYTES = 256, 2**20
DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = range(4)
PLAIN, PLAIN_DICTIONARY, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 2, 7, 8
TAIL_BYTES = 8  # the footer's length, and the magic


@dataclass(frozen=True)
class Page:
    """Values of some rows, one behind the other in the file.

    Attributes:
        first_byte: Where its header begins.
        end_byte: Where it ends.
        first_row: Counted in the row group.
        end_row: One more than its last row.
        num_values: Of lists, those of their elements; nulls count.
        num_nulls: As many of these are known to be null.
        decoded_bytes: Its values as they will be in memory; of a page that shares values, as they are stored.
        shares_values: Whether values are stored once and stand in several rows, so that decoding makes more of them.
    """

    first_byte: int
    end_byte: int
    first_row: int
    end_row: int
    num_values: int
    num_nulls: int
    decoded_bytes: int
    shares_values: bool


@dataclass(frozen=True)
class Chunk:
    """The values of one column, or of one field of a nested one, in a row group.

    Attributes:
        leaf: Which of the file's columns, fields of nested ones counted by themselves.
        pages: In their order.
        dictionary: The bytes that the dictionary's page lies in, if there is one.
        dictionary_bytes: Of its values.
        dictionary_values: How many.
    """

    leaf: int
    pages: tuple[Page, ...]
    dictionary: tuple[int, int] = (0, 0)
    dictionary_bytes: int = 0
    dictionary_values: int = 0

    @functools.cached_property
    def dictionary_end_row(self) -> int:
        """One more than the last row that may need the dictionary."""
        return max((page.end_row for page in self.pages if page.shares_values), default=0)


def read_footer(file: BinaryIO) -> bytes:
    """Return the footer of a Parquet file: one struct, FileMetaData."""
    size = file.seek(0, 2)
    length, magic = struct.unpack("<I4s", read_at(file, size - TAIL_BYTES, TAIL_BYTES))
    if magic != b"PAR1" or length > size - TAIL_BYTES:
        raise NotThrift(f"the file ends with {magic!r} after a length of {length}, expected b'PAR1' and a footer")
    return read_at(file, size - TAIL_BYTES - length, length)


@functools.lru_cache(maxsize=2)  # unit after unit of one shard
def parsed(footer: bytes) -> Struct:
    """Return a footer's fields."""
    return read_struct(footer)[0]


def read_at(file: BinaryIO, position: int, count: int) -> bytes:
    """Read at a place and no further: what a buffered file would read ahead is a multiple of a page's header."""
    raw: Any = getattr(file, "raw", file)
    raw.seek(position)
    data = bytearray()
    while len(data) < count and (more := raw.read(count - len(data))):
        data += more
    if len(data) < count:
        raise NotThrift(f"found {len(data)} bytes at {position}, expected {count}")
    return bytes(data)


def find_pages(file: BinaryIO, metadata: pq.FileMetaData, group: int, leaf: int) -> Chunk | None:
    """Return the pages of a chunk; None where their rows cannot be told without reading them, or headers are broken.

    Pages of the first version do not say how many rows of lists they hold, unless the file has an index of its pages.
    """
    column = metadata.row_group(group).column(leaf)
    first = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        first = min(first, column.dictionary_page_offset)
    is_flat = metadata.schema.column(leaf).max_repetition_level == 0
    try:
        starts = _row_starts(file, group, leaf) if column.has_offset_index and not is_flat else {}
        chunk = _walk(file, leaf, first, first + column.total_compressed_size, is_flat=is_flat, starts=starts)
    except (NotThrift, TypeError, struct.error):
        return None
    if chunk is None or not chunk.pages or chunk.pages[-1].end_row > metadata.row_group(group).num_rows:
        return None
    pages = list(chunk.pages)
    if starts:  # where each ends, the next one says
        ends = [page.first_row for page in pages[1:]] + [metadata.row_group(group).num_rows]
        pages = [replace(page, end_row=end) for page, end in zip(pages, ends, strict=True)]
    if pages[-1].end_row != metadata.row_group(group).num_rows:
        return None
    return replace(chunk, pages=tuple(pages))


def _walk(file: BinaryIO, leaf: int, position: int, end: int, *, is_flat: bool, starts: dict[int, int]) -> Chunk | None:
    pages: list[Page] = []
    dictionary, dictionary_bytes, dictionary_values, row = (0, 0), 0, 0, 0
    while position < end:
        header, length = read_header(file, position, end)
        kind, unpacked, packed = (get(header, field) for field in (1, 2, 3))
        after = position + length + packed
        if packed < 0 or unpacked < 0 or after > end:
            raise NotThrift(f"the page at byte {position} does not end within its column")
        if kind == DICTIONARY_PAGE:
            dictionary, dictionary_bytes = (position, after), unpacked
            dictionary_values = get(header, 7, 1)
        elif kind in (DATA_PAGE, DATA_PAGE_V2):
            page = get(header, 5 if kind == DATA_PAGE else 8)
            values, encoding = get(page, 1), get(page, 2 if kind == DATA_PAGE else 4)
            if starts:
                first_row = end_row = starts.get(position, -1)
            elif kind == DATA_PAGE and not is_flat:
                return None
            else:
                first_row, end_row = row, row + (values if kind == DATA_PAGE else get(page, 3))
            if first_row < 0 or end_row < first_row:
                raise NotThrift(f"the page at byte {position} does not say its rows")
            shares = encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY, DELTA_BYTE_ARRAY)
            nulls = (get(page, 5, 3) if kind == DATA_PAGE else get(page, 2)) or 0
            pages.append(Page(position, after, first_row, end_row, values, nulls, unpacked, shares))
            row = end_row
        position = after
    return Chunk(leaf, tuple(pages), dictionary, dictionary_bytes, dictionary_values)


def read_header(file: BinaryIO, position: int, end: int) -> tuple[Struct, int]:
    """Return the header of the page at a position, and its length; what it belongs to ends at `end`."""
    count = HEADER_BYTES
    while True:
        count = min(count, end - position)
        data = read_at(file, position, count)
        try:
            return read_struct(data)
        except NotThrift:
            if count in (end - position, LONGEST_HEADER_BYTES):
                raise
            count = min(count * 16, LONGEST_HEADER_BYTES)


def _row_starts(file: BinaryIO, group: int, leaf: int) -> dict[int, int]:
    """Return the first row of each page by its place, as the file's own index says (OffsetIndex)."""
    chunk = get(parsed(read_footer(file)), 4)[1][group]
    column = get(chunk, 1)[1][leaf]
    offset, length = get(column, 4), get(column, 5)
    index, _ = read_struct(read_at(file, offset, length))
    return {get(place, 1): get(place, 3) for place in get(index, 1)[1]}
