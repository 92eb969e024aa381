"""Tell a folder's layout by its file names: what stands beside what, as those who wrote it mean it.

Files are not opened here, and a folder that has no layout of its own is of one format, or is refused (shards.py).
"""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.input.formats.rows import ReadError, Shape
from pipeline.input.formats.table import Format, format_of
from pipeline.storage.store import Entry

# ImageFolder's metadata (Hugging Face datasets, folder_based_builder.py, METADATA_FILENAMES).
METADATA: Mapping[str, Format] = {"metadata.jsonl": "jsonl", "metadata.csv": "csv", "metadata.parquet": "parquet"}
# What save_to_disk writes: rows, and what is said about them (datasets, arrow_dataset.py and dataset_dict.py).
SAVED = re.compile(r"data-[0-9]+-of-[0-9]+\.arrow|dataset\.arrow")
ABOUT_SAVED = ("state.json", "dataset_info.json", "dataset_dict.json")
# What datasets keeps beside it for itself (fingerprint.py, arrow_dataset.py).
COMPUTED = ("cache-", "tmp")
# What holds a picture's text or fields under the same base name; kohya's trainers write .txt or .caption, img2dataset
# .txt and .json.
SIDECARS = ("txt", "caption", "json")


@dataclass(frozen=True)
class FolderLayout:
    """What was found at a uri.

    Attributes:
        format: How its shards are read.
        entries: The shards.
        note: What it is, for people.
        shape: What its rows are beyond their format.
        sidecars: For each of the shards the extensions of the files beside it, joined by commas; empty if none has any.
        beside: The files beside them by their paths.
        taken: Paths of other files that belong to the shards.
        num_images: How many pictures lie beside metadata, whose rows name them.
        warnings: What is odd.
    """

    format: Format
    entries: Sequence[Entry]
    note: str
    shape: Shape = ""
    sidecars: Sequence[str] = ()
    beside: Mapping[str, Entry] = field(default_factory=dict)
    taken: frozenset[str] = field(default_factory=frozenset)
    warnings: Sequence[str] = ()
    num_images: int = 0


def look_at(entries: Sequence[Entry], format: Format | Literal["auto"], *, is_folder: bool) -> FolderLayout | None:
    """Return the layout of some files; None where they have none of its own.

    Args:
        entries: All that are not hidden, sorted.
        format: What settings say.
        is_folder: Whether they are the whole of a folder, and not named by a glob.
    """
    if not is_folder:
        only = entries[0] if len(entries) == 1 else None
        return _alone(only, format) if only else None
    images = [entry for entry in entries if format_of(entry.path) == "images"]
    if format == "arrow" or (format == "auto" and not images and _is_saved(entries)):
        return _saved(entries)
    if format == "auto":
        if images and (found := _imagefolder(entries, images)):
            return found
        about = _about_downloads(entries, images)
        if about and (found := _downloaded(entries, images, about)):
            return found
    if images and (format == "images" or (format == "auto" and _are_all(entries))):
        return _images(entries, images)
    return None


def path_of_sidecar(image: str, extension: str) -> str:
    """Return where a picture's text or fields stand."""
    return f"{posixpath.splitext(image)[0]}.{extension}"


def label_of(image: str) -> str:
    """Return the name of the folder that a picture stands in."""
    return posixpath.basename(posixpath.dirname(image))


def _alone(entry: Entry, format: Format | Literal["auto"]) -> FolderLayout | None:
    """Take a file of metadata that is named by itself; whether it names images, its columns will say."""
    found = METADATA.get(posixpath.basename(entry.path))
    if found is None or format not in ("auto", found):
        return None
    return FolderLayout(found, [entry], f"{found}, 1 file", "imagefolder")


def _imagefolder(entries: Sequence[Entry], images: Sequence[Entry]) -> FolderLayout | None:
    metadata = [entry for entry in entries if posixpath.basename(entry.path) in METADATA]
    names = sorted({posixpath.basename(entry.path) for entry in metadata})
    if len(names) != 1:
        return None
    beside = f"{len(metadata)} {names[0]} beside {len(images)} images"
    note = f"an ImageFolder of Hugging Face: {beside}; key and image are its `file_name`"
    return FolderLayout(METADATA[names[0]], metadata, note, "imagefolder", taken=_paths(images), num_images=len(images))


def _about_downloads(entries: Sequence[Entry], images: Sequence[Entry]) -> frozenset[str]:
    """Return the files that img2dataset writes about each of its shards, `00000.parquet` and `00000_stats.json`."""
    tars = {entry.path.removesuffix(".tar") for entry in entries if entry.path.endswith(".tar")}
    shards = tars | {posixpath.dirname(entry.path) for entry in images}
    found = {entry.path for entry in entries if entry.path.endswith(".parquet")}
    if not all(path.removesuffix(".parquet") in shards for path in found):
        return frozenset()
    stats = {f"{path.removesuffix('.parquet')}_stats.json" for path in found}
    return frozenset(found | {entry.path for entry in entries if entry.path in stats})


