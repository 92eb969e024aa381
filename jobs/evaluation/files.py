"""What the command line names: outputs, and single files that are read and written whole, wherever they stand."""

import posixpath
from collections.abc import Sequence

from jobs.config import output_at
from pipeline import ConfigError, StorageSettings, Store


def output_reached(uri: str, overrides: Sequence[str]) -> Store:
    """Return an output, reached as overrides of `write.storage` say.

    Raises:
        ConfigError: An override is none, or of another setting.
    """
    if others := [override for override in overrides if not override.startswith("write.storage.")]:
        faults = [f"override {override!r}: only write.storage.* is looked at here" for override in others]
        raise ConfigError("the command line", faults)
    return output_at(uri, overrides)


def write_file(uri: str, data: bytes, storage: StorageSettings) -> str:
    """Write a file in one step, over an earlier one; return its full uri.

    Args:
        uri: Where it is to stand.
        data: Its bytes.
        storage: How to reach that place, if it is not a local one: as the outputs are reached.

    Raises:
        StorageError: It cannot be written.
    """
    store, name = _place(uri, storage)
    store.replace(name, data)
    return store.name(name)


def read_file(uri: str, storage: StorageSettings) -> bytes:
    """Read a file whole.

    Raises:
        StorageError: It cannot be read.
    """
    store, name = _place(uri, storage)
    return store.read(name)


def _place(uri: str, storage: StorageSettings) -> tuple[Store, str]:
    folder, name = posixpath.split(uri)
    return Store(folder or ".", storage), name
