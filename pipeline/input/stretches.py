"""Read rows that lie in one stretch of a shard's bytes: lines, cells, elements of a JSON array, batches of Arrow.

Rows that are more than their fields are completed here, as the plan has found them to be (`Unit.shape`).
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Sequence
from typing import BinaryIO, TypeVar

import pyarrow as pa

from pipeline.input.formats import arrays, arrow, manifest, samples, zips
from pipeline.input.formats.chats import LOOKED_AT, MESSAGES, OF_CHATS, key_of, unfolded, unfolded_beside
from pipeline.input.formats.coco import Annotations
from pipeline.input.formats.fields import fit_values, plain_values
from pipeline.input.formats.packed import Unpacked
from pipeline.input.formats.rows import LIMIT_BYTES, RawRow, RowError
from pipeline.input.formats.tar import reader_of
from pipeline.input.streams import read_unpacked
from pipeline.input.units import ReadSettings, Unit
from pipeline.storage.held_bytes import hold
from pipeline.storage.kept import KeptOpen
from pipeline.storage.store import Store

# Of an Arrow file in a store only headers are read ahead; a batch that is not larger is fetched by each unit.
AHEAD_BYTES = 2**16
# Files whose annotations a process holds.
MOST_ANNOTATED = 2

# Zip archives that a process keeps open.
MOST_ARCHIVES = 2
T = TypeVar("T")

_archives = KeptOpen[zips.Archive](MOST_ARCHIVES)
_annotated: "OrderedDict[tuple[object, ...], Annotations]" = OrderedDict()


def rows_in_stretch(unit: Unit, settings: ReadSettings, store: Store) -> list[RawRow]:
    """Return a unit's rows.

    Raises:
        StorageError: The store refuses or does not answer.
    """
    assert unit.format in ("jsonl", "json", "csv", "tsv", "text")
    data = bytes_of(unit, store, unit.first_byte, unit.end_byte)
    if unit.format == "json":
        rows = arrays.read(data)
    else:
        rows = manifest.read(data, unit.format, unit.header, settings.dialect(unit.format))
    if unit.shape == "chat":
        _unfold(rows, settings, is_asked="question" not in unit.unread)
    elif unit.shape == "coco":
        annotations = _annotations(unit, store)
        for row in rows:
            row.values |= annotations.of(row.values.get("id"))
    return rows


def rows_of_table(
    table: pa.Table, unit: Unit, settings: ReadSettings, names: Collection[str]
) -> tuple[list[RawRow], pa.Table]:
    """Return rows with the values of some columns; of conversations also what they say, and the table with that."""
    wanted = {*names, *LOOKED_AT} if unit.shape == "chat" else names
    values = {name: plain_values(table.column(name)) for name in wanted if name in table.column_names}
    rows = [RawRow(values={name: each[place] for name, each in values.items()}) for place in range(table.num_rows)]
    if unit.shape == "chat":
        _unfold(rows, settings, is_asked="question" not in unit.unread)
        for name, kind in OF_CHATS.items():
            array, faults = fit_values(name, [row.values.get(name) for row in rows], kind)
            for row, fault in zip(rows, faults, strict=True):
                row.fault = row.fault or (fault if name not in unit.unread else None)
            table = _with_column(table, name, array)
        for name in ("messages", "body"):  # images that stood in them are cut short
            told = [row.values.get(name) for row in rows]
            if name in values and told != values[name]:
                table = _with_column(table, name, pa.array(told, table.column(name).type))
    return rows, table


def _with_column(table: pa.Table, name: str, array: pa.Array) -> pa.Table:
    place = table.column_names.index(name) if name in table.column_names else table.num_columns
    kept = table.drop_columns([name]) if name in table.column_names else table
    return kept.add_column(place, name, array)


def older_fault(unit: Unit) -> str | None:
    """Say that a unit's conversations were planned by a version that asked of each no more than one turn."""
    if unit.shape != "chat" or MESSAGES in unit.table_schema.names:
        return None
    return "planned by an older version, which asked one turn of a conversation without those before it; run it anew"


