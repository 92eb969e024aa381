"""Tell what the rows of a large row group take decoded, page by page.

A page's header says how many bytes its values are; where rows share values, or a page is more than a unit may take, the
dictionary is read, or the page.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.input.formats.page_files import Piece, Stretch, open_pages, source, window
from pipeline.input.formats.page_streams import CannotStream, Source, index_sizes, value_sizes
from pipeline.input.formats.pages import Chunk, Page, read_footer
from pipeline.input.formats.rows import LIMIT_BYTES
from pipeline.input.formats.thrift import NotThrift, get

Numbers = np.ndarray[Any, np.dtype[np.int64]]

WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
MEASURED_ROWS = 16
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)


@dataclass(frozen=True)
class Extent:
    """How many bytes a chunk's rows take: at some of its rows, all that come before."""

    rows: Numbers
    before: Numbers

    def about(self, start: int, stop: int) -> float:
        """Return how many bytes rows take if those between two marks are alike."""
        first, last = np.interp([start, stop], self.rows, self.before)
        return float(last - first)

    def at_most(self, start: int, stop: int) -> int:
        """Return how many bytes rows take if all between two marks belong to those asked for."""
        first = np.searchsorted(self.rows, start, "right") - 1
        last = np.searchsorted(self.rows, stop, "left")
        return int(self.before[last] - self.before[first])


def most_bytes() -> int:
    """Return what a unit may take; what is not bounded exactly stays below the rest of twice the limit."""
    return 2 * LIMIT_BYTES - LIMIT_BYTES // 4


class Measure:
    """Tells what the pages of one row group take decoded."""

    def __init__(self, file: BinaryIO, metadata: pq.FileMetaData, group: int, unit_rows: int, num_chunks: int) -> None:
        self._file, self._metadata, self._group, self._unit_rows = file, metadata, group, unit_rows
        self._sizes: dict[int, Numbers] = {}
        self._page_bytes = most_bytes() // max(1, num_chunks)
        self._spare_bytes = LIMIT_BYTES // 4 // max(1, num_chunks)

    def extent(self, chunk: Chunk) -> Extent:
        """Return how many bytes the rows of a chunk take."""
        column = self._metadata.row_group(self._group).column(chunk.leaf)
        is_bytes = column.physical_type == "BYTE_ARRAY"
        of_dictionary = self._of_dictionary(chunk, column) if is_bytes else None
        rows, before = [0], [0]
        for page in chunk.pages:
            size, is_bounded = page.decoded_bytes, True
            if not is_bytes:
                size = page.num_values * self._width(chunk.leaf, column.physical_type)
            elif page.shares_values:
                size, is_bounded = of_dictionary(page) if of_dictionary else self._of_prefixes(page)
            is_bounded = is_bounded and (size <= self._page_bytes or page.end_row - page.first_row == 1)
            sizes = None if is_bounded else self._row_sizes(chunk, page)
            if sizes is None:
                rows.append(page.end_row)
                before.append(before[-1] + size)
            else:
                rows += range(page.first_row + 1, page.end_row + 1)
                before += (before[-1] + np.cumsum(sizes)).tolist()
        return Extent(np.array(rows, np.int64), np.array(before, np.int64))

    def _of_dictionary(self, chunk: Chunk, column: pq.ColumnChunkMetaData) -> Callable[[Page], tuple[int, bool]] | None:
        """Return what tells of a page the bytes of its values, and whether a unit's are bounded.

        Where every value stands once, they are what the dictionary is; else any row may have the longest one.
        """
        if chunk.dictionary == (0, 0):
            return None
        values = sum(page.num_values - page.num_nulls for page in chunk.pages if page.shares_values)
        repeats = max(0, values - chunk.dictionary_values)
        mean = chunk.dictionary_bytes / max(1, chunk.dictionary_values)
        is_bounded = chunk.dictionary_bytes * (1 + repeats) <= self._page_bytes
        longest = chunk.dictionary_bytes
        if not is_bounded and longest * self._unit_rows > self._spare_bytes:
            longest = self._longest_value(chunk, column)
            is_bounded = chunk.dictionary_bytes + longest * repeats <= self._page_bytes

        def bytes_of(page: Page) -> tuple[int, bool]:
            together = min(page.num_values, self._unit_rows) if self._is_flat(chunk.leaf) else page.num_values
            return int(page.num_values * mean), is_bounded or longest * together <= self._spare_bytes

        return bytes_of

    def _of_prefixes(self, page: Page) -> tuple[int, bool]:
        """Return the bytes of values that share their beginnings: no value is longer than all that is stored."""
        return page.decoded_bytes, page.decoded_bytes * min(page.num_values, self._unit_rows) <= self._spare_bytes

    def _is_flat(self, leaf: int) -> bool:
        return bool(self._metadata.schema.column(leaf).max_repetition_level == 0)

    def _width(self, leaf: int, physical_type: str) -> int:
        return WIDTHS.get(physical_type) or int(self._metadata.schema.column(leaf).length)

    def _longest_value(self, chunk: Chunk, column: pq.ColumnChunkMetaData) -> int:
        try:
            return int(self._dictionary_sizes(chunk, column).max(initial=0))
        except _BROKEN as error:
            _raise_of_store(error)
            return chunk.dictionary_bytes

    def _dictionary_sizes(self, chunk: Chunk, column: pq.ColumnChunkMetaData) -> Numbers:
        if chunk.leaf not in self._sizes:
            page = source(Stretch(self._file, 0), *chunk.dictionary, column.compression, 0)
            if chunk.dictionary_bytes <= LIMIT_BYTES // 8:
                page = _unpacked(page)
            self._sizes = {chunk.leaf: value_sizes(page)}  # of one column at a time
        return self._sizes[chunk.leaf]

    def _streamed_sizes(self, chunk: Chunk, page: Page) -> Numbers | None:
        """Return the bytes of each row of a page that is too large to be unpacked; None where that cannot be told."""
        column = self._metadata.row_group(self._group).column(chunk.leaf)
        kind = (column.compression, self._metadata.schema.column(chunk.leaf).max_definition_level)
        own = source(Stretch(self._file, 0), page.first_byte, page.end_byte, *kind)
        try:
            if page.shares_values:
                return index_sizes(own, self._dictionary_sizes(chunk, column))
            return value_sizes(own)
        except _BROKEN as error:
            _raise_of_store(error)
            return None

    def _row_sizes(self, chunk: Chunk, page: Page) -> Numbers | None:
        """Return the bytes of each row of a page; None where it is broken."""
        schema = self._metadata.schema.column(chunk.leaf)
        is_large = page.decoded_bytes + page.shares_values * chunk.dictionary_bytes > LIMIT_BYTES
        is_streamed = is_large and self._is_flat(chunk.leaf) and schema.physical_type == "BYTE_ARRAY"
        if is_streamed and (streamed := self._streamed_sizes(chunk, page)) is not None:
            return streamed
        is_dictionary = page.shares_values and chunk.dictionary != (0, 0)
        stretches = [window(self._file, page.first_byte, page.end_byte)]
        if is_dictionary:
            stretches.insert(0, window(self._file, *chunk.dictionary))
        piece = Piece(chunk.leaf, stretches, stretches[0].size if is_dictionary else 0)
        num_rows = page.end_row - page.first_row
        try:
            own = open_pages(
                read_footer(self._file), self._group, [piece], num_rows, [schema.path] if is_dictionary else []
            )
            batches = own.iter_batches(MEASURED_ROWS, columns=[schema.path], use_threads=False)
            sizes = np.concatenate([_sizes(batch.column(0)) for batch in batches])
        except _BROKEN as error:
            _raise_of_store(error)
            return None
        return sizes if len(sizes) == num_rows else None


