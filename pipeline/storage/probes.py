"""Try a store by writing to it, so that nothing of the trial stays.

It knows Stores and their names for what is left when a trial is killed; it knows no runs.
"""

import contextlib
import time
import uuid
from collections.abc import Iterator

from pipeline.storage import local_disk
from pipeline.storage.store import PROBES, Store


def conditional_writes(store: Store) -> bool:
    """Try whether the store lets the first of two writers win; without that, the last one does.

    Raises:
        StorageError: Nothing can be written there at all.
    """
    with probe(store) as name:
        wins = store.publish(name, b"first") and not store.publish(name, b"second")
        return wins and (not store.is_local or local_disk.has_links(f"{store.uri}/{name}"))


@contextlib.contextmanager
def probe(store: Store) -> Iterator[str]:
    """Name a file that may be written for a moment; neither it nor the folders that are made for it stay."""
    name = f"{PROBES}/{time.time():.0f}-{uuid.uuid4().hex}"
    with local_disk.leaving_no_folders(f"{store.uri}/{name}") if store.is_local else contextlib.nullcontext():
        try:
            yield name
        finally:
            store.delete([name])
