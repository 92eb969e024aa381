"""Fetch a unit's images: bytes that stand in the row already, or files named by path or uri.

It knows rows and stores; it decodes nothing.
"""

import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.formats.rows import LIMIT_BYTES, RawRow, RowError
from pipeline.storage import NotFound, StorageError, Store, Unreachable

# Files asked for at once: a GET takes about ten milliseconds, most of them waiting.
NUM_FETCHERS = 16


def fetch_images(rows: Sequence[RawRow], folder: Store) -> list[list[bytes]]:
    """Return every row's images; relative paths start at `folder`. A row whose image is missing gets a fault.

    Raises:
        Unreachable: The store does not answer; that is no row's fault.
    """
    with ThreadPoolExecutor(NUM_FETCHERS) as pool:
        return list(pool.map(lambda row: _images(row, folder), rows))


def _images(row: RawRow, folder: Store) -> list[bytes]:
    if row.fault:
        return []
    try:
        return [_bytes(source, folder) for source in _sources(row.image)]
    except RowError as error:
        row.fault = error.fault
        return []


def _sources(image: Any) -> Iterator[bytes | str]:
    """Yield bytes and paths, passing over what is null or empty.

    Raises:
        RowError: The value is nothing that can be an image.
    """
    if isinstance(image, list):
        for item in image:
            yield from _sources(item)
    elif isinstance(image, dict):
        source = image.get("bytes") or image.get("path")
        if not (source is None or isinstance(source, bytes | str)):
            raise RowError("WrongType", f"the image holds {type(source).__name__}, expected bytes or a path")
        yield from _sources(source)
    elif isinstance(image, bytes | str):
        if image:
            yield image
    elif image is not None:
        raise RowError("WrongType", f"the image holds {type(image).__name__}, expected bytes or a path")


def _bytes(source: bytes | str, folder: Store) -> bytes:
    if isinstance(source, bytes):
        data, name = source, "the image"
    else:
        data, name = _file(source, folder), source
    if len(data) > LIMIT_BYTES:
        raise RowError("TooLarge", f"{name} has more than the {LIMIT_BYTES} bytes that are read")
    return data


def _file(path: str, folder: Store) -> bytes:
    uri = path if "://" in path or path.startswith("/") else f"{folder.uri}/{path}"
    scheme, mark, rest = uri.rpartition("://")
    parent, name = posixpath.split(posixpath.normpath(rest) if not scheme.startswith("http") else rest)
    try:
        return Store(f"{scheme}{mark}{parent}", folder.settings, folder.patience_s).read(name, 0, LIMIT_BYTES + 1)
    except Unreachable:
        raise
    except NotFound as error:
        raise RowError("NotFound", str(error)) from error
    except StorageError as error:
        raise RowError("StorageError", str(error)) from error
