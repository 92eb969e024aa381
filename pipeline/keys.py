"""Look for keys that stand for two rows before a run starts whose scores would be wrong with them.

Only names are read: a tar's headers, a Parquet file's key column, the lines of a manifest. No image is opened.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from pipeline.columns import source_column
from pipeline.formats import manifest, tar
from pipeline.storage import Store
from pipeline.units import ReadSettings, Unit

EXAMPLES = 3


def duplicate_keys(units: Sequence[Unit], read: ReadSettings) -> list[str]:
    """Return some keys that more than one row has; none means that all keys differ."""
    seen: set[str] = set()
    twice: list[str] = []
    for unit in _stretches(units):
        for key in _keys(unit, read):
            if key in seen and key not in twice:
                twice.append(key)
            if len(twice) == EXAMPLES:
                return twice
            seen.add(key)
    return twice


def _stretches(units: Sequence[Unit]) -> Iterator[Unit]:
    """Join the units of a Parquet file, whose key column would be read anew for each of them."""
    for (_, format), group in itertools.groupby(units, key=lambda unit: (unit.shard, unit.format)):
        together = list(group)
        if format == "parquet":
            together = [replace(together[0], stop=together[-1].stop)]
        yield from together


def _keys(unit: Unit, read: ReadSettings) -> Iterator[str]:
    """Give the keys of a unit's rows; rows that will be named by their place, which is unique, are passed over."""
    store = Store(unit.root, read.storage)
    column = source_column("key", read.columns)
    if unit.format == "webdataset":
        names: list[Any] = store.use(unit.shard, lambda file: _tar_keys(file, unit))
    elif unit.format == "parquet":
        names = store.use(unit.shard, lambda file: _parquet_keys(file, unit, column))
    elif unit.format == "images":
        names = []
    else:
        rows = manifest.read(store.read(unit.shard, unit.first_byte, unit.end_byte), unit.format, unit.header)
        names = [row.values.get(column) for row in rows[: unit.num_rows]]
    yield from (str(name) for name in names if type(name) in (int, str) and name != "")


def _tar_keys(file: BinaryIO, unit: Unit) -> list[Any]:
    def read_at(position: int, count: int) -> bytes:
        file.seek(position)
        return file.read(count)

    rows = tar.rows_of(tar.Walk(read_at, unit.first_byte, unit.end_byte))
    names = [tar.MEMBER_NAME.fullmatch(members[0].name) for members in rows]
    return [name[1] for name in names[: unit.num_rows] if name]


def _parquet_keys(file: BinaryIO, unit: Unit, column: str) -> list[Any]:
    parquet = pq.ParquetFile(file)
    if column not in parquet.schema_arrow.names:
        return []
    keys = parquet.read(columns=[column]).column(column)
    return list(keys.slice(unit.start, unit.num_rows).to_pylist())
