"""Tell what the rows of a large row group take decoded, page by page.

A page's header says how many bytes its values are; where rows share values, or a page is more than a unit may take, the
dictionary is read, or the page.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.input.formats.page_bodies import Body, Dictionary
from pipeline.input.formats.page_files import Pages, Place, footer_of_pages
from pipeline.input.formats.page_headers import OF_BYTES
from pipeline.input.formats.page_runs import Numbers
from pipeline.input.formats.page_streams import CannotStream
from pipeline.input.formats.pages import Chunk, Page
from pipeline.input.formats.rows import LIMIT_BYTES
from pipeline.input.formats.thrift import NotThrift

MEASURED_ROWS = 16


@dataclass(frozen=True)
class Extent:
    """How many bytes the rows of a chunk take.

    Attributes:
        first_rows: Of consecutive pieces of it, the first row of each; a piece may begin within a row.
        end_rows: One more than the last one of each.
        before: The bytes of all pieces before each, and of all.
    """

    first_rows: Numbers
    end_rows: Numbers
    before: Numbers

    def about(self, start: int, stop: int) -> float:
        """Return how many bytes rows take if those of a piece are alike."""
        rows = np.concatenate([[0], self.end_rows])
        first, last = np.interp([start, stop], rows, self.before)
        return float(last - first)

    def at_most(self, start: int, stop: int) -> int:
        """Return how many bytes rows take if all of a piece belong to those asked for."""
        first = np.searchsorted(self.end_rows, start, "right")
        last = np.searchsorted(self.first_rows, stop, "left")
        return int(self.before[last] - self.before[first])


def most_bytes() -> int:
    """Return what a unit may take; what is not bounded exactly stays below the rest of twice the limit."""
    return 2 * LIMIT_BYTES - LIMIT_BYTES // 4


class Measure:
    """Tells what the pages of one row group take decoded."""

    def __init__(self, file: BinaryIO, group: int, unit_rows: int, num_chunks: int) -> None:
        self._file, self._group, self._unit_rows = file, group, unit_rows
        self._sizes: dict[int, Numbers] = {}  # of the dictionary of one column at a time
        self._page_bytes = most_bytes() // max(1, num_chunks)
        self._spare_bytes = LIMIT_BYTES // 4 // max(1, num_chunks)

    def extent(self, chunk: Chunk) -> Extent:
        """Return how many bytes the rows of a chunk take."""
        pieces: list[tuple[int, int, int]] = []  # first row, end row, bytes
        values = sum(page.num_values - page.num_nulls for page in chunk.pages if page.shares_values)
        repeats = max(0, values - chunk.dictionary_values)
        for page in chunk.pages:
            size, is_bounded = self._bytes_of(chunk, page, repeats)
            is_bounded = is_bounded and (size <= self._page_bytes or page.end_row - page.first_row == 1)
            exact = None if is_bounded else self._exactly(chunk, page)
            pieces += exact or [(page.first_row, page.end_row, size)]
        firsts, ends, sizes = np.array(pieces, np.int64).T
        return Extent(firsts, ends, np.concatenate([[0], np.cumsum(sizes)]))

    def _bytes_of(self, chunk: Chunk, page: Page, repeats: int) -> tuple[int, bool]:
        """Return the bytes of a page's values as it seems, and whether a unit cannot have many more of them."""
        if chunk.leaf.width:
            return page.num_values * chunk.leaf.width, True
        if not page.shares_values:
            return page.decoded_bytes, True
        together = page.num_values if chunk.leaf.max_levels[0] else min(page.num_values, self._unit_rows)
        if chunk.dictionary == (0, 0):  # values share their beginnings: none is longer than all that is stored
            return page.decoded_bytes, page.decoded_bytes * together <= self._spare_bytes
        # Where every value stands once, they are what the dictionary is; else each may be the longest.
        size = page.num_values * chunk.dictionary_bytes // max(1, chunk.dictionary_values)
        is_small = chunk.dictionary_bytes * (1 + repeats) <= self._page_bytes
        return size, is_small or chunk.dictionary_bytes * together <= self._spare_bytes

    def _exactly(self, chunk: Chunk, page: Page) -> list[tuple[int, int, int]] | None:
        """Return the bytes of a page's rows; None where it is broken."""
        try:
            try:
                return self._streamed(chunk, page)
            except CannotStream:
                return list(self._decoded(chunk, page))
        except (CannotStream, NotThrift, IndexError, pa.ArrowException, OSError) as error:
            # Whoever reads rows of a page that is broken will say so; the plan goes by what its header says.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            return None

    def _streamed(self, chunk: Chunk, page: Page) -> list[tuple[int, int, int]]:
        if chunk.leaf.type not in OF_BYTES:
            raise CannotStream(f"found values of type {chunk.leaf.type}")
        body = Body(self._file, (page.first_byte, page.end_byte), chunk.leaf)
        sizes = body.row_sizes(self._of_dictionary(chunk) if body.header.has_indices else None)
        rows = range(page.first_row, page.first_row + len(sizes))
        return [(row, row + 1, size) for row, size in zip(rows, sizes.tolist(), strict=True)]

    def _of_dictionary(self, chunk: Chunk) -> Numbers:
        if chunk.leaf.number not in self._sizes:
            self._sizes = {chunk.leaf.number: Dictionary(self._file, chunk.dictionary, chunk.leaf).sizes}
        return self._sizes[chunk.leaf.number]

    def _decoded(self, chunk: Chunk, page: Page) -> Iterator[tuple[int, int, int]]:
        """Give what Arrow makes of a page that cannot be read piece by piece."""
        dictionary = chunk.dictionary if page.shares_values else (0, 0)
        place = Place(page.first_byte, page.end_byte, page.first_row, page.begins_row, dictionary)
        rows = Pages(self._file, chunk.leaf, place, page.first_row).rows(footer_of_pages(self._file, self._group))
        while rows.row < page.end_row:
            first, end = rows.row, min(rows.row + MEASURED_ROWS, page.end_row)
            table = rows.take(first, end, end)
            step = 1 if table.nbytes > self._spare_bytes else MEASURED_ROWS
            for row in range(first, end, step):
                yield row, min(row + step, end), table.slice(row - first, step).nbytes
