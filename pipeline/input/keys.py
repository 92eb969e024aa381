"""Look for keys that stand for two rows before a run starts whose scores would be wrong with them.

Only names are read: a tar's headers, a Parquet file's key column, the lines of a manifest. No image is opened.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, assert_never

import numpy as np

from pipeline.input.formats import arrow, parquet, tar_rows
from pipeline.input.formats.chats import KEYS
from pipeline.input.formats.packed import Unpacked
from pipeline.input.formats.rows import Shape
from pipeline.input.formats.shapes import placed_key
from pipeline.input.formats.tar import reader_of
from pipeline.input.stretches import rows_in_stretch, zip_keys
from pipeline.input.units import ReadSettings, Unit, layout_of
from pipeline.storage.store import Store

EXAMPLES = 3
# Looked at by name; that all of them only share their hash and none of the others does better is out of the question.
CANDIDATES = 1000


def duplicate_keys(units: Sequence[Unit], read: ReadSettings) -> list[str]:
    """Return some keys that more than one row has; none means that all keys differ.

    Of every key 8 bytes are held, not its text, so ten million rows take about 200 MB. The input's names are read a
    second time only where two rows seem to share one.
    """
    if not units:
        return []
    hashes = np.concatenate([np.fromiter(map(hash, _keys(unit, read)), np.int64) for unit in _stretches(units)])
    hashes.sort()
    suspects = set(np.unique(hashes[1:][hashes[1:] == hashes[:-1]])[:CANDIDATES].tolist())
    if not suspects:
        return []
    seen: set[str] = set()
    twice: list[str] = []
    for key in itertools.chain.from_iterable(_keys(unit, read) for unit in _stretches(units)):
        if hash(key) not in suspects or key in twice:
            continue
        if key in seen:
            twice.append(key)
        if len(twice) == EXAMPLES:
            break
        seen.add(key)
    return twice


def _stretches(units: Sequence[Unit]) -> Iterator[Unit]:
    """Join the units of a shard, where each would open it anew and read more of it than its own rows."""
    for (_, format), group in itertools.groupby(units, key=lambda unit: (unit.shard, unit.format)):
        together = list(group)
        if format in ("parquet", "arrow", "webdataset"):
            together = [replace(together[0], stop=together[-1].stop, end_byte=together[-1].end_byte)]
        yield from together


def _keys(unit: Unit, read: ReadSettings) -> Iterator[str]:
    """Give the keys of a unit's rows; rows that will be named by their place, which is unique, are passed over."""
    store = Store(unit.root, read.storage)
    column = layout_of(read, unit.format, is_raw=unit.is_raw, shape=unit.shape).key
    shape: Shape = "" if "key" in read.columns else unit.shape
    match unit.format:
        case "webdataset":
            names: list[Any] = store.use(unit.shard, lambda file: _tar_keys(file, unit), unit.size)
        case "zip":
            names = zip_keys(unit, store)
        case "arrow" | "parquet":
            columns = KEYS if unit.shape == "chat" and "key" not in read.columns else (column,)
            found = [store.use(unit.shard, functools.partial(_column_keys, unit, each), unit.size) for each in columns]
            rows_of_names = itertools.zip_longest(*found)
            names = [next((name for name in row if name is not None), None) for row in rows_of_names]
        case "images" | "video":
            names = []
        case "jsonl" | "json" | "csv" | "tsv" | "text":
            rows = rows_in_stretch(unit, read, store)
            names = [row.values.get(column) for row in rows[: unit.num_rows]]
        case _:
            assert_never(unit.format)
    yield from (str(placed_key(name, shape, unit.shard)) for name in names if type(name) in (int, str) and name != "")


def _column_keys(unit: Unit, column: str, file: BinaryIO) -> list[Any]:
    """Return a column of a unit of a table; nothing where there is no such column."""
    if unit.format == "parquet":
        return list(parquet.keys(file, column, unit.start, unit.stop))
    span = unit.first_byte, unit.end_byte
    found = list(arrow.keys(reader_of(file, unit.size), unit.size, *span, column))
    return found[unit.skipped : unit.skipped + unit.num_rows]


def _tar_keys(file: BinaryIO, unit: Unit) -> list[Any]:
    read_at = Unpacked(file).read_at if unit.is_packed else reader_of(file, unit.size)
    return list[Any](tar_rows.keys(read_at, unit.first_byte, unit.end_byte)[: unit.num_rows])
