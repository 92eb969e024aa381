"""Find where the pages of a Parquet file's columns lie and what is in them.

A column of a row group is a chunk: perhaps a page with a dictionary, then pages of values, one behind the other, each
after a header that says its size. Of pages of lists in version 1.0 the levels are read, too: their headers say no rows.
"""

import functools
from dataclasses import dataclass, replace
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.formats.page_bodies import Body
from pipeline.input.formats.page_headers import (
    DATA_PAGE,
    DATA_PAGE_V2,
    DELTA_BYTE_ARRAY,
    DICTIONARY_PAGE,
    OF_BYTES,
    Header,
    Leaf,
    read_header,
)
from pipeline.input.formats.page_streams import CannotStream
from pipeline.input.formats.thrift import NotThrift

WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True)
class Page:
    """Values of some rows, one behind the other in the file.

    Attributes:
        first_byte: Where its header begins.
        end_byte: Where it ends.
        first_row: Of which it has values, counted in the row group.
        end_row: One more than its last row.
        begins_row: Whether it has its first row from the beginning; the page before may have some elements of its list.
        num_values: Of lists, those of their elements; nulls count.
        num_nulls: As many of these are known to be null.
        decoded_bytes: Its values as they will be in memory; of a page that shares values, as they are stored.
        shares_values: Whether values are stored once and stand in several rows, so that decoding makes more of them.
    """

    first_byte: int
    end_byte: int
    first_row: int
    end_row: int
    begins_row: bool
    num_values: int
    num_nulls: int
    decoded_bytes: int
    shares_values: bool


@dataclass(frozen=True)
class Chunk:
    """The values of one column, or of one field of a nested one, in a row group.

    Attributes:
        leaf: Which.
        pages: In their order.
        dictionary: The bytes that the dictionary's page lies in, if there is one.
        dictionary_bytes: Of its values.
        dictionary_values: How many.
    """

    leaf: Leaf
    pages: tuple[Page, ...]
    dictionary: tuple[int, int] = (0, 0)
    dictionary_bytes: int = 0
    dictionary_values: int = 0

    @functools.cached_property
    def num_bytes(self) -> int:
        """Its bytes in the file."""
        first, end = self.dictionary
        return self.pages[-1].end_byte - self.pages[0].first_byte + end - first


def find_pages(file: BinaryIO, leaf: Leaf, num_rows: int) -> Chunk | None:
    """Return the pages of a chunk of so many rows; None where their rows cannot be told, or headers are broken."""
    try:
        chunk = _walk(file, leaf)
    except (NotThrift, CannotStream, IndexError):
        return None
    return chunk if chunk.pages and chunk.pages[-1].end_row == num_rows else None


def leaf_of(metadata: pq.FileMetaData, group: int, number: int) -> Leaf:
    """Return what a footer says of a chunk."""
    column, schema = metadata.row_group(group).column(number), metadata.schema.column(number)
    first = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        first = min(first, column.dictionary_page_offset)
    levels = schema.max_repetition_level, schema.max_definition_level
    width = WIDTHS.get(schema.physical_type) or max(0, int(schema.length))
    end = first + column.total_compressed_size
    return Leaf(number, first, end, column.compression, levels, schema.physical_type, width)


def fields_of_leaves(schema: pa.Schema) -> list[str]:
    """Return which field of a file's schema each of its columns belongs to."""
    return [field.name for field in schema for _ in range(_num_leaves(field.type))]


def _num_leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _num_leaves(kind.storage_type)
    if not pa.types.is_nested(kind):
        return 1
    return sum(_num_leaves(kind.field(place).type) for place in range(kind.num_fields))


def _walk(file: BinaryIO, leaf: Leaf) -> Chunk:
    pages: list[Page] = []
    dictionary, dictionary_bytes, dictionary_values, row = (0, 0), 0, 0, 0
    position = leaf.first_byte
    while position < leaf.end_byte:
        header = read_header(file, position, leaf.end_byte)
        after = position + header.length + header.packed
        if header.kind == DICTIONARY_PAGE:
            dictionary, dictionary_bytes, dictionary_values = (position, after), header.unpacked, header.num_values
        elif header.kind in (DATA_PAGE, DATA_PAGE_V2) and header.num_values:
            num_rows, begins_row, num_nulls = header.num_rows, True, header.num_nulls
            if num_rows is None and not leaf.max_levels[0]:
                num_rows = header.num_values
            elif num_rows is None:
                body = Body(file, (position, after), leaf)
                num_rows, begins_row = len(body.starts), body.starts[:1].tolist() == [0]
                num_nulls = header.num_values - int(body.is_value.sum())
            first = row if begins_row else row - 1
            page = _page(header, (position, after), (first, row + num_rows), begins_row, num_nulls)
            pages.append(page if begins_row or leaf.type in OF_BYTES or not pages else _together(pages.pop(), page))
            row += num_rows
        position = after
    return Chunk(leaf, tuple(pages), dictionary, dictionary_bytes, dictionary_values)


def _page(header: Header, lies: tuple[int, int], rows: tuple[int, int], begins_row: bool, num_nulls: int) -> Page:
    shares_values = header.has_indices or header.encoding == DELTA_BYTE_ARRAY
    return Page(*lies, *rows, begins_row, header.num_values, num_nulls, header.unpacked, shares_values)


def _together(one: Page, other: Page) -> Page:
    """Return pages of which the second begins within a row as if they were one: lists of numbers are not large."""
    sums = {name: getattr(one, name) + getattr(other, name) for name in ("num_values", "num_nulls", "decoded_bytes")}
    return replace(one, end_byte=other.end_byte, end_row=other.end_row, **sums)
