"""Bring a model's files to this machine, once, wherever they are named to be.

It knows folders and files; what is in them is the business of `models`.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.storage import Entry, NotFound, StorageError, StorageSettings, Store, absolute
from pipeline.storage_faults import describe

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What is read of a model's folder. The rest is code, pickled weights, pictures of the authors; folders inside hold the
# same weights again, as their authors keep them.
PATTERNS = ("*.json", "*.safetensors", "*.jinja")


def is_read(path: str) -> bool:
    """Say whether a file of a model's folder, named by its path below it, is one that a model is loaded from."""
    is_hidden = path.startswith(".")
    return "/" not in path and not is_hidden and any(fnmatchcase(path, pattern) for pattern in PATTERNS)


def local_copy(uri: str, settings: StorageSettings) -> str:
    """Return a local folder with a model's files: the path itself, a downloaded copy, or the hub's snapshot.

    A copy lies under `$TRIPTYCH_CACHE` (default `~/.cache/triptych`), one per content of the remote folder; processes
    that want the same one wait for the first, and none ever sees half of it.
    """
    if "://" in uri and not uri.startswith("file://"):
        return _downloaded(Store(uri, settings))
    path = absolute(uri)
    if os.path.isdir(path):
        return path
    if HUB_NAME.fullmatch(uri):
        return _hub_snapshot(uri)
    raise NotFound(f"no model at {path}: expected a local folder, an fsspec URL or a hub name such as org/name")


def _downloaded(store: Store) -> str:
    entries = [entry for entry in store.list() if is_read(entry.path)]
    if not entries:
        raise NotFound(f"no model at {store.uri}: there are no files like {', '.join(PATTERNS)} in it")
    content = "\n".join(f"{entry.path} {entry.size} {entry.etag}" for entry in entries)
    digest = hashlib.sha256(f"{store.uri}\n{store.settings.endpoint_url}\n{content}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("TRIPTYCH_CACHE", "~/.cache/triptych")).expanduser()
    folder = cache / f"{store.uri.rstrip('/').rsplit('/', 1)[-1]}-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _download(store, entries, folder)
    return str(folder)


def _download(store: Store, entries: Sequence[Entry], folder: Path) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that died; we hold the lock
    unfinished.mkdir()
    for entry in entries:
        target = unfinished / entry.path  # a bare file name; see is_read
        with store.open(entry.path) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 16 * 2**20)
        if target.stat().st_size != entry.size:
            raise StorageError(
                f"cannot download {store.name(entry.path)}: got {target.stat().st_size} bytes, expected {entry.size}"
            )
    os.replace(unfinished, folder)


def _hub_snapshot(name: str) -> str:
    import huggingface_hub

    try:
        return str(huggingface_hub.snapshot_download(name, allow_patterns=list(PATTERNS), ignore_patterns=["*/*"]))
    except Exception as error:  # offline, no such model, no access: each has its own class there
        raise StorageError(
            f"no model at {name!r}: it is neither a local folder nor a model that the hub hands out ({describe(error)})"
        ) from error
