"""Read gzip and zstd streams, which have no places to jump to: what comes before has to be unpacked first.

It knows bytes, not tars or lines. A stream that is damaged gives what can be unpacked of it, one that is a bomb gives
nothing.
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from pipeline.input.formats.rows import ReadError

GZIP, ZSTD = b"\x1f\x8b", b"(\xb5/\xfd"
PIECE_BYTES = 2**16
# Kept behind the place read last, so that a member's end can be looked at before its content is.
WINDOW_BYTES = 2**20
# Text and tables shrink to a twentieth at best, pictures hardly; what is beyond was made to fill memory and disks.
MOST_TIMES_LARGER = 100
# Below, even zeros do no harm.
HARMLESS_BYTES = 64 * 2**20


class Unpacked:
    """The content of a gzip or zstd stream, read forwards; `trouble` says why it ended early, if it did."""

    def __init__(self, file: BinaryIO) -> None:
        self.trouble: str | None = None
        self._pieces = _zstd_pieces(file) if _magic(file) == ZSTD else _gzip_pieces(file)
        self._position = 0
        self._held = bytearray()
        self._first = 0  # place of the first byte held

    def read_at(self, position: int, count: int) -> bytes:
        """Return the bytes at a place, fewer of them at the stream's end.

        Places may go back by WINDOW_BYTES at most.
        """
        assert position >= self._first, "a gzip stream is read forwards"
        while self._first + len(self._held) < position + count and (piece := self._next()):
            self._held += piece
            self.forget(min(self._first + len(self._held) - WINDOW_BYTES, position))
        start = position - self._first
        return bytes(self._held[start : start + count])

    def read(self, count: int) -> bytes:
        """Return the bytes that follow those read last, as a file does."""
        data = self.read_at(self._position, count)
        self._position += len(data)
        return data

    def reaches(self, position: int) -> bool:
        """Say whether a place can still be read."""
        return position >= self._first

    def forget(self, before: int) -> None:
        """Let go of what lies before a place."""
        surplus = min(before - self._first, len(self._held))
        if surplus > 0:
            del self._held[:surplus]
            self._first += surplus

    def _next(self) -> bytes:
        try:
            return next(self._pieces, b"")
        except zlib.error as error:
            self.trouble = f"damaged gzip stream: {error}"
        except pa.ArrowException as error:
            self.trouble = f"damaged zstd stream: {error}"
        except EOFError as error:
            self.trouble = str(error)
        return b""


def is_packed(file: BinaryIO) -> bool:
    """Look at the first bytes of a file; afterwards it stands at its start again."""
    return _magic(file) is not None


def _magic(file: BinaryIO) -> bytes | None:
    file.seek(0)
    found = file.read(max(len(GZIP), len(ZSTD)))
    file.seek(0)
    return next((magic for magic in (GZIP, ZSTD) if found.startswith(magic)), None)


def _zstd_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Unpack a stream, and those glued behind it, piece by piece.

    Raises:
        ReadError: It is a decompression bomb.
        pa.ArrowException: It is damaged.
        EOFError: It is cut off.
    """
    unpacked = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    num_unpacked = 0
    while piece := _zstd_piece(unpacked):
        num_unpacked += len(piece)
        _refuse_bomb(file.tell(), num_unpacked)
        yield piece


def _zstd_piece(unpacked: "pa.CompressedInputStream") -> bytes:
    try:
        return bytes(unpacked.read(PIECE_BYTES))
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:  # the store's, which come through Arrow as they were
            raise
        if "Truncated" in str(error):
            raise EOFError("zstd stream is cut off") from error
        raise pa.ArrowInvalid(str(error)) from error


def _refuse_bomb(num_packed: int, num_unpacked: int) -> None:
    if num_unpacked > max(HARMLESS_BYTES, MOST_TIMES_LARGER * num_packed):
        raise ReadError(f"refused a decompression bomb: {num_packed} bytes unpack to more than {num_unpacked}")


def _gzip_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Unpack a stream, and those glued behind it, piece by piece.

    Raises:
        ReadError: It is a decompression bomb.
        zlib.error: It is damaged.
        EOFError: It is cut off.
    """
    unpacker = zlib.decompressobj(wbits=31)
    num_packed = num_unpacked = 0
    data = b""
    while data or (data := file.read(PIECE_BYTES)):
        before = unpacker.copy()
        try:
            piece = unpacker.decompress(data, PIECE_BYTES)
        except zlib.error:
            yield from _up_to_damage(before, data)
            raise
        rest = unpacker.unused_data.lstrip(b"\0") if unpacker.eof else unpacker.unconsumed_tail
        num_packed += len(data) - len(rest)
        num_unpacked += len(piece)
        _refuse_bomb(num_packed, num_unpacked)
        if piece:
            yield piece
        if unpacker.eof and rest:
            unpacker = zlib.decompressobj(wbits=31)
        data = rest
    if not unpacker.eof:
        raise EOFError("gzip stream is cut off")


def _up_to_damage(unpacker: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    """Unpack byte by byte what as a whole gives an error, and nothing of what comes before it."""
    for place in range(len(data)):
        try:
            piece = unpacker.decompress(data[place : place + 1])
        except zlib.error:
            return
        if piece:
            yield piece
