"""Read one unit: from a shard's bytes to a table of keys, compressed images and the input's other columns.

First step of the way. A row that cannot be read becomes an error row of stage `fetch`; only a shard that cannot be
read raises. It decodes no image (of a video, the frames that are taken) and knows neither models nor Ray.
"""

import functools
import logging
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline.columns import ERROR, OUR_COLUMNS, Word, columns_read, output_name, source_column
from pipeline.fetch import fetch_images, video_block
from pipeline.formats import manifest, parquet, samples
from pipeline.formats.fields import fit_column, fit_values
from pipeline.formats.packed import Unpacked
from pipeline.formats.rows import LIMIT_BYTES, Fault, RawBlock, RawRow, ReadError
from pipeline.formats.tar import ReadAt
from pipeline.shards import FILE_FORMATS, change
from pipeline.storage.store import StorageError, Store
from pipeline.units import ReadSettings, Unit

log = logging.getLogger(__name__)


def plan_schema(units: Sequence[Unit], settings: ReadSettings) -> pa.Schema:
    """Return the columns of every table that `read_unit` gives for these units.

    Raises:
        ReadError: There are no units.
    """
    if not units:
        raise ReadError(f"found no rows at {settings.uri}")
    return units[0].table_schema


def read_unit(unit: Unit, settings: ReadSettings, fault: Fault | None = None, *, with_images: bool = True) -> pa.Table:
    """Read a unit's rows, in order; bad rows have an `error` and no images.

    Args:
        unit: The rows.
        settings: Those of the unit's source.
        fault: What is wrong with all of the rows; then nothing is opened.
        with_images: Whether images are read and fetched; a row whose image is bad is well without.

    Raises:
        ReadError: The shard is another than the one that was planned.
        StorageError: The shard is gone, or the store refuses or does not answer.
    """
    if unit.only and unit.format in FILE_FORMATS:  # what is not wanted need not be opened
        unit = replace(unit, paths=tuple(unit.paths[row] for row in unit.only), start=0, stop=len(unit.only), only=())
    if unit.only:
        whole = read_unit(replace(unit, only=()), settings, fault, with_images=with_images)
        return whole.take(pa.array(unit.only, pa.int64()))
    store = Store(unit.root, settings.storage)
    block = _faulty(unit, fault) if fault else _raw_block(unit, settings, store, with_images=with_images)
    if len(block.rows) != unit.num_rows:
        found = f"found {len(block.rows)} rows, planned {unit.num_rows}"
        raise ReadError(f"{store.name(unit.shard)} is not what it was when the run was planned: {found}")
    folder = Store(posixpath.dirname(f"{store.uri}/{unit.shard}") if unit.shard else store.uri, settings.storage)
    images = fetch_images(block.rows, folder) if with_images else [[]] * unit.num_rows
    keys = [_key(row, unit, place, settings) for place, row in enumerate(block.rows)]
    others = _other_columns(block, unit, columns_read(settings.columns, is_raw=unit.is_raw))
    images = [[] if row.fault else found for row, found in zip(block.rows, images, strict=True)]
    errors = [_error(row.fault) for row in block.rows]
    ours = [pa.array(keys, pa.string()), *_places(unit), pa.array(images, OUR_COLUMNS.field("images").type)]
    return pa.Table.from_arrays([*ours, *others, pa.array(errors, ERROR)], schema=unit.table_schema)


def _raw_block(unit: Unit, settings: ReadSettings, store: Store, *, with_images: bool) -> RawBlock:
    if unit.format == "images" or (unit.format == "video" and not with_images):
        return RawBlock([RawRow(key=path, image=path) for path in unit.paths], {})
    if unit.format == "video":
        return video_block(unit.paths, store, settings.num_frames, settings.frame_size)
    check_unchanged(unit, store, settings.on_changed)
    if unit.format == "parquet":
        return _parquet_block(unit, settings, store, with_images=with_images)
    if unit.format == "webdataset":
        image = samples.wanted_image(settings.columns.get("image"))
        rows = samples.read(_reader(unit, store), unit.first_byte, unit.end_byte, image, with_images=with_images)
    else:
        rows = manifest.read(store.read(unit.shard, unit.first_byte, unit.end_byte), unit.format, unit.header)
        for row in rows:
            row.image = row.values.pop(source_column("image", settings.columns), None)
            row.key = row.values.pop(source_column("key", settings.columns), None)
    return RawBlock(rows[: unit.num_rows])  # a limit may end the run within the bytes of a unit


