"""Read some pages of a Parquet file as if they were a file of their own, so that Arrow decodes them and no others.

What Arrow is given is a small file that is never written: its bytes are those of the pages, which stay where they lie,
and a footer that speaks of these alone.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow.parquet as pq

from pipeline.input.formats.page_streams import Source
from pipeline.input.formats.pages import parsed, read_at, read_header
from pipeline.input.formats.thrift import I64, LIST, STRUCT, Struct, write_struct
from pipeline.storage.ranged_file import SizedFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAGIC = b"PAR1"
# What is fetched at once at least.
BLOCK_BYTES, JUMPED_BYTES = 4 * 2**20, 2**12


@dataclass(frozen=True)
class Stretch:
    """A file of so many bytes."""

    file: BinaryIO
    size: int


@dataclass(frozen=True)
class Piece:
    """Consecutive pages of one column of a row group.

    Attributes:
        leaf: The column, fields of nested ones counted by themselves.
        stretches: Their bytes, in the order in which the file has them.
        dictionary_bytes: So many of these are the dictionary's page; 0 if they need none.
    """

    leaf: int
    stretches: Sequence[Stretch]
    dictionary_bytes: int = 0


class _Window(SizedFile):
    """Some bytes of a file; nothing is read beyond them."""

    def __init__(self, file: BinaryIO, first_byte: int, end_byte: int) -> None:
        super().__init__(end_byte - first_byte)
        self.file, self._first = file, first_byte

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        view[:count] = read_at(self.file, self._first + self._position, count)
        self._position += count
        return count


class _Joined(SizedFile):
    """Files one behind the other; what is asked for is read when it is asked for."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        super().__init__(sum(one.size for one in stretches))
        self._stretches = stretches

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, without a copy where one file has them."""
        end = self._size if size < 0 else min(self._position + size, self._size)
        pieces: list[bytes] = []
        before = 0
        for one in self._stretches:
            first, after = max(self._position, before), before + one.size
            if first < min(end, after):
                one.file.seek(first - before)
                pieces.append(one.file.read(min(end, after) - first))
            before = after
        self._position = max(self._position, end)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def window(file: BinaryIO, first_byte: int, end_byte: int, block_bytes: int = BLOCK_BYTES) -> Stretch:
    """Return some bytes of a file as one of their own, which reads so many at once."""
    raw = _Window(file, first_byte, end_byte)
    return Stretch(cast(BinaryIO, io.BufferedReader(raw, block_bytes)), end_byte - first_byte)


def open_pages(
    footer: bytes,
    group: int,
    pieces: Sequence[Piece],
    num_rows: int,
    read_dictionary: Sequence[str] = (),
    buffer_bytes: int = 0,
) -> pq.ParquetFile:
    """Open pages as a file with one row group; only their columns can be read of it.

    Args:
        footer: Of the file that they lie in.
        group: The row group.
        pieces: Pages of the same rows, of different columns.
        num_rows: How many rows.
        read_dictionary: Columns whose values Arrow shall leave in their dictionaries.
        buffer_bytes: Arrow shall ask for so many at once; 0: for all pages of a column, which makes no copy of them.
    """
    position = len(MAGIC)
    places: dict[int, tuple[int, int, int]] = {}  # of each column the dictionary, the pages, their bytes
    for piece in pieces:
        size = sum(one.size for one in piece.stretches)
        places[piece.leaf] = (position, position + piece.dictionary_bytes, size)
        position += size
    own = metadata_of(_footer(parsed(footer), group, places, num_rows))
    parts = [part for piece in pieces for part in piece.stretches]
    file = cast(BinaryIO, _Joined([Stretch(io.BytesIO(MAGIC), len(MAGIC)), *parts]))
    dictionaries = list(read_dictionary)
    return pq.ParquetFile(file, metadata=own, pre_buffer=False, buffer_size=buffer_bytes, read_dictionary=dictionaries)


def source(stretch: Stretch, first_byte: int, end_byte: int, codec: str, max_level: int) -> Source:
    """Return a page that lies in a stretch, to be read piece by piece."""
    header, length = read_header(stretch.file, first_byte, end_byte)
    # On a disk it costs nothing to jump; a store in a network takes its time for each request.
    block_bytes = JUMPED_BYTES if _is_near(stretch.file) else BLOCK_BYTES
    body = window(stretch.file, first_byte + length, end_byte, block_bytes)
    return Source(header, body.file, codec, max_level)


def _is_near(file: BinaryIO) -> bool:
    raw = getattr(file, "raw", file)
    return _is_near(raw.file) if isinstance(raw, _Window) else isinstance(raw, io.FileIO | io.BytesIO)


def metadata_of(footer: bytes) -> pq.FileMetaData:
    """Return a footer as Arrow sees it."""
    # Given to Arrow by itself: it looks for a footer in 64 kB, more than the pages may have.
    return pq.read_metadata(io.BytesIO(MAGIC + footer + struct.pack("<I", len(footer)) + MAGIC))


def _footer(whole: Struct, group: int, places: Mapping[int, tuple[int, int, int]], num_rows: int) -> bytes:
    of, chunks = whole[4][1][1][group][1][1]
    chunks = [_chunk(chunk, *places.get(leaf, (0, 0, 0))) for leaf, chunk in enumerate(chunks)]
    size = sum(size for _, _, size in places.values())
    own: Struct = {1: (LIST, (of, chunks)), 2: (I64, size), 3: (I64, num_rows)}
    # What the file says of statistics and order is of no use; of its version, schema and metadata everything is.
    kept = {field: value for field, value in whole.items() if field in (1, 2, 5, 6)}
    return write_struct({**kept, 3: (I64, num_rows), 4: (LIST, (STRUCT, [own]))})


def _chunk(chunk: Struct, dictionary: int, pages: int, size: int) -> Struct:
    """Return a chunk's entry for pages that lie elsewhere; that it has fewer values than it says does no harm.

    What is not needed is left out: it would be written and read again for every unit.
    """
    column = {field: value for field, value in chunk[3][1].items() if field <= 9 and field != 8}
    column |= {7: (I64, size), 9: (I64, pages)}
    if dictionary != pages:
        column[11] = (I64, dictionary)
    return {2: (I64, 0), 3: (STRUCT, column)}
