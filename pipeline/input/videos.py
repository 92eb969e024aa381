"""Take the frames of videos, files that are rows or that rows name, and read the subtitles that lie beside them.

It knows rows and stores; containers and codecs, pipeline/input/formats/video.py knows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.input.columns import OF_SUBTITLES, OF_VIDEOS
from pipeline.input.fetch import failure_of_all_rows, fault_of, refuse_empty, resolve_address
from pipeline.input.formats.rows import Fault, RawBlock, RawRow, RowError
from pipeline.storage import web
from pipeline.storage.store import StorageError, Store, Unreachable

if TYPE_CHECKING:
    from pipeline.input.formats.video import Frames

# An hour of speech is about 60 kB; the text of every row travels with it.
SUBTITLES_BYTES = 4 * 2**20

Columns = dict[str, pa.ChunkedArray]


def video_block(paths: Sequence[str], store: Store, num_frames: int, size: int) -> RawBlock:
    """Return the rows of videos: their frames are their images. One that gives none has a fault.

    Raises:
        StorageError: Every row would fare so on this machine, for the time being: see `failure_of_all_rows`.
        ReadError: Nothing here decodes videos.
    """
    rows = [RawRow(key=path) for path in paths]
    results = [_frames(path, store, store, num_frames, size) for path in paths]
    return RawBlock(rows, _filled(rows, results, store))


def take_videos(rows: Sequence[RawRow], folder: Store, num_frames: int, size: int) -> Columns:
    """Make frames of the videos that rows name their images, and return the columns beside them.

    Several rows of one video have it decoded once. Raises as `video_block` does.
    """
    names = {row.video for row in rows if _is_name(row.video)}
    frames = {name: _named(name, folder, num_frames, size) for name in sorted(names)}
    results = [frames[row.video] if _is_name(row.video) else _no_name(row.video) for row in rows]
    return _filled(rows, results, folder)


def read_subtitles(rows: Sequence[RawRow], folder: Store) -> Columns:
    """Return the texts of the subtitles that rows name; a row whose file cannot be had has a fault.

    Raises:
        StorageError: Every row would fare so on this machine, for the time being: see `failure_of_all_rows`.
    """
    names = {row.subtitles for row in rows if _is_name(row.subtitles)}
    texts = {name: _text(name, folder) for name in sorted(names)}
    results = [texts[row.subtitles] if _is_name(row.subtitles) else _no_name(row.subtitles) for row in rows]
    _blame(rows, results, folder)
    values = [result if isinstance(result, str) else None for result in results]
    return {name: pa.chunked_array([pa.array(values, kind)]) for name, kind in OF_SUBTITLES.items()}


def _filled(rows: Sequence[RawRow], results: "Sequence[Frames | Fault | None]", store: Store) -> Columns:
    _blame(rows, results, store)
    times: list[tuple[float | None, Sequence[float] | None]] = []
    for row, result in zip(rows, results, strict=True):
        if result is None or isinstance(result, Fault):
            row.image = None
            times.append((None, None))
        else:
            row.image = result.images
            times.append((result.duration, result.times))
    columns = zip(OF_VIDEOS.items(), zip(*times, strict=True), strict=True)
    return {name: pa.chunked_array([pa.array(values, kind)]) for (name, kind), values in columns}


def _blame(rows: Sequence[RawRow], results: Sequence[Any], folder: Store) -> None:
    refuse_empty((result for result in results if isinstance(result, Fault)), folder)
    for row, result in zip(rows, results, strict=True):
        row.fault = row.fault or (result if isinstance(result, Fault) else None)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _no_name(value: Any) -> Fault | None:
    if value is None or value == "":
        return None
    return Fault("WrongType", f"the row gives its file as {type(value).__name__}, expected a path")


def _named(name: str, folder: Store, num_frames: int, size: int) -> "Frames | Fault":
    try:
        store, path = _place(name, folder)
    except RowError as error:
        return error.fault
    return _frames(path, store, folder, num_frames, size)


def _place(name: str, folder: Store) -> tuple[Store, str]:
    """Return where a file lies that a row names.

    Raises:
        RowError: A dataset may not name it.
    """
    if name.lower().startswith(tuple(f"{scheme}://" for scheme in web.SCHEMES)):
        raise RowError("Refused", f"found {name[:200]!r}, expected a file in a store")
    return resolve_address(name, folder)


def _frames(path: str, store: Store, folder: Store, num_frames: int, size: int) -> "Frames | Fault":
    from pipeline.input.formats.video import BadVideo, sample

    try:
        return store.use(path, lambda file: sample(file, num_frames, size))
    except BadVideo as error:
        return Fault("BadVideo", f"{path}: {error}", stage="decode")
    except StorageError as error:
        return _fault(error, path, store, folder)


def _text(name: str, folder: Store) -> str | Fault:
    try:
        store, path = _place(name, folder)
        data = store.read(path, 0, SUBTITLES_BYTES + 1)
    except RowError as error:
        return error.fault
    except StorageError as error:
        return _fault(error, path, store, folder)
    if len(data) > SUBTITLES_BYTES:
        return Fault("TooLarge", f"{name} has more than {SUBTITLES_BYTES} bytes, the most allowed for subtitles")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Fault("NotUtf8", f"{name} is not UTF-8: {error.reason} at byte {error.start}")


def _fault(error: StorageError, path: str, store: Store, folder: Store) -> Fault:
    """Return what is wrong with a row's file.

    Raises:
        StorageError: It is not the row's fault.
    """
    if isinstance(error, Unreachable):
        raise error
    why = _worded(error, store, path)
    if failure := failure_of_all_rows(why, store, folder):
        raise failure from error
    return Fault(*fault_of(why))


def _worded(error: StorageError, store: Store, path: str) -> StorageError:
    """Return the error with the server's words: a file is opened by a request whose answer has no room for any."""
    if store.is_local:
        return error
    try:
        store.read(path, 0, 1)
    except StorageError as worded:
        return worded
    return error
