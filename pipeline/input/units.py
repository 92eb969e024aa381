"""Cut the input into units: consecutive rows of one shard that are read, answered and committed together.

Planning scans every shard once and writes down where each unit's rows lie, so that reading one later opens
only its own bytes. It knows nothing of models, parts or Ray.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from pipeline.input.columns import OF_VIDEOS, Layout, Names, Word, input_schema
from pipeline.input.formats.cells import DELIMITERS
from pipeline.input.formats.chats import added_by_chats, are_conversations
from pipeline.input.formats.rows import Cutter, Index, ReadError, Shape
from pipeline.input.formats.shapes import check_imagefolder, described, names_file, only_shape
from pipeline.input.formats.table import FORMATS, Format
from pipeline.input.hive import hive_columns
from pipeline.input.image_paths import type_of_paths
from pipeline.input.joins import check_join
from pipeline.input.read_settings import FRAME_SIZE, NUM_FRAMES
from pipeline.input.read_settings import ReadSettings as ReadSettings
from pipeline.input.scan import Scan, merged, scan_shards, warnings_of
from pipeline.input.shards import Shards, find_shards, joined
from pipeline.input.sidecars import fields_beside, sidecar_paths
from pipeline.input.splits import of_split
from pipeline.input.unit import InputPlan as InputPlan
from pipeline.input.unit import Unit as Unit
from pipeline.storage.store import Entry


def plan_input(
    settings: ReadSettings,
    unit_rows: int,
    *,
    is_raw: bool = False,
    reads: Collection[str] | None = None,
    with_images: bool = True,
) -> InputPlan:
    """List the shards, scan each, and cut its rows into units of at most `unit_rows` rows.

    Args:
        settings: The input.
        unit_rows: The most rows of a unit.
        is_raw: Whether columns keep their own names and types (see `pipeline.input.sources.Source`).
        reads: The columns that the job reads, as our tables call them; None: all.
        with_images: Whether images will be read; without, neither their columns nor the table that they may lie in need
            be there.
    """
    shards = find_shards(settings.uri, settings.format, settings.storage)
    shards = of_split(shards, settings.split, settings.uri)
    notes = [f"{settings.uri}: found {shards.note}"]
    layout = layout_of(settings, shards.format, is_raw=is_raw, shape=shards.shape)
    _refuse_idle_settings(shards, settings)
    if FORMATS[shards.format].is_file:
        return InputPlan(_file_units(shards, settings, unit_rows, layout), [*shards.warnings], notes)
    shapes = _possible_shapes(settings, shards, is_raw=is_raw)
    scanned = scan_shards(shards, unit_rows, settings.limit, settings.dialect(shards.format), shapes)
    warnings = [*shards.warnings, *warnings_of(shards, scanned, layout)]
    where = next((shards.store.name(entry.path) for entry, index in scanned if index.slices), None)
    if where is None:
        raise ReadError("; ".join([f"found no rows in the {len(scanned)} shards of {settings.uri}", *warnings[:5]]))
    types, extensions = merged(shards.format, [index for _, index in scanned if index.slices])
    hive = hive_columns([entry.path for entry, index in scanned if index.slices])
    if own := hive.keys() & types.keys():
        warnings.append(
            f"the columns {', '.join(sorted(own))} stand in files and in folders' names; the files' are kept"
        )
    added = {name: kind for name, kind in hive.items() if name not in own}
    types |= added
    if hive:
        notes = [f"{notes[0]}; folders name the columns {', '.join(hive)}"]
    layout = replace(layout, shape=_found_shape(scanned, types, shapes) or layout.shape)
    if layout.shape in ("chat", "coco"):
        types |= added_by_chats(types, layout.columns) if layout.shape == "chat" else {}
        notes = [f"{notes[0]}; {described(layout.shape, types)}"]
    if layout.shape == "imagefolder":
        layout = _as_imagefolder(layout, types, where, is_folder=shards.is_folder)
        num_rows = sum(index.num_rows for _, index in scanned)
        if num_rows < shards.num_images and settings.limit is None and "file_name" in types:
            more = f"{shards.num_images - num_rows} or more are in no row"
            warnings.append(f"{num_rows} rows name images of {shards.num_images} that lie beside: {more}")
    if not with_images and not any(image in types for image in layout.images):
        others: dict[Word, Names] = {word: names for word, names in layout.columns.items() if word != "image"}
        layout = replace(layout, columns=others, join="")
    layout = replace(layout, image_path=type_of_paths(types, layout, extensions) if with_images else None)
    schema = input_schema(types, layout, where, extensions, reads).serialize().to_pybytes()
    units = _row_units(replace(shards, shape=layout.shape), scanned, schema, settings.limit)
    units = [replace(unit, hive=tuple(added)) for unit in units] if added else units
    if settings.join and with_images:
        other = check_join(settings.join, shards, settings.storage)
        units = [replace(unit, join_size=other.size, join_etag=other.etag) for unit in units]
    return InputPlan(units, warnings, notes)


def layout_of(
    settings: ReadSettings, format: Format, *, is_raw: bool, shape: Shape, image_path: pa.DataType | None = None
) -> Layout:
    """Return what a source's settings, and the shape of its rows, say of its columns."""
    columns, join = settings.columns, settings.join
    return Layout(columns, format, is_raw, "" if join is None else "table" if join.uri else "shard", shape, image_path)


