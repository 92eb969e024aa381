"""The input formats: how their files are called, and what the readers must know of each.

To add one:
1. An entry here, a word in `Format` and its `Traits` in `FORMATS`.
2. A file beside this one, with one function that goes through a shard and returns its `Index` and one that reads the
   rows of a stretch of it as `RawRow`s (rows.py). A row that the format names itself has a `key`, another is called
   `<shard>#<index>`; a path in `image` is looked for beside the shard.
3. A case wherever the type checker then finds one missing (`assert_never` in scan.py, read.py and keys.py).
4. An input in tests/pipeline/test_formats.py, whose rows have a key or a `text`; a line in the README's table of what
   is read and in docs/architecture.md.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.input.formats.rows import IMAGE_EXTENSIONS

# How compressed files end, and what compressed files may hold.
PACKED = (".gz", ".zst")
PACKABLE = ("tar", "jsonl", "ndjson", "jsonlines", "json", "csv", "tsv", "txt", "lst")

Format = Literal["webdataset", "zip", "parquet", "arrow", "images", "jsonl", "json", "csv", "tsv", "text", "video"]


@dataclass(frozen=True)
class Traits:
    """What tells a format from the others.

    Attributes:
        extensions: Of its files, in lower case, without the dot.
        is_file: Every file is a row; such shards are planned from their listing alone.
        has_members: Members of one base name are a row; images are known by their extension, keys by their names.
        is_table: Each shard says which columns it has, so one that lacks some is told.
        is_joined: Images may be joined by id from a table of this format.
        has_columns: Rows have named fields; else a setting that names one is wrong.
        is_typed: The shards say their columns' types themselves.
        is_cut_by_bytes: A row's images lie in the bytes by which units are cut, so their sizes need not be sampled.
        gives_way: Where other data lies beside, its files are no shards.
    """

    extensions: tuple[str, ...]
    is_file: bool = False
    has_members: bool = False
    is_table: bool = False
    is_joined: bool = False
    has_columns: bool = False
    is_typed: bool = False
    is_cut_by_bytes: bool = False
    gives_way: bool = False


def _lines(*extensions: str) -> tuple[str, ...]:
    return tuple(f"{extension}{packed}" for packed in ("", *PACKED) for extension in extensions)


FORMATS: Mapping[Format, Traits] = {
    "webdataset": Traits(("tar", "tar.gz", "tgz", "tar.zst"), has_members=True, is_cut_by_bytes=True),
    "zip": Traits(("zip",), has_members=True, is_cut_by_bytes=True),
    "parquet": Traits(("parquet",), is_table=True, is_joined=True, has_columns=True, is_typed=True),
    "images": Traits(IMAGE_EXTENSIONS, is_file=True, is_cut_by_bytes=True),
    "arrow": Traits(("arrow", "feather"), is_table=True, has_columns=True, is_typed=True),
    "jsonl": Traits(_lines("jsonl", "ndjson", "jsonlines"), is_joined=True, has_columns=True),
    "json": Traits(_lines("json"), has_columns=True, gives_way=True),  # beside other data it is about that
    "csv": Traits(_lines("csv"), is_table=True, is_joined=True, has_columns=True),
    "tsv": Traits(_lines("tsv"), is_table=True, is_joined=True, has_columns=True),
    "text": Traits(_lines("txt", "lst"), gives_way=True),  # beside other data it is captions of pictures, or a note
    "video": Traits(("mp4", "m4v", "mov", "mkv", "webm", "avi"), is_file=True, is_cut_by_bytes=True),
}


def format_of(path: str) -> Format | None:
    """Return the format that a file's name tells; None for one that tells none, and for names that begin with `_`."""
    extension = extension_of(path).removeprefix(".")
    found = next((format for format, traits in FORMATS.items() if extension in traits.extensions), None)
    # Cameras write _MG_1234.jpg; elsewhere a leading underscore marks what is not data (_SUCCESS, _metadata).
    if not (found and FORMATS[found].is_file) and any(part.startswith("_") for part in path.split("/")):
        return None
    return found


def extension_of(path: str) -> str:
    """Return a file's extension in lower case with its dot; of a compressed one that of its content, too."""
    stem, extension = posixpath.splitext(path.lower())
    inner = posixpath.splitext(stem)[1] if extension in PACKED else ""
    return f"{inner}{extension}" if inner.removeprefix(".") in PACKABLE else extension
