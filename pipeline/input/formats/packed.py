"""Read gzip streams, which have no places to jump to: what comes before has to be unpacked first.

It knows bytes, not tars. A stream that is damaged gives what can be unpacked of it, one that is a bomb gives nothing.
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.input.formats.rows import ReadError

MAGIC = b"\x1f\x8b"
PIECE_BYTES = 2**16
# Kept behind the place read last, so that a member's end can be looked at before its content is.
WINDOW_BYTES = 2**20
# Text and tables shrink to a twentieth at best, pictures hardly; what is beyond was made to fill memory and disks.
MOST_TIMES_LARGER = 100
# Below, even zeros do no harm.
HARMLESS_BYTES = 64 * 2**20


class Unpacked:
    """The content of a gzip stream, read forwards; `trouble` says why it ended early, if it did."""

    def __init__(self, file: BinaryIO) -> None:
        self.trouble: str | None = None
        self._pieces = _pieces(file)
        self._held = bytearray()
        self._first = 0  # place of the first byte held

    def read_at(self, position: int, count: int) -> bytes:
        """Return the bytes at a place, fewer of them at the stream's end.

        Places may go back by WINDOW_BYTES at most.
        """
        assert position >= self._first, "a gzip stream is read forwards"
        while self._first + len(self._held) < position + count and (piece := self._next()):
            self._held += piece
            surplus = min(len(self._held) - WINDOW_BYTES, position - self._first)
            if surplus > 0:
                del self._held[:surplus]
                self._first += surplus
        start = position - self._first
        return bytes(self._held[start : start + count])

    def _next(self) -> bytes:
        try:
            return next(self._pieces, b"")
        except zlib.error as error:
            self.trouble = f"damaged gzip stream: {error}"
        except EOFError as error:
            self.trouble = str(error)
        return b""


def is_gzip(file: BinaryIO) -> bool:
    """Look at the first bytes of a file; afterwards it stands at its start again."""
    file.seek(0)
    magic = file.read(len(MAGIC))
    file.seek(0)
    return magic == MAGIC


def _pieces(file: BinaryIO) -> Iterator[bytes]:
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
        if num_unpacked > max(HARMLESS_BYTES, MOST_TIMES_LARGER * num_packed):
            raise ReadError(f"refused a decompression bomb: {num_packed} bytes unpack to more than {num_unpacked}")
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
