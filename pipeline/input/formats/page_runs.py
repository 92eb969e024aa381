"""Read and write numbers of a few bits, such as levels and indices: runs of one number, or packed eight at a time.

https://github.com/apache/parquet-format/blob/master/Encodings.md
"""

from typing import Any

import numpy as np

from pipeline.input.formats.page_streams import CannotStream
from pipeline.input.formats.thrift import read_varint, varint

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def read_runs(data: bytes, width: int, count: int) -> Numbers:
    """Return the first `count` numbers, of `width` bits each.

    Raises:
        CannotStream: A run holds nothing.
    """
    pieces: list[Numbers] = []
    position = found = 0
    size = (width + 7) // 8
    while found < count:
        head, position = read_varint(data, position)
        if head & 1:
            packed = np.frombuffer(data, np.uint8, min((head >> 1) * width, len(data) - position), position)
            position += len(packed)
            piece = _bits(packed, width) if width else np.zeros((head >> 1) * 8, np.int64)
        else:
            piece = np.full(head >> 1, int.from_bytes(data[position : position + size], "little"), np.int64)
            position += size
        if not len(piece):
            raise CannotStream("found a run of nothing")
        pieces.append(piece)
        found += len(piece)
    return np.concatenate(pieces)[:count] if pieces else np.zeros(0, np.int64)


def _bits(packed: "np.ndarray[Any, np.dtype[np.uint8]]", width: int) -> Numbers:
    bits = np.unpackbits(packed, bitorder="little")
    numbers = bits[: len(bits) // width * width].reshape(-1, width) @ (1 << np.arange(width, dtype=np.int64))
    return np.asarray(numbers, np.int64)


def write_runs(levels: Numbers, max_level: int) -> bytes:
    """Return levels from 0 to `max_level` as runs; nothing where all are 0 anyway."""
    if not max_level or not len(levels):
        return b""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(levels)) + 1, [len(levels)]])
    size = (max_level.bit_length() + 7) // 8
    runs = zip(np.diff(starts).tolist(), levels[starts[:-1]].tolist(), strict=True)
    return b"".join(varint(count << 1) + level.to_bytes(size, "little") for count, level in runs)
