"""Read one unit: from a shard's bytes to a table of keys, compressed images and the input's other columns.

First step of the way. A row that cannot be read becomes an error row of stage `fetch`; only a shard that cannot be
read raises. It decodes no image (of a video, the frames that are taken) and knows neither models nor Ray.
"""

import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, assert_never

import pyarrow as pa

from pipeline.input.columns import BY_PLACE, ERROR, OUR_COLUMNS, Layout
from pipeline.input.fetch import fetch_images
from pipeline.input.formats import parquet, tar_rows
from pipeline.input.formats.fields import fit_column, fit_values, plain_values
from pipeline.input.formats.packed import Unpacked
from pipeline.input.formats.rows import LIMIT_BYTES, Fault, RawBlock, RawRow, ReadError
from pipeline.input.formats.shapes import file_names, placed_key
from pipeline.input.formats.table import FORMATS
from pipeline.input.formats.tar import Member, ReadAt, reader_of
from pipeline.input.hive import tell_differing, values_of
from pipeline.input.image_paths import paths_of
from pipeline.input.joins import open_table, resolve
from pipeline.input.shards import Shards, change
from pipeline.input.sidecars import read_beside
from pipeline.input.streams import use_parquet
from pipeline.input.stretches import (
    bytes_of,
    older_fault,
    read_batches,
    read_zip,
    rows_in_stretch,
    rows_of_table,
    unfold_members,
)
from pipeline.input.units import ReadSettings, Unit, layout_of
from pipeline.input.videos import read_subtitles, take_videos, video_block
from pipeline.storage.store import StorageError, Store

log = logging.getLogger(__name__)


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
    if unit.only and FORMATS[unit.format].is_file:  # what is not wanted need not be opened
        paths, sidecars = (tuple(all[row] for row in unit.only if all) for all in (unit.paths, unit.sidecars))
        unit = replace(unit, paths=paths, sidecars=sidecars, start=0, stop=len(unit.only), only=())
    if unit.only:
        whole = read_unit(replace(unit, only=()), settings, fault, with_images=with_images)
        return whole.take(pa.array(unit.only, pa.int64()))
    store = Store(unit.root, settings.storage)
    layout = layout_of(settings, unit.format, is_raw=unit.is_raw, shape=unit.shape, image_path=unit.image_path)
    block = _faulty(unit, fault) if fault else _raw_block(unit, settings, layout, store, with_images=with_images)
    if len(block.rows) != unit.num_rows:
        found = f"found {len(block.rows)} rows, planned {unit.num_rows}"
        raise ReadError(f"{store.name(unit.shard)} is not what it was when the run was planned: {found}")
    named = paths_of(block.rows, layout, unit.shard)  # before names make room for images
    pictured = _pictured(block, unit, settings, layout) if with_images and not fault else Pictured()
    keys = [_key(row, unit, place, settings) for place, row in enumerate(block.rows)]
    others = _other_columns(block, unit, layout, {**pictured.columns, **named, **_of_folders(block, unit, layout)})
    images = pictured.images or [[]] * unit.num_rows
    images = [[] if row.fault else found for row, found in zip(block.rows, images, strict=True)]
    errors = [_error(row.fault) for row in block.rows]
    ours = [pa.array(keys, pa.string()), *_places(unit), pa.array(images, OUR_COLUMNS.field("images").type)]
    return pa.Table.from_arrays([*ours, *others, pa.array(errors, ERROR)], schema=unit.table_schema)


def _raw_block(unit: Unit, settings: ReadSettings, layout: Layout, store: Store, *, with_images: bool) -> RawBlock:
    if not FORMATS[unit.format].is_file:
        check_unchanged(unit, store, settings.on_changed)
    match unit.format:
        case "images":
            block = _listed(unit)
            read_beside(block.rows, unit.shape, unit.sidecars, store)
            return block
        case "video":
            return (
                video_block(unit.paths, store, settings.num_frames, settings.frame_size)
                if with_images
                else _listed(unit)
            )
        case "parquet" | "arrow":
            return _table_block(unit, settings, layout, store, with_images=with_images)
        case "webdataset":
            image = layout.wanted_image
            first, end = unit.first_byte, unit.end_byte
            find = functools.partial(_members, unit, store)
            rows = tar_rows.read(_reader(unit, store), first, end, image, find, with_images=with_images)
        case "zip":
            rows = read_zip(unit, store, layout.wanted_image, with_images=with_images)
        case "jsonl" | "json" | "csv" | "tsv" | "text":
            rows = rows_in_stretch(unit, settings, store)
            for row in rows:
                _take_out(row, layout)
        case _:
            assert_never(unit.format)
    if unit.shape == "chat" and FORMATS[unit.format].has_members:
        unfold_members(rows, unit)
    return RawBlock(rows[: unit.num_rows])  # a limit may end the run within the bytes of a unit