def check_unchanged(unit: Unit, store: Store, on_changed: str) -> None:
    """Refuse a shard that is another than the one that was planned, as far as its size and tag tell.

    Raises:
        ReadError: It is.
        StorageError: It is gone, or the store refuses or does not answer.
    """
    if found := change(store.entry(unit.shard), unit.size, unit.etag, on_changed):
        raise ReadError(f"{store.name(unit.shard)} is not what it was when the run was planned: {found}")


def _reader(unit: Unit, store: Store) -> ReadAt:
    """Return a way to read at places of a tar: from one request, or, around a member too large, from many."""
    first = unit.first_byte
    if unit.end_byte - first > LIMIT_BYTES:
        return lambda position, count: _bytes(unit, store, position, position + count)
    data = _bytes(unit, store, first, unit.end_byte)
    return lambda position, count: data[position - first : position - first + count]


def _bytes(unit: Unit, store: Store, start: int, stop: int) -> bytes:
    if not unit.is_packed:
        return store.read(unit.shard, start, stop)
    return store.use(unit.shard, lambda file: Unpacked(file).read_at(start, stop - start))


def _parquet_block(unit: Unit, settings: ReadSettings, store: Store, *, with_images: bool) -> RawBlock:
    key, image = source_column("key", settings.columns), source_column("image", settings.columns)
    read = functools.partial(
        parquet.read, start=unit.start, stop=unit.stop, key=key, image=image, with_images=with_images
    )
    try:
        return store.use(unit.shard, read)
    except StorageError as error:
        # The footer was readable when the run was planned and the bytes are the same: these rows' pages are broken.
        if not parquet.is_damage(error.__cause__):
            raise
        return _faulty(unit, Fault("Unreadable", str(error)))


def _faulty(unit: Unit, fault: Fault) -> RawBlock:
    """Return a unit's rows of which nothing is known but where they stand."""
    return RawBlock([RawRow(fault=fault) for _ in range(unit.num_rows)], {})


def _key(row: RawRow, unit: Unit, place: int, settings: ReadSettings) -> str:
    fallback = f"{unit.shard}#{unit.start + place}"
    if row.key is None and "key" not in settings.columns:
        return fallback
    is_name = type(row.key) is int or (isinstance(row.key, str) and row.key != "")
    if is_name and not any("\ud800" <= character <= "\udfff" for character in str(row.key)):
        return str(row.key)
    row.fault = row.fault or Fault("WrongKey", f"the key is {row.key!r}, expected text or a whole number")
    return fallback


def _places(unit: Unit) -> tuple[pa.Array, pa.Array]:
    """Return the columns `shard` and `index`."""
    if unit.format in FILE_FORMATS:
        return pa.array(unit.paths, pa.string()), pa.array([0] * unit.num_rows, pa.int64())
    return pa.array([unit.shard] * unit.num_rows, pa.string()), pa.array(range(unit.start, unit.stop), pa.int64())


def _other_columns(block: RawBlock, unit: Unit, columns: Mapping[Word, str]) -> list[pa.Array]:
    """Return the input's other columns in the types of the run; a value that does not fit makes its row an error."""
    wanted = [field for field in unit.table_schema if field.name not in (*OUR_COLUMNS.names, "error")]
    if block.columns is None:
        fitted = _fit_rows(block, wanted, unit, columns)
    else:
        found = {output_name(name, columns, unit.format): each for name, each in block.columns.items()}
        fitted = [_fit_found(field, found.get(field.name), unit.num_rows) for field in wanted]
    for _, faults in fitted:
        for row, fault in zip(block.rows, faults, strict=True):
            row.fault = row.fault or fault
    return [column for column, _ in fitted]


def _fit_found(field: pa.Field, column: pa.ChunkedArray | None, num_rows: int) -> tuple[pa.Array, list[Fault | None]]:
    if column is None:
        return pa.nulls(num_rows, field.type), [None] * num_rows
    return fit_column(field.name, column, field.type)


def _fit_rows(
    block: RawBlock, wanted: Sequence[pa.Field], unit: Unit, columns: Mapping[Word, str]
) -> list[tuple[pa.Array, list[Fault | None]]]:
    named = [
        {output_name(name, columns, unit.format): value for name, value in row.values.items()} for row in block.rows
    ]
    known = {field.name for field in wanted}
    left_out = sorted({name for row in named for name in row if name is not None} - known)
    if left_out:
        log.warning("%s: left out fields that no row looked at by the plan had: %s", unit.shard, ", ".join(left_out))
    return [
        fit_values(field.name, [row.get(field.name) for row in named], field.type, is_raw=unit.is_raw)
        for field in wanted
    ]


def _error(fault: Fault | None) -> dict[str, Any] | None:
    if fault is None:
        return None
    message = fault.message.encode("utf-8", "backslashreplace").decode()
    return {"stage": fault.stage, "type": fault.type, "message": message}
