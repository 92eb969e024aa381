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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.storage.ranged_file import SizedFile

log = logging.getLogger(__name__)

# On a machine's disk, for all of its processes; what was asked for longest ago gives way. A page of Parquet has at most
# 2 GiB. Nothing takes more than this share of what is free.
HELD_BYTES = 5 * 2**29
FREE_SHARE = 0.5
BLOCK_BYTES = 4 * 2**20
DROPPED_BYTES = 2**23


class _Mapped(SizedFile):
    """A file in memory that is read without a copy; what was read does not stay in this process's memory."""

    def __init__(self, mapped: mmap.mmap) -> None:
        super().__init__(len(mapped))
        self._mapped, self._view = mapped, memoryview(mapped)
        self._dropped = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        super().seek(offset, whence)
        self._dropped = min(self._dropped, self._position // mmap.PAGESIZE * mmap.PAGESIZE)
        return self._position

    def read(self, size: int = -1) -> bytes:
        whole = (self._position - self._dropped) // DROPPED_BYTES * DROPPED_BYTES
        if whole and self._dropped + whole <= self._size:
            self._mapped.madvise(mmap.MADV_DONTNEED, self._dropped, whole)  # read again, it comes from the file again
            self._dropped += whole
        end = self._size if size < 0 else min(self._position + size, self._size)
        piece = self._view[self._position : end]
        self._position = max(self._position, end)
        return cast(bytes, piece)


def hold(name: str, size: int, read: Callable[[int, int], bytes]) -> BinaryIO | None:
    """Return a file with bytes that are kept under a name, fetched if they are not here yet; None if they cannot be.

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
                return cast(BinaryIO, _Mapped(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)))
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
            unfinished.write_bytes(b"")
        for position in range(0, size, BLOCK_BYTES):
            data = read(position, min(BLOCK_BYTES, size - position))
            with _no_room(), unfinished.open("ab") as file:
                file.write(data)
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
    """Delete what was asked for longest ago, until so many bytes more may be kept."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process has let go of it
            state = path.stat()
            found.append((state.st_mtime, state.st_size, path))
    total = sum(kept for _, kept, _ in found)
    for _, kept, path in sorted(found):
        if total + size <= HELD_BYTES:
            return
        if kept:
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
