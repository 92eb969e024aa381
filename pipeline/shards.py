"""Find the shards of a run: the files that a uri means, and the format that they are in.

It looks at names only; what is in the files, the formats know.
"""

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.formats.rows import IMAGE_EXTENSIONS, ReadError
from pipeline.storage import Entry, NotFound, StorageSettings, Store

Format = Literal["webdataset", "parquet", "images", "jsonl", "csv", "text"]
EXTENSIONS: dict[Format, tuple[str, ...]] = {
    "webdataset": ("tar",),
    "parquet": ("parquet",),
    "images": IMAGE_EXTENSIONS,
    "jsonl": ("jsonl", "ndjson"),
    "csv": ("csv",),
    "text": ("txt",),
}
# A wrong address should fail while the user still looks; later, when hours are at stake, patience is longer.
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Shards:
    """The input's files, sorted by their path below `store.uri`, all of one format."""

    store: Store
    format: Format
    entries: Sequence[Entry]


def find_shards(uri: str, format: Format | Literal["auto"], storage: StorageSettings) -> Shards:
    """Resolve a file, a folder or a glob.

    Hidden files (`.name`) are passed over, and in folders also `_name` where it is not an image and whatever has
    another extension than the format's.

    Raises:
        ReadError: Nothing is there, nothing matches, or several formats lie together.
    """
    store, entries, is_folder = _listed(uri, storage)
    if not entries:
        raise ReadError(f"found no files at {uri}")
    by_format = {entry.path: _format(entry.path) for entry in entries}
    found: Format = _only_format(uri, entries) if format == "auto" else format
    if is_folder:
        entries = [entry for entry in entries if by_format[entry.path] == found]
    if not entries:
        raise ReadError(f"found no files for format {format!r} at {uri}: {_counted(by_format)}")
    return Shards(store, found, entries)


def _listed(uri: str, storage: StorageSettings) -> tuple[Store, list[Entry], bool]:
    root, pattern = _split_glob(Store(uri, storage, PATIENCE_S))
    if pattern:
        return root, [entry for entry in root.glob(pattern) if not _is_hidden(entry.path)], False
    parent, name = posixpath.split(root.uri.rstrip("/"))
    if parent and not parent.endswith(":") and name:
        folder = Store(parent, storage, PATIENCE_S)
        try:
            return folder, [folder.entry(name)], False
        except NotFound:
            pass
    return root, [entry for entry in root.list() if not _is_hidden(entry.path)], True


def _split_glob(store: Store) -> tuple[Store, str]:
    """Cut a uri before its first folder with a wildcard; a local path that exists as it is written is no glob."""
    uri = store.uri
    wild = min((uri.find(sign) for sign in "*?[" if sign in uri), default=-1)
    if wild < 0 or (store.is_local and (store.exists("") or store.list())):
        return store, ""
    cut = uri.rfind("/", 0, wild)
    return Store(uri[: cut + 1], store.settings, store.patience_s), uri[cut + 1 :]


def _only_format(uri: str, entries: Sequence[Entry]) -> Format:
    counts = Counter(_format(entry.path) for entry in entries)
    known = [format for format in counts if format is not None]
    if len(known) > 1 and "text" in known:
        known.remove("text")  # beside other data it is captions of pictures, or a note
    if len(known) == 1:
        return known[0]
    described = _counted({entry.path: _format(entry.path) for entry in entries})
    if known:
        raise ReadError(f"found several formats at {uri}: {described}; set read.format, or name the files by a glob")
    extensions = ", ".join(f".{extension}" for names in EXTENSIONS.values() for extension in names)
    raise ReadError(f"cannot tell the format at {uri}: {described}; expected {extensions} (not compressed)")


def _counted(by_path: dict[str, Format | None]) -> str:
    counts = Counter(_extension(path) or "no extension" for path in by_path)
    return "found " + ", ".join(f"{count} with {name}" for name, count in sorted(counts.items()))


def _format(path: str) -> Format | None:
    extension = _extension(path).removeprefix(".")
    found = next((format for format, names in EXTENSIONS.items() if extension in names), None)
    # Cameras write _MG_1234.jpg; elsewhere a leading underscore marks what is not data (_SUCCESS, _metadata).
    if found != "images" and any(part.startswith("_") for part in path.split("/")):
        return None
    return found


def _extension(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))
