"""Copy files of a store to a local folder, and know later whether the copies are still what they were.

A copy is compared with the store's size and MD5 while it streams past, and its SHA-256 is written down beside the
folder. It knows no models.
"""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.storage.faults import storage_error
from pipeline.storage.local_disk import rename_over
from pipeline.storage.store import Entry, StorageError, Store

log = logging.getLogger(__name__)

NUM_STREAMS = 4
PIECE_BYTES = 32 * 2**20
PROGRESS_INTERVAL_S = 30.0
CACHE_VARIABLE = "TRIPTYCH_CACHE"


@dataclass(frozen=True)
class Copied:
    """What a file was when it had just been copied. A file of another time is read before it is trusted."""

    size: int
    sha256: str
    mtime_ns: int


class _Progress:
    """Counts the bytes of all streams and says once in a while how many there are."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._lock = threading.Lock()
        self._said_at = time.monotonic()

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._done += num_bytes
            if time.monotonic() - self._said_at < PROGRESS_INTERVAL_S:
                return
            self._said_at = time.monotonic()
        log.info("%s: %s of %s", self._name, _gigabytes(self._done), _gigabytes(self._total))


def fetch_missing(store: Store, entries: Sequence[Entry], folder: Path, record: Path) -> list[str]:
    """Copy those files that do not stand in the folder whole; return their names. Each is seen whole or not at all.

    Args:
        store: Where they are.
        entries: All that are wanted; their paths have at most one folder.
        folder: Where they are to be.
        record: The file that keeps what was copied; after a kill, what it names is not copied again.

    Raises:
        StorageError: A file cannot be read or written, there is no room, or its content is not what the store says.
    """
    copied = _checked(folder, entries, _read_record(record))
    _write_record(record, copied)
    missing = [entry for entry in entries if entry.path not in copied]
    _check_room(store, missing, folder)
    progress = _Progress(f"fetching {store.name('')}", sum(entry.size for entry in missing))
    lock = threading.Lock()

    def fetch(entry: Entry) -> None:
        copy = _fetch(store, entry, folder, progress)
        with lock:
            copied[entry.path] = copy
            _write_record(record, copied)

    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        for _ in pool.map(fetch, missing):
            pass
    return [entry.path for entry in missing]


def _checked(folder: Path, entries: Sequence[Entry], record: dict[str, Copied]) -> dict[str, Copied]:
    found = {entry.path: _still(folder / entry.path, entry.size, record.get(entry.path)) for entry in entries}
    return {path: copied for path, copied in found.items() if copied is not None}


def _still(path: Path, size: int, copied: Copied | None) -> Copied | None:
    """Return what is known of a file if it is still what was copied."""
    if copied is None or not path.is_file() or not path.stat().st_size == copied.size == size:
        return None
    mtime_ns = path.stat().st_mtime_ns
    if mtime_ns == copied.mtime_ns:
        return copied
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == copied.sha256
    return replace(copied, mtime_ns=mtime_ns) if same else None


def _fetch(store: Store, entry: Entry, folder: Path, progress: _Progress) -> Copied:
    target = folder / entry.path
    unfinished = target.with_name(f".{target.name}.unfinished")
    expected = store.md5(entry.path)
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        target.parent.mkdir(exist_ok=True)
        with unfinished.open("wb") as file:
            for piece in _pieces(store, entry):
                file.write(piece)
                md5.update(piece)
                sha256.update(piece)
                progress.add(len(piece))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise storage_error(f"cannot write {target}", error) from error
    if expected and md5.hexdigest() != expected:
        found = md5.hexdigest()
        raise StorageError(f"cannot fetch {store.name(entry.path)}: found the MD5 {found}, expected {expected}")
    os.replace(unfinished, target)
    return Copied(entry.size, sha256.hexdigest(), target.stat().st_mtime_ns)


def _pieces(store: Store, entry: Entry) -> Iterator[bytes]:
    for start in range(0, entry.size, PIECE_BYTES):
        stop = min(start + PIECE_BYTES, entry.size)
        piece = store.read(entry.path, start, stop)
        if len(piece) != stop - start:
            raise StorageError(
                f"cannot fetch {store.name(entry.path)}: found {start + len(piece)} bytes, expected {entry.size}"
            )
        yield piece


def _check_room(store: Store, missing: Sequence[Entry], folder: Path) -> None:
    needed, free = sum(entry.size for entry in missing), shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"cannot fetch {store.name('')}: it takes {_gigabytes(needed)}, found {_gigabytes(free)} free at {folder}; "
            f"set {CACHE_VARIABLE} to a folder on a larger disk"
        )


def _read_record(path: Path) -> dict[str, Copied]:
    if not path.is_file():
        return {}
    return {name: Copied(**copy) for name, copy in json.loads(path.read_text()).items()}


def _write_record(path: Path, copied: dict[str, Copied]) -> None:
    content = {name: asdict(copy) for name, copy in sorted(copied.items())}
    rename_over(str(path), json.dumps(content, indent=1).encode())


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 10**9:.2f} GB"