def _downloaded(entries: Sequence[Entry], images: Sequence[Entry], about: frozenset[str]) -> FolderLayout | None:
    """Take the tars, or the pictures in folders, that img2dataset has written."""
    note = "what img2dataset writes: {}; the .parquet and .json about them are not read"
    others = [entry for entry in entries if entry.path not in about]
    tars = [entry for entry in others if format_of(entry.path) == "webdataset"]
    if tars and not images:
        return FolderLayout("webdataset", tars, note.format(f"webdataset, {len(tars)} tars"), taken=about)
    if tars or not _are_all(others):
        return None
    found = _images(others, images)
    return replace(found, note=note.format(found.note), shape="", taken=about)


def _is_saved(entries: Sequence[Entry]) -> bool:
    """Say whether nothing but Arrow files is of a format, and what is written about them."""
    kinds = {format_of(entry.path) for entry in entries}
    return "arrow" in kinds and kinds <= {"arrow", "json", None}


def _saved(entries: Sequence[Entry]) -> FolderLayout:
    """Take the files of `save_to_disk`, and not those in which datasets keeps what it has computed.

    Raises:
        ReadError: The data set is a selection of the rows in its files.
    """
    arrows = [entry for entry in entries if format_of(entry.path) == "arrow"]
    names = [posixpath.basename(entry.path) for entry in arrows]
    if "indices.arrow" in names:
        raise ReadError(
            f"found {arrows[names.index('indices.arrow')].path}: the data set is a selection of the rows in its files, "
            "which only datasets applies; save it again with .flatten_indices().save_to_disk(...)"
        )
    saved = {posixpath.dirname(entry.path) for entry in entries if posixpath.basename(entry.path) == "state.json"}
    shards = [
        entry
        for entry, name in zip(arrows, names, strict=True)
        if SAVED.fullmatch(name) or (posixpath.dirname(entry.path) not in saved and not name.startswith(COMPUTED))
    ]
    about = [entry.path for entry in entries if posixpath.basename(entry.path) in ABOUT_SAVED]
    kind = "a data set of save_to_disk (Hugging Face)" if saved else "arrow"
    note = f"{kind}, {len(shards)} file{'s' if len(shards) > 1 else ''}"
    return FolderLayout("arrow", shards, note, taken=frozenset(about))


def _are_all(entries: Sequence[Entry]) -> bool:
    """Say whether nothing but pictures, and what may stand beside pictures, is of a format."""
    return {format_of(entry.path) for entry in entries} <= {"images", "text", "json", None}


def _images(entries: Sequence[Entry], images: Sequence[Entry]) -> FolderLayout:
    sidecars, beside = _sidecars(entries, images)
    has_fields = any("json" in extensions for extensions in sidecars)
    shape: Shape = "classes" if not has_fields and _are_classes(images) else ""
    notes = [f"images, {len(images)} file{'s' if len(images) > 1 else ''}"]
    if sidecars:
        counts = Counter(extension for extensions in sidecars for extension in extensions.split(",") if extension)
        notes.append(f"with {', '.join(f'{count} .{extension}' for extension, count in counts.items())} beside them")
    if shape:
        notes.append("in one folder for each class (column `label`)")
    lists = [entry.path for entry in entries if format_of(entry.path) == "json" and entry.path not in beside]
    warnings = []
    if lists:
        more = f" and {len(lists) - 1} more lie" if len(lists) > 1 else " lies"
        warnings = [f"{lists[0]}{more} beside images; if rows about them are meant, as of COCO, make it read.uri"]
    return FolderLayout("images", images, ", ".join(notes), shape, sidecars, beside, warnings=warnings)


def _sidecars(entries: Sequence[Entry], images: Sequence[Entry]) -> tuple[Sequence[str], Mapping[str, Entry]]:
    """Find what stands beside each picture; two pictures of one base name share it."""
    there = {entry.path: entry for entry in entries if entry.path.rpartition(".")[2] in SIDECARS}
    if not there:
        return (), {}
    found: list[str] = []
    taken: dict[str, Entry] = {}
    for entry in images:
        paths = {extension: path_of_sidecar(entry.path, extension) for extension in SIDECARS}
        beside = [extension for extension, path in paths.items() if path in there]
        found.append(",".join(beside))
        taken.update((paths[extension], there[paths[extension]]) for extension in beside)
    return (found if taken else ()), taken


def _are_classes(images: Sequence[Entry]) -> bool:
    """Say whether folders are classes: several names, and every picture equally deep (as datasets' ImageFolder has)."""
    depths = {entry.path.count("/") for entry in images}
    return len(depths) == 1 and 0 not in depths and len({label_of(entry.path) for entry in images}) > 1


def _paths(entries: Sequence[Entry]) -> frozenset[str]:
    return frozenset(entry.path for entry in entries)
