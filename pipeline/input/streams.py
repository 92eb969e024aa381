"""Read pieces of compressed shards: a process that reads forwards goes on where it stopped, and unpacks nothing twice.

What lies before a piece must be unpacked for it, so units that come in order cost one pass through their shard.
"""

import contextlib
from collections import OrderedDict
from typing import BinaryIO, NamedTuple

from pipeline.input.formats.packed import Unpacked
from pipeline.storage.patience import patiently
from pipeline.storage.store import Entry, Store

# Streams kept open by a process, each with WINDOW_BYTES and a buffer of its file.
MOST_STREAMS = 4


class _Stream(NamedTuple):
    file: BinaryIO
    content: Unpacked


_open: "OrderedDict[tuple[object, ...], _Stream]" = OrderedDict()


def read_unpacked(store: Store, shard: Entry, start: int, stop: int) -> bytes:
    """Return bytes of a compressed shard's content, which ends early where the stream is damaged.

    Raises:
        StorageError: The store refuses or does not answer.
        ReadError: It is a decompression bomb.
    """
    name = (store.uri, shard.path, shard.size, shard.etag)
    held = _open.pop(name, None)
    if held is None or not held.content.reaches(start):
        _close(held)
        held = None
    if held is not None:
        try:
            return _read(name, held, start, stop)
        except Exception:  # whatever the store said: it is asked once more, from the start and with all patience
            _close(held)

    def read() -> bytes:
        file = store.open(shard.path, shard.size)
        try:
            return _read(name, _Stream(file, Unpacked(file)), start, stop)
        except BaseException:
            file.close()
            raise

    return patiently(read, f"cannot read {store.name(shard.path)}", store.bucket, store.settings.patience_s)


def _read(name: tuple[object, ...], stream: _Stream, start: int, stop: int) -> bytes:
    """Read, and keep the stream for who comes next."""
    data = stream.content.read_at(start, stop - start)
    stream.content.forget(stop)
    _open[name] = stream
    while len(_open) > MOST_STREAMS:
        _close(_open.popitem(last=False)[1])
    return data


def _close(stream: _Stream | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.file.close()
