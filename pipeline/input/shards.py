"""Find the shards of a run: the files that a uri means, and the format that they are in.

It looks at names only; what is in the files, the formats know.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.input.folders import FolderLayout, look_at
from pipeline.input.formats.rows import ReadError, Shape
from pipeline.input.formats.table import FORMATS, Format, extension_of, format_of
from pipeline.storage.store import Entry, NotFound, StorageSettings, Store


@dataclass(frozen=True)
class Shards:
    """The input's files, sorted by their path below `store.uri`, all of one format.

    Attributes:
        store: Where they lie.
        format: What they are.
        entries: Each file.
        warnings: Which files of the folder are none of them.
        note: The layout that was found, for people.
        shape: What its rows are beyond their format.
        sidecars: Where every file is a row, the extensions of what stands beside each (see `Unit`); empty if nothing.
        beside: The entries of these files, by their paths.
        num_images: How many images lie beside metadata whose rows name them; 0 in other layouts.
        is_folder: Whether the uri is a folder, and neither a file nor a glob.
    """

    store: Store
    format: Format
    entries: Sequence[Entry]
    warnings: Sequence[str] = ()
    note: str = ""
    shape: Shape = ""
    sidecars: Sequence[str] = ()
    beside: Mapping[str, Entry] = field(default_factory=dict)
    num_images: int = 0
    is_folder: bool = False


def find_shards(uri: str, format: Format | Literal["auto"], storage: StorageSettings) -> Shards:
    """Resolve a file, a folder or a glob.

    Hidden files (`.name`) are passed over, and in folders also `_name` where it is no image or video and whatever has
    another extension than the format's.

    Raises:
        ReadError: Nothing is there, nothing matches, or several formats lie together.
    """
    # Hours are at stake once it is known what to read; patience is longer then.
    found = find_again(Store(uri, storage).while_looking(), format)
    return replace(found, store=replace(found.store, patience_s=None))


def find_again(address: Store, format: Format | Literal["auto"]) -> Shards:
    """Resolve a file, a folder or a glob with as much patience as the store has that stands for it.

    Raises:
        ReadError: Nothing is there, nothing matches, or several formats lie together.
    """
    uri = address.uri
    store, listed, is_folder = _listed(address)
    entries = [entry for entry in listed if not _is_hidden(entry.path)]
    if not entries:
        raise ReadError(f"found no files at {uri}")
    layout = look_at(entries, format, is_folder=is_folder) or _plain_layout(uri, entries, format, is_folder=is_folder)
    if not layout.entries:
        raise ReadError(f"found no files for format {format!r} at {uri}: found {_counted(entries)}")
    taken = {entry.path for entry in layout.entries} | layout.taken | layout.beside.keys()
    return Shards(
        store,
        layout.format,
        layout.entries,
        [*layout.warnings, *_passed_over(uri, listed, taken)],
        layout.note,
        layout.shape,
        layout.sidecars,
        layout.beside,
        layout.num_images,
        is_folder,
    )


def _plain_layout(
    uri: str, entries: Sequence[Entry], format: Format | Literal["auto"], *, is_folder: bool
) -> FolderLayout:
    """Take the files of the one format."""
    found: Format = _only_format(uri, entries) if format == "auto" else format
    shards = [entry for entry in entries if format_of(entry.path) == found] if is_folder else entries
    return FolderLayout(found, shards, f"{found}, {len(shards)} file{'s' if len(shards) > 1 else ''}")


def list_files(uri: str, storage: StorageSettings) -> tuple[Store, list[Entry]]:
    """List every file that a uri means now, whatever its format, and the store below which they lie."""
    store, entries, _ = _listed(Store(uri, storage).while_looking())
    return store, entries


def joined(entries: Sequence[Entry]) -> Entry:
    """Return several files as one, whose tag changes with the name, size or tag of any."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.path}\0{entry.size}\0{entry.etag}\n".encode())
    return Entry("", sum(entry.size for entry in entries), digest.hexdigest()[:32])


def change(found: Entry, planned: Entry, on_changed: str) -> str | None:
    """Say how a file differs from the one that was planned; None if it does not, as far as size and tag tell.

    Args:
        found: What is there now.
        planned: What was there; without a tag where its store has none, or in plans of older versions.
        on_changed: See `ReadSettings`.
    """
    if found.size != planned.size:
        was = f"{planned.size} bytes (version {planned.etag})"
        return f"found {found.size} bytes (version {found.etag}), planned {was}"
    if planned.etag is None or planned.etag == found.etag or on_changed == "accept":
        return None
    return f"found the planned size, but version {found.etag}, planned {planned.etag}"


def _passed_over(uri: str, listed: Sequence[Entry], taken: Set[str]) -> list[str]:
    others = [entry for entry in listed if entry.path not in taken]
    return [f"passed over {len(others)} files at {uri}: {_counted(others)}"] if others else []


def _listed(address: Store) -> tuple[Store, list[Entry], bool]:
    root, pattern = _split_glob(address)
    if pattern:
        return root, root.glob(pattern), False
    parent, _, name = root.uri.removesuffix("/").rpartition("/")
    if parent and not parent.endswith((":", ":/")) and name:
        folder = replace(root, uri=f"{parent}/")
        try:
            return folder, [folder.entry(name)], False
        except NotFound:
            pass
    return root, root.list_with_links(), True


def _split_glob(store: Store) -> tuple[Store, str]:
    """Cut a uri before its first folder with a wildcard; what is there as it is written is no glob."""
    uri = store.uri
    wild = min((uri.find(sign) for sign in "*?[" if sign in uri), default=-1)
    if wild < 0 or store.is_there():
        return store, ""
    cut = uri.rfind("/", 0, wild)
    return Store(uri[: cut + 1], store.settings, store.patience_s), uri[cut + 1 :]


def _only_format(uri: str, entries: Sequence[Entry]) -> Format:
    counts = Counter(format_of(entry.path) for entry in entries)
    known = [format for format in counts if format is not None]
    if len(known) > 1:
        known = [format for format in known if not FORMATS[format].gives_way] or known
    if len(known) == 1:
        return known[0]
    described = f"found {_counted(entries)}"
    if known:
        raise ReadError(f"found several formats at {uri}: {described}; set read.format, or name the files by a glob")
    extensions = ", ".join(f".{extension}" for traits in FORMATS.values() for extension in traits.extensions)
    raise ReadError(f"cannot tell the format at {uri}: {described}; expected {extensions}")


def _counted(entries: Sequence[Entry]) -> str:
    return ", ".join(
        f"{count} {kind}" for kind, count in sorted(Counter(_kind(entry.path) for entry in entries).items())
    )


def _kind(path: str) -> str:
    return "hidden" if _is_hidden(path) else f"with {extension_of(path) or 'no extension'}"


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))
