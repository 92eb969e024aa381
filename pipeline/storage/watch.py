"""Tell whoever watches a run that it waits for a store: what workers say of that stays in their own logs.

It asks each store for next to nothing, now and then; it knows no units, and changes nothing.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.storage.file_systems import OBJECT_STORES, scheme_of
from pipeline.storage.patience import say_answered, say_waiting
from pipeline.storage.store import StorageError, Store, Unreachable

INTERVAL_S = 10.0


@contextlib.contextmanager
def watched(stores: Sequence[Store]) -> Iterator[None]:
    """Log, while the block runs, which of these stores does not answer, and when it does again."""
    over = threading.Event()
    remote = {store.uri: store for store in stores if scheme_of(store.uri) in OBJECT_STORES}
    for store in remote.values():
        # A daemon, and not waited for at the end: a store that hangs must not hold up the end of a run.
        threading.Thread(target=_watch, args=(store, over), name=f"watch {store.name('')}", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(store: Store, over: threading.Event) -> None:
    probe = replace(store, patience_s=0.0)
    silent_since: float | None = None
    while not over.wait(INTERVAL_S):
        began = time.monotonic()
        try:
            probe.exists("_SUCCESS")
        except Unreachable as error:
            silent_since = silent_since or began
            if not over.is_set():
                say_waiting(store.bucket, time.monotonic() - silent_since, error.__cause__ or error)
        except StorageError:
            silent_since = None  # a refusal is an answer
        else:
            if silent_since is not None:
                say_answered(store.bucket, time.monotonic() - silent_since)
            silent_since = None
