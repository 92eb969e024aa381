"""Keep stretches of remote or large files on this machine's disk while several processes ask for them.

Whoever asks first fetches; the others wait, and find it. Nothing depends on what is kept: a process that cannot keep it
reads it where it lies.
"""

import contextlib
import fcntl
import hashlib
import io
import logging
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.storage.ranged_file import SizedFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

# On a machine's disk, for all of its processes; what was asked for longest ago gives way. A page of Parquet has at most
# 2 GiB. Nothing takes more than this share of what is free.
HELD_BYTES = 5 * 2**29
FREE_SHARE = 0.5
HELD_S = 3600.0
BLOCK_BYTES = 4 * 2**20


class HeldFile(SizedFile):
    """A file of which blocks are kept, but for those that the reader says nobody else needs.

    Attributes:
        own: The first of the bytes that nobody else needs, and the end of them.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file.seek(0, io.SEEK_END))
        self.own = (0, 0)
        self._file, self._name = file, name
        self._block = -1
        self._held: mmap.mmap | bytes = b""

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read into a buffer, up to the end of a block."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        block = self._position // BLOCK_BYTES
        first, end = block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, self._size)
        if self.own[0] <= first and end <= self.own[1]:
            data = self._fetch(self._position, min(count, self.own[1] - self._position))
        else:
            if block != self._block and count:
                held = hold(self._block_name(block), end - first, lambda at, size: self._fetch(first + at, size))
                self._block, self._held = block, held if held is not None else self._fetch(first, end - first)
            data = self._held[self._position - first :][:count]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def let_go(self, first_byte: int, end_byte: int) -> None:
        """Delete what is kept of some bytes."""
        for block in range(first_byte // BLOCK_BYTES, -(-end_byte // BLOCK_BYTES)):
            let_go(self._block_name(block))

    def _block_name(self, block: int) -> str:
        return f"{self._name} {block}"

    def _fetch(self, position: int, count: int) -> bytes:
        self._file.seek(position)
        return self._file.read(count)


def hold(name: str, size: int, read: Callable[[int, int], bytes]) -> mmap.mmap | None:
    """Return bytes that are kept under a name, in a file, fetched if they are not here yet; None if they cannot be.

    Args:
        name: Of the bytes, and of their version.
        size: How many.
        read: Returns some of them, by a position and a count; what it raises is raised.
    """
    try:
        path = _folder() / hashlib.sha256(name.encode()).hexdigest()
        with _locked(path):
            if not _is_whole(path, size) and not _fetch(path, size, read):
                return None
            with _no_room(), path.open("rb") as file:
                os.utime(file.fileno())
                return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except _NoRoom as error:
        log.debug("cannot keep %s: %s", name, error)
        return None


def let_go(name: str) -> None:
    """Delete what is kept under a name; who reads it just now still can."""
    with contextlib.suppress(OSError, _NoRoom):
        (_folder() / hashlib.sha256(name.encode()).hexdigest()).unlink()


class _NoRoom(Exception):
    """The disk does not take it."""


def _fetch(path: Path, size: int, read: Callable[[int, int], bytes]) -> bool:
    if not 0 < size <= HELD_BYTES:
        return False
    unfinished = Path(f"{path}.{os.getpid()}")
    try:
        with _no_room():
            _make_room(path.parent, size)
            if size > FREE_SHARE * shutil.disk_usage(path.parent).free:
                return False
            file = unfinished.open("wb")
        with file:
            for position in range(0, size, BLOCK_BYTES):
                data = read(position, min(BLOCK_BYTES, size - position))
                with _no_room():
                    file.write(data)
                    file.flush()
            if file.tell() != size:
                return False
        with _no_room():
            os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return True


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _make_room(folder: Path, size: int) -> None:
    """Delete what nobody has asked for in an hour, and what was asked for longest ago if so many more have no room."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process has let go of it
            state = path.stat()
            found.append((state.st_mtime, state.st_size, path))
    total = sum(kept for _, kept, _ in found)
    for used, kept, path in sorted(found):
        if total + size <= HELD_BYTES and time.time() - used < HELD_S:
            return
        if kept:  # a lock stays
            path.unlink(missing_ok=True)
            total -= kept


def _folder() -> Path:
    """Return the folder that is this user's alone.

    Raises:
        _NoRoom: It cannot be made, or is somebody else's.
    """
    folder = Path(tempfile.gettempdir()) / f"triptych-held-{os.getuid()}"
    with _no_room():
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077 or folder.is_symlink():
        raise _NoRoom(f"{folder} is not this user's alone")
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time be here; the lock goes with its process, however that ends."""
    with contextlib.ExitStack() as stack:
        with _no_room():  # few locks, which are never deleted: two names may share one
            lock = stack.enter_context((path.parent / f"{path.name[:2]}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _no_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _NoRoom(str(error)) from error
