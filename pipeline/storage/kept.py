"""Keep files open for who comes next: a process that reads forwards goes on where it stopped.

It knows stores and files, and nothing of what is read of them.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import BinaryIO, Generic, TypeVar

from pipeline.storage.file_systems import BLOCK_BYTES
from pipeline.storage.patience import patiently
from pipeline.storage.store import Entry, Store

T = TypeVar("T")
R = TypeVar("R")


class KeptOpen(Generic[T]):
    """The files that a process has used last, each with what was made of it."""

    def __init__(self, most: int) -> None:
        """Keep no more files than `most`."""
        self._most = most
        self._open: OrderedDict[tuple[object, ...], tuple[BinaryIO, T]] = OrderedDict()

    def use(
        self,
        store: Store,
        file: Entry,
        make: Callable[[BinaryIO], T],
        operation: Callable[[T], R],
        is_fit: Callable[[T], bool] = lambda _: True,
        ahead_bytes: int = BLOCK_BYTES,
    ) -> R:
        """Return what an operation makes of a file; if the store stumbles meanwhile, all over again.

        Args:
            store: Of the file.
            file: Which, as it was planned.
            make: Makes of the open file what is kept.
            operation: What is asked of that.
            is_fit: Whether what is open can still be asked that; else it is opened anew.
            ahead_bytes: What a small read fetches from a store in a network.

        Raises:
            StorageError: The store refuses or does not answer, or the operation fails.
        """
        name = (store.uri, file.path, file.size, file.etag)
        if kept := self._open.pop(name, None):
            if is_fit(kept[1]):
                with contextlib.suppress(Exception):  # whatever it was: it is asked once more, from the start
                    return self._use(name, kept[0], lambda: kept[1], operation)
            _close(kept[0])

        def run() -> R:
            opened = store.open(file.path, file.size, ahead_bytes)
            return self._use(name, opened, lambda: make(opened), operation)

        return patiently(run, f"cannot read {store.name(file.path)}", store.bucket, store.settings.patience_s)

    def _use(self, name: tuple[object, ...], file: BinaryIO, make: Callable[[], T], operation: Callable[[T], R]) -> R:
        try:
            made = make()
            done = operation(made)
        except BaseException:
            _close(file)
            raise
        self._open[name] = file, made
        while len(self._open) > self._most:
            _close(self._open.popitem(last=False)[1][0])
        return done


def _close(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):
        file.close()
