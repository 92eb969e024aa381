"""Single files by uri, wherever they stand: what somebody names on the command line, read and written whole."""

import posixpath

from pipeline.storage.store import StorageSettings, Store


def write_file(uri: str, data: bytes, storage: StorageSettings | None = None) -> str:
    """Write a file in one step, over an earlier one; return its full uri.

    Raises:
        StorageError: It cannot be written.
    """
    store, name = _place(uri, storage)
    store.replace(name, data)
    return store.name(name)


def read_file(uri: str, storage: StorageSettings | None = None) -> bytes:
    """Read a file whole.

    Raises:
        StorageError: It cannot be read.
    """
    store, name = _place(uri, storage)
    return store.read(name)


def _place(uri: str, storage: StorageSettings | None) -> tuple[Store, str]:
    folder, name = posixpath.split(uri)
    return Store(folder or ".", storage or StorageSettings()), name
