"""Put images in place of ids, where rows hold ids alone and the images lie in a table of their own.

It knows which table that is and whether it is still the one that was planned; how one looks into it,
pipeline/input/joined_table.py knows.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.input.formats.inline import SHORTEST, listed
from pipeline.input.formats.rows import Fault, RawRow, ReadError
from pipeline.input.joined_table import Table, id_of, index_table
from pipeline.input.read_settings import JoinSettings
from pipeline.input.shards import Shards, change, find_again, find_shards, joined
from pipeline.storage.store import Entry, StorageSettings

# Tables held open by a process.
MOST_TABLES = 4

# By uri, columns and version; a process reads unit after unit of one source.
_open: "OrderedDict[tuple[object, ...], Table]" = OrderedDict()


def resolve(rows: Sequence[RawRow], table: Table) -> None:
    """Put images in place of the ids in rows; a cell that holds an image itself keeps it.

    Raises:
        StorageError: The store refuses or does not answer.
    """
    ids = {name for row in rows for cell in _cells(row.image) if (name := _id_in(cell)) is not None}
    by_id = table.images(ids) if ids else {}
    for row in rows:
        images = [by_id[name] if (name := _id_in(cell)) is not None else cell for cell in _cells(row.image)]
        row.fault = row.fault or next((image for image in images if isinstance(image, Fault)), None)
        row.image = images


def _cells(image: Any) -> list[Any]:
    if isinstance(image, list):
        return [cell for item in image for cell in _cells(item)]
    if isinstance(image, str) and (several := listed(image)) is not None:
        return list(several)
    return [image]


def _id_in(cell: Any) -> str | None:
    """Return the id in a cell; None where it holds an image, or nothing."""
    if isinstance(cell, str) and (len(cell) > SHORTEST or cell.startswith("data:")):
        return None
    return id_of(cell)


def check_join(join: JoinSettings, shards: Shards, storage: StorageSettings) -> Entry:
    """Look into the table in which images will be looked up, and return its files as one.

    Args:
        join: Where it lies.
        shards: Those of the source: where the table is not another, each of them is one.
        storage: How to reach it.

    Raises:
        ReadError: It is not there, is no table, lacks a column, or has two rows of one id.
        StorageError: The store refuses or does not answer.
    """
    if join.uri is None:
        for entry in shards.entries:
            _table(replace(shards, entries=[entry]), join)
        return Entry("", 0, None)
    found = find_shards(join.uri, "auto", storage)
    _table(found, join)
    return joined(found.entries)


def open_table(join: JoinSettings, shard: Shards, planned: Entry, on_changed: str) -> Table:
    """Open the table in which images of a shard's rows are looked up; opened before, and unchanged, it is at hand.

    Args:
        join: Where it lies.
        shard: The one shard, in which the images lie where no other table is named.
        planned: The table's files as they were when the run was planned.
        on_changed: See `ReadSettings`.

    Raises:
        ReadError: It is another than the one that was planned.
        StorageError: It is gone, or the store refuses or does not answer.
    """
    if join.uri is None:
        return _table(shard, join)
    found = find_again(replace(shard.store, uri=join.uri), "auto")
    if difference := change(joined(found.entries), planned, on_changed):
        raise ReadError(f"{join.uri} is not what it was when the run was planned: {difference}")
    return _table(found, join)


def join_version(join: JoinSettings, storage: StorageSettings) -> Entry | None:
    """Return the files of another table as one, as they are now; None where images lie in the shards themselves."""
    return joined(find_shards(join.uri, "auto", storage).entries) if join.uri else None


def _table(shards: Shards, join: JoinSettings) -> Table:
    version = joined(shards.entries)
    name = (shards.store.uri, join.key, join.image, version.size, version.etag)
    if name in _open:
        _open.move_to_end(name)
    else:
        _open[name] = index_table(shards, join)
        while len(_open) > MOST_TABLES:
            _open.popitem(last=False)
    return _open[name]
