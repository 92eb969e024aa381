"""Fetch a unit's images: bytes that stand in the row already, as they are or as base64, or files named by path or uri.

It knows rows and stores; what is in the files it does not look at.
"""

import platform
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from pipeline.input.formats.inline import LONGEST_NAME, NotBase64, in_data_address, inlined, is_data_address, listed
from pipeline.input.formats.rows import LIMIT_BYTES, Fault, RawRow, RowError
from pipeline.redaction import redacted
from pipeline.storage import web
from pipeline.storage.faults import is_of_bucket, is_of_process
from pipeline.storage.file_systems import scheme_of
from pipeline.storage.store import NotFound, StorageError, Store, Unreachable

# Files asked for at once: a GET takes about ten milliseconds, most of them waiting.
NUM_FETCHERS = 16
# Where a row may name a file, beside the web and the store that its shard lies in. fsspec knows many more kinds of
# address, some of which read this machine's disks or log in elsewhere: not for a dataset to choose.
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf")

# What names an image's address in a dict, beside the hub's `bytes` and `path`; `image_url` may hold a dict with `url`.
ADDRESSES = ("url", "image_url")

# What a file looks like that lay on a disk which is not mounted, or in a folder that is gone.
LOST = (NotFound.__name__, StorageError.__name__)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://")


def fetch_images(rows: Sequence[RawRow], folder: Store) -> list[list[bytes]]:
    """Return every row's images; relative paths start at `folder`. A row whose image is missing gets a fault.

    Raises:
        StorageError: Every row would fare so on this machine, for the time being: see `failure_of_all_rows`.
    """

    def fetch(row: RawRow) -> list[bytes]:
        try:
            return [] if row.fault else _fetched(row.image, folder)
        except RowError as error:
            row.fault = error.fault
            return []

    with ThreadPoolExecutor(NUM_FETCHERS) as pool:
        images = list(pool.map(fetch, rows))
    refuse_empty((row.fault for row in rows), folder)
    return images


def _fetched(image: Any, folder: Store) -> list[bytes]:
    images: list[bytes] = []
    left = LIMIT_BYTES  # for what has to be fetched; what stands in the row is in memory already
    for source in _sources(image):
        images.append(_bytes(source, folder))
        left -= len(images[-1]) if isinstance(source, str) else 0
        if left < 0:
            raise RowError("TooLarge", f"together the row's images have over {LIMIT_BYTES} bytes, the most allowed")
    return images


def _sources(image: Any) -> Iterator[bytes | str]:
    """Yield bytes and paths, passing over what is null or empty.

    Raises:
        RowError: The value is nothing that can be an image.
    """
    if isinstance(image, str):
        yield from _in_text(image)
    elif isinstance(image, list):
        for item in image:
            yield from _sources(item)
    elif isinstance(image, dict):
        yield from _in_dict(image)
    elif isinstance(image, bytes):
        if image:
            yield image
    elif image is not None:
        raise RowError("WrongType", f"the image holds {type(image).__name__}, expected bytes or a path")


def _in_dict(image: dict[str, Any]) -> Iterator[bytes | str]:
    """Yield what a dict names: the hub's `bytes` or `path`, or an address as chat messages give it."""
    source = next((image[name] for name in ("bytes", "path", *ADDRESSES) if image.get(name)), None)
    if isinstance(source, dict):  # {"image_url": {"url": ...}}
        source = source.get("url") or source
    if source is None and any(image.values()):
        known = "`bytes`, `path`, `url` or `image_url`"
        raise RowError("WrongType", f"the image is a dict with {', '.join(map(repr, image))}, expected {known}")
    if not (source is None or isinstance(source, bytes | str)):
        raise RowError("WrongType", f"the image holds {type(source).__name__}, expected bytes or a path")
    yield from _sources(source)


def _in_text(text: str) -> Iterator[bytes | str]:
    """Yield what a text holds: images in base64, paths or addresses."""
    for item in listed(text) or ([text] if text else []):
        try:
            image = inlined(item)
        except NotBase64 as error:
            raise RowError("NotBase64", str(error)) from error
        if image is None and len(item) > LONGEST_NAME and not is_data_address(item):
            begins = f"found {len(item)} characters that begin {item[:32]!r}"
            raise RowError("WrongAddress", f"{begins}, expected an image in base64, a path or an address")
        yield item if image is None else image


def _bytes(source: bytes | str, folder: Store) -> bytes:
    data = source if isinstance(source, bytes) else _file(source, folder)
    if len(data) > LIMIT_BYTES:
        name = "the image" if isinstance(source, bytes) else redacted(source[:200])
        raise RowError("TooLarge", f"{name} has more than {LIMIT_BYTES} bytes, the most allowed")
    return data


