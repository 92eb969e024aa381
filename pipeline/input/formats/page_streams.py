"""Unpack what a page of Parquet holds piece by piece: a large page is never held, and its beginning costs little.

https://github.com/google/snappy/blob/main/format_description.txt
https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
"""

import io
from typing import Any, BinaryIO

import pyarrow as pa

SKIPPED_BYTES = 2**20
HISTORY_BYTES = 2**16


class CannotStream(ValueError):
    """The page is of another kind, or its bytes are not what they should be."""


class Stream:
    """Bytes as Arrow unpacks them."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def exactly(self, count: int) -> bytes:
        """Return the next bytes.

        Raises:
            CannotStream: There are fewer.
        """
        pieces: list[bytes] = []
        left = count
        while left and (piece := self._read(left)):
            pieces.append(piece)
            left -= len(piece)
        if left:
            raise CannotStream(f"found {count - left} bytes, expected {count}")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        while count and (piece := self._read(min(count, SKIPPED_BYTES))):
            count -= len(piece)

    def rest(self) -> bytes:
        """Return all that is left."""
        return b"".join(iter(lambda: self._read(SKIPPED_BYTES), b""))

    def _read(self, count: int) -> bytes:
        return bytes(self._file.read(count))


class _Plain(Stream):
    """Bytes as they are, in which one can jump."""

    def skip(self, count: int) -> None:
        self._file.seek(count, io.SEEK_CUR)


class _Repeating(Stream):
    """Bytes packed as stretches of their own and copies of what came within 64 kB before."""

    def __init__(self, file: BinaryIO, packed: int) -> None:
        super().__init__(file)
        self._left = packed
        self._out = bytearray()  # what was unpacked, some of it read already
        self._taken = 0

    def skip(self, count: int) -> None:
        while count:
            here = min(count, len(self._out) - self._taken)
            self._taken += here
            count -= here
            self._forget()
            if not count or not self._left:
                return
            count -= self._element(count)

    def _read(self, count: int) -> bytes:
        while len(self._out) - self._taken < count and self._left:
            self._element(0)
        data = bytes(self._out[self._taken : self._taken + count])
        self._taken += len(data)
        self._forget()
        return data

    def _element(self, skippable: int) -> int:
        """Unpack what comes next; return the bytes of it that were jumped over, at most so many as may be."""
        raise NotImplementedError

    def _forget(self) -> None:
        if self._taken > 4 * HISTORY_BYTES:
            del self._out[: self._taken - HISTORY_BYTES]
            self._taken = HISTORY_BYTES

    def _copy(self, offset: int, count: int) -> None:
        if not 0 < offset <= len(self._out):
            raise CannotStream(f"found a copy of what is {offset} bytes before, and {len(self._out)} are known")
        piece = self._out[len(self._out) - offset :][:count]
        self._out += (piece * (count // len(piece) + 1))[:count]

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        self._left -= count
        if len(data) < count:
            raise CannotStream("found the end within an element")
        return bytes(data)

    def _number(self, count: int) -> int:
        return int.from_bytes(self._bytes(count), "little")


class _Snappy(_Repeating):
    def __init__(self, file: BinaryIO, packed: int) -> None:
        super().__init__(file, packed)
        while self._number(1) > 127:  # the length of all
            pass

    def _element(self, skippable: int) -> int:
        tag = self._number(1)
        kind, count = tag & 3, tag >> 2
        if kind == 0:
            if count >= 60:
                count = self._number(count - 59)
            count += 1
            # So long a one is all that its writer looked back on.
            if HISTORY_BYTES <= count <= skippable:
                self._file.seek(count, io.SEEK_CUR)
                self._left -= count
                self._out.clear()  # nothing after it looks back beyond it
                self._taken = 0
                return count
            self._out += self._bytes(count)
        elif kind == 1:
            self._copy((tag >> 5) << 8 | self._number(1), (count & 7) + 4)
        else:
            self._copy(self._number(2 * kind - 2), count + 1)
        return 0


class _Lz4(_Repeating):
    def _element(self, skippable: int) -> int:
        token = self._number(1)
        self._out += self._bytes(self._length(token >> 4))
        if self._left:  # the last one ends without a copy
            offset = self._number(2)
            self._copy(offset, self._length(token & 15) + 4)
        return 0

    def _length(self, count: int) -> int:
        more = 255 if count == 15 else 0
        while more == 255:
            more = self._number(1)
            count += more
        return count


def unpacked(file: BinaryIO, codec: str, packed: int) -> Stream:
    """Return what so many bytes of a file hold, unpacked as it is read.

    Raises:
        CannotStream: The codec is none of those that can be unpacked piece by piece.
    """
    if codec == "UNCOMPRESSED":
        return _Plain(file)
    if codec == "SNAPPY":
        return _Snappy(file, packed)
    if codec == "LZ4":
        return _Lz4(file, packed)
    if codec in ("ZSTD", "GZIP", "BROTLI"):
        return Stream(pa.CompressedInputStream(pa.PythonFile(file, "r"), codec.lower()))
    raise CannotStream(f"found codec {codec}")