def read_batches(unit: Unit, store: Store, left_out: Container[str]) -> pa.Table:
    """Return the rows of a unit of an Arrow shard, without the columns that are left out."""

    def stretch(first: int, end: int, is_shared: bool) -> pa.Buffer:
        if store.is_local and end - first > LIMIT_BYTES:
            with pa.memory_map(f"{store.uri}/{unit.shard}") as mapped:
                mapped.seek(first)
                return mapped.read_buffer(end - first)
        name = f"{store.name(unit.shard)} {unit.size} {unit.etag} {first}-{end}"
        is_kept = is_shared and not store.is_local and end - first > AHEAD_BYTES

        def fetch(at: int, count: int) -> bytes:
            return store.read(unit.shard, first + at, first + at + count)

        held = hold(name, end - first, fetch) if is_kept else None
        return pa.py_buffer(held or store.read(unit.shard, first, end))

    def read(file: BinaryIO) -> pa.Table:
        span = unit.first_byte, unit.end_byte
        read_at = reader_of(file, unit.size)
        return arrow.read(read_at, stretch, *span, unit.skipped, unit.stop - unit.start, left_out)

    return store.use(unit.shard, read, unit.size, AHEAD_BYTES)


def read_zip(unit: Unit, store: Store, image: str | None, *, with_images: bool) -> list[RawRow]:
    """Return the rows of a unit of a zip archive, which stays open: its directory may be large."""
    return _use_archive(unit, store, lambda one: one.read(unit.start, unit.stop, image, with_images=with_images))


def zip_keys(unit: Unit, store: Store) -> list[str]:
    """Return the keys of the rows of a unit of a zip archive."""
    return _use_archive(unit, store, lambda one: [samples.key_of(row) for row in one.rows[unit.start : unit.stop]])


def _use_archive(unit: Unit, store: Store, operation: Callable[[zips.Archive], T]) -> T:
    is_by_name = unit.end_byte == 0  # as older plans have it
    return _archives.use(
        store,
        unit.planned,
        lambda file: zips.Archive(file, unit.size, is_by_name=is_by_name),
        operation,
        is_fit=lambda archive: archive.is_by_name == is_by_name,
        ahead_bytes=zips.AHEAD_BYTES,
    )


def bytes_of(unit: Unit, store: Store, start: int, stop: int) -> bytes:
    """Return bytes of a unit's shard; of what it holds, where it is compressed."""
    if not unit.is_packed:
        return store.read(unit.shard, start, stop)
    return read_unpacked(store, unit.planned, start, stop)


def unfold_members(rows: Sequence[RawRow], unit: Unit) -> None:
    """Put what conversations say beside the fields of rows that are members of an archive, as their images are."""
    for row in rows:
        images = row.image if isinstance(row.image, list) else [row.image]
        try:
            row.values |= unfolded_beside(row.values, [image for image in images if image]) or {}
        except RowError as error:
            row.fault = row.fault or (error.fault if "question" not in unit.unread else None)


def _unfold(rows: Sequence[RawRow], settings: ReadSettings, *, is_asked: bool) -> None:
    """Put what conversations say beside their fields; one that cannot be asked costs its row if the job asks it.

    Images that settings name stand beside a conversation in the place of `image`; those of its turns join them.
    """
    named = settings.columns.get("image", ())
    names = (named,) if isinstance(named, str) else named
    for row in rows:
        beside = {"image": [found for name in names if (found := row.values.get(name))], "images": None}
        try:
            said = unfolded({**row.values, **beside} if names else row.values) or {}
            if names and said:
                said |= {**dict.fromkeys(names), names[0]: said.pop("image")}
            row.values |= said
        except RowError as error:
            row.values |= key_of(row.values)
            row.fault = row.fault or (error.fault if is_asked else None)


def _annotations(unit: Unit, store: Store) -> Annotations:
    """Return what a file's annotations say; read before by this process, they are at hand."""
    name = (unit.root, unit.shard, unit.size, unit.etag)
    if name in _annotated:
        _annotated.move_to_end(name)
    else:
        _annotated[name] = store.use(unit.shard, lambda file: _read_annotations(file, unit), unit.size)
        while len(_annotated) > MOST_ANNOTATED:
            _annotated.popitem(last=False)
    return _annotated[name]


def _read_annotations(file: BinaryIO, unit: Unit) -> Annotations:
    walk = arrays.Walk(Unpacked(file) if unit.is_packed else file)
    return Annotations((element.array, element.data) for element in walk)
