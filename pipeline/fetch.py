"""Fetch a unit's images: bytes that stand in the row already, files named by path or uri, or the frames of videos.

It knows rows and stores; what is in the files it does not look at.
"""

import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.formats.rows import LIMIT_BYTES, Fault, RawBlock, RawRow, RowError
from pipeline.storage import NotFound, StorageError, Store, Unreachable

if TYPE_CHECKING:
    from pipeline.formats.video import Frames

# Files asked for at once: a GET takes about ten milliseconds, most of them waiting.
NUM_FETCHERS = 16


def fetch_images(rows: Sequence[RawRow], folder: Store) -> list[list[bytes]]:
    """Return every row's images; relative paths start at `folder`. A row whose image is missing gets a fault.

    Raises:
        Unreachable: The store does not answer; that is no row's fault.
    """
    with ThreadPoolExecutor(NUM_FETCHERS) as pool:
        return list(pool.map(lambda row: _images(row, folder), rows))


def video_block(paths: Sequence[str], store: Store, num_frames: int, size: int) -> RawBlock:
    """Return the rows of videos: their frames are their images. One that gives none has a fault.

    Raises:
        Unreachable: The store does not answer; that is no row's fault.
        ReadError: Nothing here decodes videos.
    """
    from pipeline.formats import video

    found = [_frames(path, store, num_frames, size) for path in paths]
    rows = [
        RawRow(key=path, fault=one) if isinstance(one, Fault) else RawRow(key=path, image=one.images)
        for path, one in zip(paths, found, strict=True)
    ]
    values = [None if isinstance(one, Fault) else (one.duration, one.times) for one in found]
    columns = zip(video.FIELDS.items(), zip(*[one or (None, None) for one in values], strict=True), strict=True)
    return RawBlock(rows, {name: pa.chunked_array([pa.array(column, kind)]) for (name, kind), column in columns})


def _frames(path: str, store: Store, num_frames: int, size: int) -> "Frames | Fault":
    from pipeline.formats.video import BadVideo, sample

    try:
        return store.use(path, lambda file: sample(file, num_frames, size))
    except BadVideo as error:
        return Fault("BadVideo", f"{path}: {error}", stage="decode")
    except Unreachable:
        raise
    except StorageError as error:
        return _fault(error)


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
    except StorageError as error:
        fault = _fault(error)
        raise RowError(fault.type, fault.message) from error


def _fault(error: StorageError) -> Fault:
    return Fault("NotFound" if isinstance(error, NotFound) else "StorageError", str(error))
