"""Turn what a store lists into entries, of which little is kept: ten million files are listed at once.

It knows what fsspec and S3 say of a file; whom to ask, and how patiently, it does not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.redaction import redacted
from pipeline.storage import local_disk
from pipeline.storage.faults import StorageError

# What tells in fsspec's listings that content has changed, the surest first.
TAGS = ("ETag", "etag", "blob_id", "mtime")
# Amazon gives no more at once.
PAGE_FILES = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a listing: its path below the uri, its bytes, and its tag, which changes with its content.

    The tag is the store's or, on a disk, when the file was last written; None where a store says neither.
    """

    path: str
    size: int
    etag: str | None


class Page(NamedTuple):
    """Some objects, as fsspec describes files, and what to ask for those behind them; None at the end."""

    infos: list[dict[str, Any]]
    next_token: str | None


def s3_page(fs: Any, folder: str, token: str, most: int, begins: str = "", *, is_flat: bool = False) -> Page:
    """Ask S3 once for files below a folder (`bucket` or `bucket/folder`).

    Args:
        fs: s3fs.
        folder: Where they lie, however deep.
        token: Of the page; empty for the first.
        most: How many at most.
        begins: What their paths below the folder begin with.
        is_flat: Whether those in deeper folders are left out.
    """
    bucket, _, key = folder.partition("/")
    onward = {"ContinuationToken": token} if token else {}
    onward |= {"Delimiter": "/"} if is_flat else {}
    prefix = f"{key}/{begins}" if key else begins
    page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=most, **onward)
    infos = [
        {"name": f"{bucket}/{each['Key']}", "size": each["Size"], "ETag": each.get("ETag"), "type": "file"}
        for each in page.get("Contents", ())
    ]
    return Page(infos, page["NextContinuationToken"] if page.get("IsTruncated") else None)


def entries_of(root: str, found: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Return files as entries, sorted by their path below `root`; folders and unfinished files are left out."""
    entries = [
        Entry(_below(root, info["name"]), int(info["size"] or 0), _etag(info)) for info in found if _is_file(info)
    ]
    entries.sort(key=lambda entry: entry.path)
    return entries


def _is_file(info: Mapping[str, Any]) -> bool:
    name = info["name"]
    is_folder = info["type"] == "directory" or name.endswith("/")
    return not (is_folder or local_disk.is_unfinished(name.rsplit("/", 1)[-1]))


def _below(root: str, name: str) -> str:
    if not name.startswith(root):
        raise StorageError(f"found {redacted(name)} in a listing, expected names that begin with {redacted(root)}")
    return name.removeprefix(root).removeprefix("/")  # a key may go on with another slash


def _etag(info: Mapping[str, Any]) -> str | None:
    if "islink" in info:
        return local_disk.written_at(info)
    tag = next((info[name] for name in TAGS if info.get(name)), None)
    return str(tag).strip('"') if tag else None
