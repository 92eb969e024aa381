"""Show Arrow some pages of one column as if they were a file of their own, so that it decodes them and no others.

That file is never written: its bytes are made as Arrow asks for them, pages as they stand, those that are too large as
smaller ones, and its footer is the whole file's with all columns at places of their own.
"""

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.formats.page_bodies import Body, Dictionary, beginning
from pipeline.input.formats.page_headers import (
    DATA_PAGE,
    DATA_PAGE_V2,
    OF_BYTES,
    PLAIN,
    Header,
    Leaf,
    read_at,
    read_header,
)
from pipeline.input.formats.page_streams import CannotStream
from pipeline.input.formats.rows import LIMIT_BYTES
from pipeline.input.formats.thrift import I64, LIST, STRUCT, NotThrift, Struct, read_struct, write_struct
from pipeline.storage.ranged_file import SizedFile

MAGIC = b"PAR1"
TAIL_BYTES = 8  # the footer's length, and the magic
# Arrow shall ask for so much at once at least: for each column.
BUFFER_BYTES = 2**16
# Where columns stand in the file that Arrow sees, and how much of them there may be: more than of any real one.
SPACE_BYTES = MOST = 2**40


@dataclass(frozen=True)
class Place:
    """Where pages of a column begin and end.

    Attributes:
        first_byte: Of the first page.
        end_byte: Of the last one.
        first_row: Of which the first page has values.
        begins_row: Whether it has them from their beginning.
        dictionary: Where the dictionary's page lies; 0 to 0 where no page needs it.
    """

    first_byte: int
    end_byte: int
    first_row: int
    begins_row: bool
    dictionary: tuple[int, int]


class Rows:
    """Rows of some columns, one after the other."""

    def __init__(self, parquet: pq.ParquetFile, groups: Sequence[int], leaves: Sequence[int], row: int) -> None:
        self.row = row  # the next one
        self._parquet, self._columns = parquet, (list(groups), list(leaves))
        self._batches: Iterator[pa.RecordBatch] | None = None

    def take(self, start: int, stop: int, step: int) -> pa.Table:
        """Return rows; those before them are passed over, so many at once.

        Raises:
            pa.ArrowException: They are broken, or there are fewer.
        """
        while self.row < start:
            self._next(min(step, start - self.row))
        found = []
        while self.row < stop:
            found.append(self._next(stop - self.row))
        return pa.Table.from_batches(found)

    def _next(self, count: int) -> pa.RecordBatch:
        reader = self._parquet.reader
        if self._batches is None:
            groups, leaves = self._columns
            self._batches = reader.iter_batches(count, groups, column_indices=leaves, use_threads=False)
        reader.set_batch_size(count)  # what comes next has so many
        batch = next(self._batches, None)
        if batch is None:
            raise pa.ArrowInvalid(f"the pages end at row {self.row} of their row group")
        self.row += len(batch)
        return batch


