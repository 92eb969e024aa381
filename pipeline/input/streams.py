"""Read pieces of shards that stay open: who reads forwards goes on where it stopped, and unpacks nothing twice.

What lies before a piece of a compressed shard, or of a page of Parquet, must be unpacked for it, so units that come in
order cost one pass.
"""

from collections.abc import Callable
from typing import TypeVar

from pipeline.input.formats.packed import Unpacked
from pipeline.input.formats.parquet import Opened
from pipeline.storage.kept import KeptOpen
from pipeline.storage.store import Entry, Store

# Each with WINDOW_BYTES and a buffer of its file.
MOST_STREAMS = 4
# Each with its footer, and with the pages that it reads of.
MOST_PARQUET = 2
T = TypeVar("T")

_streams = KeptOpen[Unpacked](MOST_STREAMS)
_parquet = KeptOpen[Opened](MOST_PARQUET)


def read_unpacked(store: Store, shard: Entry, start: int, stop: int) -> bytes:
    """Return bytes of a compressed shard's content, which ends early where the stream is damaged.

    Raises:
        StorageError: The store refuses or does not answer.
        ReadError: It is a decompression bomb.
    """

    def read(content: Unpacked) -> bytes:
        data = content.read_at(start, stop - start)
        content.forget(stop)
        return data

    return _streams.use(store, shard, Unpacked, read, lambda content: content.reaches(start))


def use_parquet(store: Store, shard: Entry, operation: Callable[[Opened], T]) -> T:
    """Return what an operation makes of an open shard; all over again if the store stumbles meanwhile.

    Raises:
        StorageError: The store refuses or does not answer, or pages are broken.
    """
    name = "" if store.is_local else f"{store.name(shard.path)} {shard.size} {shard.etag}"
    return _parquet.use(store, shard, lambda file: Opened(file, name), operation)
