"""A remote file that is read by ranges, each of which is asked for until it comes.

A reader in the middle of a shard does not notice that the store was away. It knows no store, only how to get bytes.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Whoever passes over so much may do it again, as who reads the headers of large members of a tar: then no more than the
# second number is fetched at once, until they read on from there. To pass over less takes longer than to read it.
PASSED_OVER_BYTES = 2**20
AT_FIRST_BYTES = 2**18


class SizedFile(io.RawIOBase):
    """A file of a known size that can be read anywhere; who derives from it says how, from `_position` on."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read anywhere."""
        return True

    def tell(self) -> int:
        """Return the place of the byte that is read next."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, which may lie behind the end.

        Raises:
            ValueError: It lies before the start.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}, expected 0 or more")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end; without a size, all that are left."""
        left = max(0, self._size - self._position)
        data = bytearray(left if size < 0 else min(size, left))
        found = 0
        while found < len(data) and (count := self.readinto(memoryview(data)[found:])):
            found += count
        return bytes(memoryview(data)[:found])

    def readall(self) -> bytes:
        """Return all that is left, in one piece; Python's own would ask for 8 KiB at a time."""
        return self.read()


class _Ranges(SizedFile):
    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(size)
        self._fetch = fetch
        self._fetched_to = 0

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        has_jumped = abs(self._position - self._fetched_to) > PASSED_OVER_BYTES
        data = self._take(min(len(view), AT_FIRST_BYTES) if has_jumped else len(view))
        view[: len(data)] = data
        return len(data)

    def _take(self, num_bytes: int) -> bytes:
        stop = min(self._position + num_bytes, self._size)
        if stop <= self._position:
            return b""
        data = self._fetch(self._position, stop)
        if len(data) != stop - self._position:
            raise OSError(f"found {len(data)} bytes from {self._position} on, expected {stop - self._position}")
        self._position = self._fetched_to = stop
        return data


def without_buffer(file: BinaryIO) -> BinaryIO:
    """Return what lies beneath a file's buffer: it reads no further than it is asked to, or all that is asked for.

    Whoever reads there reads the file nowhere else: its buffer does not notice.
    """
    return cast(BinaryIO, getattr(file, "raw", file))


def ranged_file(fetch: Callable[[int, int], bytes], size: int, block_bytes: int) -> BinaryIO:
    """Return a file of `size` bytes for reading and seeking; small reads fetch `block_bytes` ahead, less after a jump.

    Args:
        fetch: Returns the bytes from a start up to a stop, both within the file.
        size: Of the file, in bytes.
        block_bytes: What is fetched at once at least, and kept.
    """
    return cast(BinaryIO, io.BufferedReader(_Ranges(fetch, size), block_bytes))