class Pages(SizedFile):
    """A file with pages of one column, from one on up to `end_byte`, which may be set to a later one.

    Attributes:
        end_byte: Where they end in the whole file.
        first_row: The first row that Arrow will find.
        needs_dictionary: Whether it may need the dictionary.
    """

    def __init__(self, file: BinaryIO, leaf: Leaf, place: Place, start: int) -> None:
        """Open pages.

        Args:
            file: The Parquet file.
            leaf: The column.
            place: The pages.
            start: The first row that is wanted, which begins in the first page.
        """
        super().__init__((leaf.number + 2) * SPACE_BYTES)
        self.end_byte, self.needs_dictionary = place.end_byte, any(place.dictionary)
        self._file, self._leaf, self._place = file, leaf, place
        self._of_dictionary = read_header(file, *place.dictionary) if self.needs_dictionary else None
        self._dictionary: Dictionary | None = None
        self._can_stream = leaf.type in OF_BYTES
        first = self._opened(place.first_byte)
        self.first_row = place.first_row if isinstance(first, tuple) else start
        self._pieces = self._walk(first, start)
        self._piece: bytes | tuple[int, int] = b""
        self._left = 0  # bytes of it
        self._expected = (leaf.number + 1) * SPACE_BYTES

    def rows(self, metadata: pq.FileMetaData) -> Rows:
        """Read them by the footer that `footer_of_pages` makes."""
        parquet = pq.ParquetFile(self, metadata=metadata, pre_buffer=False, buffer_size=BUFFER_BYTES)
        return Rows(parquet, [0], [self._leaf.number], self.first_row)

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer where the pages end."""
        if self._position != self._expected:
            raise OSError(
                f"found a read at {self._position}, expected one at {self._expected}: pages are read forwards"
            )
        pieces = []
        while size and (piece := self._some(size)):
            pieces.append(piece)
            size -= len(piece)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._position += len(data)
        self._expected = self._position
        return data

    def _some(self, count: int) -> bytes:
        while not self._left:
            piece = next(self._pieces)
            if piece is None:
                return b""
            self._piece, self._left = piece, len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
        count = min(count, self._left)
        self._left -= count
        if isinstance(self._piece, bytes):
            return self._piece[len(self._piece) - self._left - count :][:count]
        return read_at(self._file, self._piece[1] - self._left - count, count)

    def _walk(self, page: "Body | tuple[int, int] | None", start: int) -> Iterator[bytes | tuple[int, int] | None]:
        """Give pages: where they lie, or their bytes; None where they end for now."""
        place, at = self._place, self._place.first_byte
        is_first = True
        if self._of_dictionary and not (self._can_stream and self._is_large_dictionary):
            yield place.dictionary
        while True:
            if at >= self.end_byte:
                yield None
                continue
            page = page or self._opened(at)
            if isinstance(page, Body):
                entry = int(page.starts[start - place.first_row - (not place.begins_row)]) if is_first else 0
                yield from page.pages(entry, self._dictionary)
                at = page.end_byte
            else:
                if is_first and not place.begins_row:
                    yield beginning(self._leaf.max_levels)
                yield page
                at = page[1]
            page, is_first = None, False

    def _opened(self, at: int) -> "Body | tuple[int, int]":
        """Return a page that is too large for Arrow, to be read piece by piece, or where it lies."""
        header = read_header(self._file, at, self._leaf.end_byte)
        lies = at, at + header.length + header.packed
        if not self._is_large(header):
            return lies
        try:
            if header.has_indices and self._dictionary is None:
                self._dictionary = Dictionary(self._file, self._place.dictionary, self._leaf)
            return Body(self._file, lies, self._leaf)
        except CannotStream:
            self._can_stream = False
            return lies

    def _is_large(self, header: Header) -> bool:
        """Say whether a page, or its rows decoded, should not be held, and need not be."""
        if header.kind not in (DATA_PAGE, DATA_PAGE_V2) or not self._can_stream:
            return False
        if header.has_indices and self._of_dictionary:
            each = self._of_dictionary.unpacked // max(1, self._of_dictionary.num_values)
            return self._is_large_dictionary or header.num_values * each > LIMIT_BYTES // 2
        return header.encoding == PLAIN and header.unpacked > LIMIT_BYTES // 2

    @property
    def _is_large_dictionary(self) -> bool:
        return self._of_dictionary is not None and self._of_dictionary.unpacked > LIMIT_BYTES // 2


def footer_of_pages(file: BinaryIO, group: int) -> pq.FileMetaData:
    """Return a Parquet file's footer for `Pages`: as if it had one row group, without end, its columns far apart.

    Raises:
        NotThrift: The file has none.
    """
    whole, _ = read_struct(_footer(file))
    of, chunks = whole[4][1][1][group][1][1]
    chunks = [_chunk(chunk, (place + 1) * SPACE_BYTES) for place, chunk in enumerate(chunks)]
    own: Struct = {1: (LIST, (of, chunks)), 2: (I64, MOST), 3: (I64, MOST)}
    # What the file says of statistics and order is of no use; of its version, schema and metadata everything is.
    kept = {field: value for field, value in whole.items() if field in (1, 2, 5, 6)}
    footer = write_struct({**kept, 3: (I64, MOST), 4: (LIST, (STRUCT, [own]))})
    # Given to Arrow by itself: it looks for a footer in 64 kB, more than the pages may have.
    return pq.read_metadata(io.BytesIO(MAGIC + footer + struct.pack("<I", len(footer)) + MAGIC))


def _footer(file: BinaryIO) -> bytes:
    size = file.seek(0, io.SEEK_END)
    length, magic = struct.unpack("<I4s", read_at(file, size - TAIL_BYTES, TAIL_BYTES))
    if magic != MAGIC or length > size - TAIL_BYTES:
        raise NotThrift(f"the file ends with {magic!r} after a length of {length}, expected b'PAR1' and a footer")
    return read_at(file, size - TAIL_BYTES - length, length)


def _chunk(chunk: Struct, first_byte: int) -> Struct:
    """Return a chunk's entry for pages at another place; statistics and the like are left out."""
    column = {field: value for field, value in chunk[3][1].items() if field <= 4}
    column |= {5: (I64, MOST), 6: (I64, SPACE_BYTES), 7: (I64, SPACE_BYTES), 9: (I64, first_byte)}
    return {2: (I64, 0), 3: (STRUCT, column)}