def _listed(unit: Unit) -> RawBlock:
    """Return rows that are files, without opening them."""
    return RawBlock([RawRow(key=path, image=path) for path in unit.paths])


def _take_out(row: RawRow, layout: Layout) -> None:
    """Make what a row says of itself its key, its images and the files that it names."""
    row.key = row.values.get(layout.key)
    is_of_folder = layout.shape == "imagefolder" and "image" not in layout.columns
    row.image = file_names(row.values) if is_of_folder else [row.values.get(name) for name in layout.images]
    row.video = row.values.get(layout.video) if layout.video else None
    row.subtitles = row.values.get(layout.subtitles) if layout.subtitles else None
    for name in layout.taken_out:
        row.values.pop(name, None)


@dataclass(frozen=True)
class Pictured:
    """The images of a unit's rows, and the columns that come from files that the rows name."""

    images: Sequence[Sequence[bytes]] = ()
    columns: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)


def _pictured(block: RawBlock, unit: Unit, settings: ReadSettings, layout: Layout) -> Pictured:
    """Fetch what rows name: images by id, path or address, frames of their videos, and subtitles."""
    root = Store(unit.root, settings.storage)
    own = root.folder_of(unit.shard) if unit.shard else root

    def folder(uri: str | None) -> Store:
        return Store(uri, settings.storage) if uri else own

    columns: dict[str, pa.ChunkedArray] = {}
    if settings.join:
        shard = Shards(root, unit.format, [unit.planned])
        resolve(block.rows, open_table(settings.join, shard, unit.planned_join, settings.on_changed))
    if layout.video:
        videos = folder(settings.folders.video)
        columns |= take_videos(block.rows, videos, settings.num_frames, settings.frame_size)
    if layout.subtitles:
        columns |= read_subtitles(block.rows, folder(settings.folders.subtitles))
    return Pictured(fetch_images(block.rows, folder(settings.folders.image)), columns)


def check_unchanged(unit: Unit, store: Store, on_changed: str) -> None:
    """Refuse a shard that is another than the one that was planned, as far as its size and tag tell.

    Raises:
        ReadError: It is, or an older version has planned it, which would ask its rows otherwise.
        StorageError: It is gone, or the store refuses or does not answer.
    """
    if older := older_fault(unit):
        raise ReadError(f"{store.name(unit.shard)}: {older}")
    if found := change(store.entry(unit.shard), unit.planned, on_changed):
        raise ReadError(f"{store.name(unit.shard)} is not what it was when the run was planned: {found}")


def _reader(unit: Unit, store: Store) -> ReadAt:
    """Return a way to read at places of a tar: from one request, or, around a member too large, from many."""
    first, end = unit.first_byte, unit.end_byte
    data = bytes_of(unit, store, first, end) if end - first <= LIMIT_BYTES else None

    def read_at(position: int, count: int) -> bytes:
        if data is None or not first <= position <= position + count <= end:  # a link may lead out of the unit
            return bytes_of(unit, store, position, position + count)
        return data[position - first : position - first + count]

    return read_at


def _members(unit: Unit, store: Store, names: Collection[str]) -> dict[str, Member]:
    """Find members of some names anywhere in a unit's tar, by its headers."""

    def find(file: BinaryIO) -> dict[str, Member]:
        if unit.is_packed:
            return tar_rows.find_members(Unpacked(file).read_at, None, names)
        return tar_rows.find_members(reader_of(file, unit.size), unit.size, names)

    return store.use(unit.shard, find, unit.size)


def _table_block(unit: Unit, settings: ReadSettings, layout: Layout, store: Store, *, with_images: bool) -> RawBlock:
    is_all_wanted = with_images or layout.join == "table" or unit.shape == "chat"
    left_out = () if is_all_wanted else layout.images
    try:
        if unit.format == "arrow":
            table = read_batches(unit, store, left_out)
        else:
            rows_at = (unit.start, unit.stop, left_out, unit.pages)
            table = use_parquet(store, unit.planned, lambda shard: shard.read(*rows_at))
    except StorageError as error:
        # The footer was readable when the run was planned and the bytes are the same: these rows' pages are broken.
        if not parquet.is_damage(error.__cause__):
            raise
        return _faulty(unit, Fault("Unreadable", str(error)))
    taken = [name for name in (layout.key, *layout.images, layout.video, layout.subtitles) if name is not None]
    rows, table = rows_of_table(table, unit, settings, taken)
    for row in rows:
        _take_out(row, layout)
    return RawBlock(rows, {name: table.column(name) for name in table.column_names if name not in layout.taken_out})