def _file(address: str, folder: Store) -> bytes:
    """Return what an address of a row names.

    What lies in a store is the run's business: if the store does not answer, no row is to blame. A stranger's host on
    the web is the row's.

    Raises:
        RowError: The row cannot have it.
        StorageError: No row could, here and now: see `failure_of_all_rows`.
    """
    if is_data_address(address):
        try:
            return in_data_address(address)
        except NotBase64 as error:
            raise RowError("WrongAddress", str(error)) from error
    scheme = _SCHEME.match(address)
    store = folder
    try:
        if (scheme[1].lower() if scheme else scheme_of(folder.uri)) not in web.SCHEMES:
            store, path = resolve_address(address, folder)
            return store.read(path, 0, LIMIT_BYTES + 1)
        url = address if scheme else f"{folder.uri}/{address}"
        own_host = web.host_of(folder.uri)
        if own_host and own_host == web.host_of(url):
            return web.get(url, LIMIT_BYTES, folder.settings.patience_s)
    except Unreachable:
        raise
    except StorageError as error:
        if failure := failure_of_all_rows(error, store, folder):
            raise failure from error
        raise RowError(*fault_of(error)) from error
    try:
        return web.get_from_stranger(url, LIMIT_BYTES)
    except StorageError as error:
        raise RowError(*fault_of(error)) from error


def resolve_address(address: str, folder: Store) -> tuple[Store, str]:
    """Return the store in which a file lies and its path there.

    Raises:
        RowError: A dataset of this kind may not name it.
    """
    scheme = _SCHEME.match(address)
    if scheme and scheme[1].lower() == "file":
        address, scheme = address[len(scheme[0]) :], None
    if not scheme and address.startswith("/") and not folder.is_local:
        where = f"a dataset in {scheme_of(folder.uri)}:// names {address!r}, a file on this machine's disk"
        raise RowError("Refused", f"{where}; expected a path in the store, or an address")
    if not scheme and folder.is_local:
        parent, name = posixpath.split(posixpath.normpath(posixpath.join(folder.uri, address)))
        return replace(folder, uri=parent), name
    if not scheme:
        return _below_bucket(folder, address)
    bucket, _, path = address[len(scheme[0]) :].partition("/")
    root = f"{scheme[0].lower()}{bucket}"
    if scheme[1].lower() not in STORES and not f"{folder.uri}/".startswith(f"{root}/"):
        known = ", ".join((*web.SCHEMES, *STORES))
        raise RowError("Refused", f"found an image at {scheme[0]}, expected one of {known}, or the shard's own store")
    return replace(folder, uri=root), path


def _below_bucket(folder: Store, path: str) -> tuple[Store, str]:
    """Resolve a relative path; other buckets have to be named in full."""
    scheme, _, place = folder.uri.partition("://")
    bucket = place.partition("/")[0]
    names = place.removesuffix("/").split("/")
    for name in path.split("/"):  # a name may be empty: keys are taken as they are
        if name == "..":
            names = names[:-1]
        elif name != ".":
            names.append(name)
    whole = "/".join(names)
    if not whole.startswith(f"{bucket}/"):
        raise RowError(
            "Refused", f"{path!r} leads out of {scheme}://{bucket}; expected a path inside it, or a whole address"
        )
    return replace(folder, uri=f"{scheme}://{bucket}"), whole.removeprefix(f"{bucket}/")


def failure_of_all_rows(error: StorageError, store: Store, folder: Store) -> StorageError | None:
    """Return what to raise where every row would fare so; None where the row is to blame.

    Every row would where the store does not answer, where this machine has no or wrong credentials or a wrong clock,
    and where the shard's own bucket is missing or elsewhere. Another bucket, that only some rows name, is their own
    affair.

    Args:
        error: What happened.
        store: Where the row's file lies.
        folder: Where its shard lies.
    """
    if isinstance(error, Unreachable):
        return error
    is_own = store.bucket == folder.bucket and scheme_of(store.uri) not in web.SCHEMES
    if is_of_process(error) or (is_own and is_of_bucket(error)):
        return StorageError(f"{error} (asked from {platform.node()})")
    return None


def refuse_empty(faults: Iterable[Fault | None], folder: Store) -> None:
    """Blame no row where files are missing because none are left: its folder had files when the run was planned.

    Raises:
        StorageError: The shard's folder is gone or empty, as is one in whose place a disk is to be mounted.
    """
    missing = next((fault for fault in faults if fault and fault.type in LOST), None)
    if missing is None:
        return
    try:
        is_empty = not folder.holds_anything()
    except Unreachable:
        raise
    except StorageError:  # who may read need not be allowed to list
        return
    if is_empty:
        where = f"{folder.name('')} is empty or missing on {platform.node()}"
        raise StorageError(f"{missing.message}; {where}; was it removed, or is a disk not mounted there?")


def fault_of(error: StorageError) -> tuple[str, str]:
    """Return a store's error as type and message of what is wrong with a row."""
    named = isinstance(error, NotFound | Unreachable | web.TooLarge | web.WrongAddress)
    return type(error).__name__ if named else "StorageError", str(error)
