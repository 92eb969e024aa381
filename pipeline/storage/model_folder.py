"""Bring a model's files to this machine, once, wherever they are named to be.

It knows folders and files; what is in them is the business of `models`.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.storage.faults import describe, harmless
from pipeline.storage.model_files import CACHE_VARIABLE, fetch_missing
from pipeline.storage.store import Entry, NotFound, StorageError, StorageSettings, Store, absolute

log = logging.getLogger(__name__)

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What is read of a model's folder. The rest is code, pickled weights, pictures of the authors; other folders hold
# the same weights again, as their authors keep them.
PATTERNS = ("*.json", "*.safetensors", "*.jinja")
TEMPLATES = "additional_chat_templates"

DIGEST_SLICES = 16
DIGEST_SLICE_BYTES = 65536


def is_read(path: str) -> bool:
    """Say whether a file of a model's folder, named by its path below it, is one that a model is loaded from."""
    folder, _, name = path.rpartition("/")
    patterns = {"": PATTERNS, TEMPLATES: ("*.jinja",)}.get(folder, ())
    return not name.startswith(".") and any(fnmatchcase(name, pattern) for pattern in patterns)


def local_copy(uri: str, settings: StorageSettings, is_looking: bool = False) -> str:
    """Return a local folder with a model's files: the path itself, a downloaded copy, or the hub's snapshot.

    A copy lies under `$TRIPTYCH_CACHE` (default `~/.cache/triptych`), one per content of the remote folder; processes
    that want the same one wait for the first, and none ever sees half of it. A copy that is no longer what was
    downloaded is made good.

    Args:
        uri: Where the model is.
        settings: How to reach it there.
        is_looking: Whether someone watches, for whom a store that does not answer should fail soon.

    Raises:
        StorageError: There is no model, or it cannot be fetched or kept.
    """
    if "://" in uri and not uri.startswith("file://"):
        return _downloaded(Store(uri, settings), is_looking)
    path = absolute(uri)
    if os.path.isdir(path):
        return path
    if HUB_NAME.fullmatch(uri):
        return _hub_snapshot(uri)
    raise NotFound(f"no model at {path}: expected a local folder, an fsspec URL or a hub name such as org/name")


def weights_digest(folders: Sequence[str]) -> str:
    """Return a fingerprint of checkpoint folders: names, sizes and evenly spaced slices of the files that are read.

    Reading every byte of 50 GB would take minutes at each start; slices tell two trainings of one architecture apart.
    """
    digest = hashlib.sha256()
    for path, name in (file for folder in folders for file in _files(Path(folder))):
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with path.open("rb") as file:
            for start in sorted({size * i // DIGEST_SLICES for i in range(DIGEST_SLICES)}):
                file.seek(start)
                digest.update(file.read(DIGEST_SLICE_BYTES))
    return f"sha256:{digest.hexdigest()}"


def _files(folder: Path) -> list[tuple[Path, str]]:
    """Return the files that are read of a model's folder, and their names below it, in order."""
    below = [*folder.iterdir(), *(folder / TEMPLATES).glob("*")]
    named = sorted((path, path.relative_to(folder).as_posix()) for path in below if path.is_file())
    return [(path, name) for path, name in named if is_read(name)]


def _downloaded(store: Store, is_looking: bool) -> str:
    looked_at = store.while_looking() if is_looking else store
    entries = [entry for entry in looked_at.list() if is_read(entry.path)]
    if not entries:
        raise NotFound(f"no model at {store.name('')}: found no files like {', '.join(PATTERNS)} there")
    folder = _cache() / f"{store.uri.rstrip('/').rsplit('/', 1)[-1]}-{_digest(store, entries)}"
    with _locked(Path(f"{folder}.lock"), store):
        if folder.is_dir():
            _make_good(store, entries, folder)
        else:
            _download(store, entries, folder)
    return str(folder)


def _download(store: Store, entries: Sequence[Entry], folder: Path) -> None:
    unfinished = Path(f"{folder}.unfinished")  # what a process left that died here; we hold the lock
    unfinished.mkdir(exist_ok=True)
    size = sum(entry.size for entry in entries) / 10**9
    log.info("fetching %s (%d files, %.2f GB) to %s", store.name(""), len(entries), size, folder)
    began = time.monotonic()
    fetch_missing(store, entries, unfinished, _record(folder))
    wanted = {entry.path for entry in entries}
    for path in unfinished.rglob("*"):
        if path.is_file() and path.relative_to(unfinished).as_posix() not in wanted:
            path.unlink()
    os.replace(unfinished, folder)
    log.info("fetched %s in %.0f s", store.name(""), time.monotonic() - began)


def _make_good(store: Store, entries: Sequence[Entry], folder: Path) -> None:
    if again := fetch_missing(store, entries, folder, _record(folder)):
        log.warning("%s had changed since it was fetched from %s; fetched %s again", folder, store.name(""), again)


def _record(folder: Path) -> Path:
    return Path(f"{folder}.files.json")


def _digest(store: Store, entries: Sequence[Entry]) -> str:
    content = "\n".join(f"{entry.path} {entry.size} {entry.etag}" for entry in entries)
    return hashlib.sha256(f"{store.uri}\n{store.settings.endpoint_url}\n{content}".encode()).hexdigest()[:16]


def _cache() -> Path:
    cache = Path(os.environ.get(CACHE_VARIABLE, "~/.cache/triptych")).expanduser()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot keep models at {cache}: {describe(error)}; set {CACHE_VARIABLE} to another folder"
        ) from error
    return cache


@contextlib.contextmanager
def _locked(path: Path, store: Store) -> Iterator[None]:
    """Let one process of this machine at a time be here; the lock goes with its process, however that ends."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that fetches %s", store.name(""))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hub_snapshot(name: str) -> str:
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(name, allow_patterns=list(PATTERNS), ignore_patterns=["*/*"])
        # The one folder inside that is read, of the same commit; a pattern cannot say both.
        huggingface_hub.snapshot_download(name, allow_patterns=[f"{TEMPLATES}/*.jinja"], revision=Path(folder).name)
        return str(folder)
    except Exception as error:  # offline, no such model, no access: each has its own class there
        raise StorageError(
            f"no model at {name!r}: it is neither a local folder nor a model that the hub lets us download "
            f"({describe(error)})"
        ) from harmless(error)