def _faulty(unit: Unit, fault: Fault) -> RawBlock:
    """Return a unit's rows of which nothing is known but where they stand."""
    return RawBlock([RawRow(fault=fault) for _ in range(unit.num_rows)], {})


def _key(row: RawRow, unit: Unit, place: int, settings: ReadSettings) -> str:
    fallback = f"{unit.shard}#{unit.start + place}"
    if row.key is None and settings.columns.get("key", BY_PLACE) == BY_PLACE:
        return fallback
    is_name = type(row.key) is int or (isinstance(row.key, str) and row.key != "")
    if is_name and not any("\ud800" <= character <= "\udfff" for character in str(row.key)):
        return str(row.key if "key" in settings.columns else placed_key(row.key, unit.shape, unit.shard))
    row.fault = row.fault or Fault("WrongKey", f"the key is {row.key!r}, expected text or a whole number")
    return fallback


def _places(unit: Unit) -> tuple[pa.Array, pa.Array]:
    """Return the columns `shard` and `index`."""
    if FORMATS[unit.format].is_file:
        return pa.array(unit.paths, pa.string()), pa.array([0] * unit.num_rows, pa.int64())
    return pa.array([unit.shard] * unit.num_rows, pa.string()), pa.array(range(unit.start, unit.stop), pa.int64())


def _other_columns(block: RawBlock, unit: Unit, layout: Layout, added: Mapping[str, pa.ChunkedArray]) -> list[pa.Array]:
    """Return the input's other columns in the types of the run; a value that does not fit makes its row an error."""
    wanted = [field for field in unit.table_schema if field.name not in (*OUR_COLUMNS.names, "error")]
    own = [field for field in wanted if field.name not in layout.added and field.name not in added]
    if block.columns is None:
        fitted = _fit_rows(block, own, unit, layout)
    else:
        found = {layout.output_name(name): each for name, each in block.columns.items()}
        fitted = [_fit_found(column, found.get(column.name), unit.num_rows) for column in own]
    unread = unit.unread
    for column, (_, faults) in zip(own, fitted, strict=True):
        if column.name in unread:
            _tell_lost(unit, faults)
            continue
        for row, fault in zip(block.rows, faults, strict=True):
            row.fault = row.fault or fault
    brought = [_fit_found(field, added.get(field.name), unit.num_rows) for field in wanted if field not in own]
    return [column for column, _ in [*fitted, *brought]]


def _of_folders(block: RawBlock, unit: Unit, layout: Layout) -> dict[str, pa.ChunkedArray]:
    """Return the columns that the names of the shard's folders hold; say where a file's own column differs."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name, value in values_of(unit.shard).items():
        if name in unit.hive:
            repeated = pa.array([value] * unit.num_rows, pa.string())
            columns[layout.output_name(name) or ""] = pa.chunked_array([repeated])
        elif block.columns is None:
            tell_differing(unit.shard, name, value, [row.values.get(name) for row in block.rows])
        elif name in block.columns:
            tell_differing(unit.shard, name, value, plain_values(block.columns[name]))
    return columns


def _fit_found(field: pa.Field, column: pa.ChunkedArray | None, num_rows: int) -> tuple[pa.Array, list[Fault | None]]:
    if column is None:
        return pa.nulls(num_rows, field.type), [None] * num_rows
    return fit_column(field.name, column, field.type)


def _fit_rows(
    block: RawBlock, wanted: Sequence[pa.Field], unit: Unit, layout: Layout
) -> list[tuple[pa.Array, list[Fault | None]]]:
    # Each name once, not each value: rows may have thousands of fields.
    names = {name: layout.output_name(name) for name in {name for row in block.rows for name in row.values}}
    named = [{names[name]: value for name, value in row.values.items()} for row in block.rows]
    known, unread = {field.name for field in wanted}, unit.unread
    left_out = sorted({name for row in named for name in row if name is not None} - known)
    if left_out:
        log.warning("%s: left out fields that were in no row sampled by the plan: %s", unit.shard, ", ".join(left_out))
    return [
        fit_values(
            field.name,
            [row.get(field.name) for row in named],
            field.type,
            is_plain=unit.is_raw or field.name in unread,
        )
        for field in wanted
    ]


def _tell_lost(unit: Unit, faults: Sequence[Fault | None]) -> None:
    lost = [fault for fault in faults if fault]
    if lost:
        log.warning(
            "%s: %d values do not fit and are null; no job reads them: %s", unit.shard, len(lost), lost[0].message
        )


def _error(fault: Fault | None) -> dict[str, Any] | None:
    if fault is None:
        return None
    message = fault.message.encode("utf-8", "backslashreplace").decode()
    return {"stage": fault.stage, "type": fault.type, "message": message}