def _possible_shapes(settings: ReadSettings, shards: Shards, *, is_raw: bool) -> Collection[Shape]:
    """Return what rows may be beyond their fields: nothing where a job or the folder says it already."""
    if is_raw or shards.shape:
        return ()
    possible: list[Shape] = ["coco"] if {"question", "answers"} & settings.columns.keys() else ["coco", "chat"]
    return possible


def _found_shape(scanned: Scan, types: Mapping[str, pa.DataType], possible: Collection[Shape]) -> Shape:
    """Return what rows were found to be; of columns that are structs their types tell it.

    Raises:
        ReadError: Some files are COCO's, and others are not.
    """
    shape = only_shape({entry.path: index.shape for entry, index in scanned if index.slices})
    return "chat" if not shape and "chat" in possible and are_conversations(types) else shape


def _as_imagefolder(layout: Layout, fields: Mapping[str, pa.DataType], where: str, *, is_folder: bool) -> Layout:
    """Take metadata beside images for what it is if its columns name them; a file by itself may be anything.

    Raises:
        ReadError: It stands beside images and names none.
    """
    if is_folder and "image" not in layout.columns:
        check_imagefolder(fields, where)
    is_one = any(map(names_file, fields)) and not (not is_folder and "image" in fields)
    return layout if is_one else replace(layout, shape="")


def _row_units(shards: Shards, indexed: Sequence[tuple[Entry, Index]], schema: bytes, limit: int | None) -> list[Unit]:
    left = limit if limit is not None else sum(index.num_rows for _, index in indexed)
    units: list[Unit] = []
    for entry, index in indexed:
        for piece in index.slices:
            num_rows = min(piece.stop - piece.start, left)
            if num_rows == 0:
                return units
            left -= num_rows
            unit = Unit(
                seq=len(units),
                root=shards.store.uri,
                shard=entry.path,
                format=shards.format,
                start=piece.start,
                stop=piece.start + num_rows,
                schema=schema,
                first_byte=piece.first_byte,
                end_byte=piece.end_byte,
                pages=piece.pages,
                skipped=piece.skipped,
                size=entry.size,
                etag=entry.etag,
                header=tuple(index.header),
                is_packed=index.is_packed,
                shape=index.shape or shards.shape,
            )
            units.append(unit)
    return units


def _refuse_idle_settings(shards: Shards, settings: ReadSettings) -> None:
    """Refuse settings of videos and of cells where there are none; look whether videos can be decoded.

    Raises:
        ReadError: A setting has nothing to apply to, or nothing here decodes videos.
    """
    if shards.format not in DELIMITERS and (settings.delimiter, settings.quotes) != (None, None):
        raise ReadError(f"read.delimiter and read.quotes are for CSV and TSV; found {shards.format} at {settings.uri}")
    if shards.format == "video" or "video" in settings.columns:
        importlib.import_module("pipeline.input.formats.video")
    elif (settings.num_frames, settings.frame_size) != (NUM_FRAMES, FRAME_SIZE):
        raise ReadError(f"read.num_frames and read.frame_size are for videos; found {shards.format} at {settings.uri}")


def _file_units(shards: Shards, settings: ReadSettings, unit_rows: int, layout: Layout) -> list[Unit]:
    added = OF_VIDEOS if shards.format == "video" else fields_beside(shards, settings.limit)
    layout = replace(layout, image_path=type_of_paths(added, layout))
    schema = input_schema(added, layout, shards.store.uri).serialize().to_pybytes()
    entries = shards.entries[: settings.limit]
    for entry in entries:
        if any("\ud800" <= character <= "\udfff" for character in entry.path):
            raise ReadError(f"the file name {shards.store.name(entry.path)!r} is not UTF-8; rename the file")
    cutter, position = Cutter(unit_rows), 0
    for entry in entries:
        # Of a video only frames are held, so its size says nothing.
        end = position + entry.size if shards.format == "images" else position
        cutter.add(position, end)
        position = end
    units: list[Unit] = []
    for piece in cutter.close():
        files = entries[piece.start : piece.stop]
        paths, sidecars = tuple(entry.path for entry in files), tuple(shards.sidecars[piece.start : piece.stop])
        whole = joined([*files, *(shards.beside[path] for path in sidecar_paths(paths, sidecars))])
        unit = Unit(len(units), shards.store.uri, "", shards.format, piece.start, piece.stop, schema)
        unit = replace(unit, size=whole.size, etag=whole.etag, paths=paths, shape=shards.shape)
        units.append(replace(unit, sidecars=sidecars if any(sidecars) else ()))
    return units