# Whoever reads rows of a page that is broken will say so; the plan goes by what its header says.
_BROKEN = (CannotStream, NotThrift, IndexError, pa.ArrowException, OSError)


def _raise_of_store(error: Exception) -> None:
    """Raise what the store complains of; Arrow's own complaints of this kind have no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _unpacked(page: Source) -> Source:
    """Unpack a small page at once, which takes much less time than piece by piece."""
    if page.codec == "UNCOMPRESSED":
        return page
    data = pa.decompress(page.body.read(), get(page.header, 2), codec=page.codec.lower(), asbytes=True)
    return replace(page, body=io.BytesIO(data), codec="UNCOMPRESSED")


def _sizes(array: pa.Array) -> Numbers:
    """Return how many bytes each value of an array takes, values that it shares with others counted each time."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sizes(array.storage)
    if pa.types.is_dictionary(kind):
        each = np.append(_sizes(array.dictionary), 0)
        return np.asarray(
            np.take(each, array.indices.fill_null(len(each) - 1).to_numpy(zero_copy_only=False)), np.int64
        )
    if pa.types.is_struct(kind):
        return _total((_sizes(array.field(place)) for place in range(kind.num_fields)), len(array))
    if any(is_list(kind) for is_list in _LISTS):
        ends = np.cumsum(array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
        before = np.concatenate([[0], np.cumsum(_sizes(array.flatten()))])
        return np.diff(np.take(before, np.concatenate([[0], ends])))
    if any(is_bytes(kind) for is_bytes in _BYTES):
        return np.asarray(pc.binary_length(array).fill_null(0), np.int64)
    return np.full(len(array), max(1, getattr(kind, "bit_width", 128) // 8), np.int64)


def _total(sizes: Iterable[Numbers], num_rows: int) -> Numbers:
    total = np.zeros(num_rows, np.int64)
    for each in sizes:
        total = total + each
    return total
