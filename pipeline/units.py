"""Cut the input into units: consecutive rows of one shard that are read, answered and committed together.

Planning looks through every shard once and writes down where each unit's rows lie, so that reading one later opens
only its own bytes. It knows nothing of models, parts or Ray.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PositiveInt, field_validator

from pipeline.columns import Word, columns_read, input_schema
from pipeline.formats.rows import Cutter, Index, ReadError
from pipeline.look import look_through, merged, warnings_of
from pipeline.settings import Address, Settings
from pipeline.shards import FILE_FORMATS, Format, Shards, find_shards, joined
from pipeline.storage.store import Entry, StorageSettings, absolute

log = logging.getLogger(__name__)

# Aria was trained on videos at this side, and sees a frame as 128 tokens: 8,192 for so many.
NUM_FRAMES, FRAME_SIZE = 64, 490


class ReadSettings(Settings):
    """Which rows a run reads, and what its input calls the columns that we have words for."""

    uri: Address = Field(description="a file, a folder or a glob, local or on any store: s3://bucket/photos/*.tar")
    format: Literal["auto", "webdataset", "parquet", "images", "jsonl", "csv", "text", "video"] = "auto"
    columns: dict[Word, str] = Field(default={}, description="our word: the input's column; default: the same name")
    on_changed: Literal["refuse", "accept"] = Field(
        default="refuse", description="going on: what if a file's time or tag is another than planned, but not its size"
    )
    limit: PositiveInt | None = Field(default=None, description="read only so many rows, from the start")
    num_frames: int = Field(default=NUM_FRAMES, ge=1, le=256, description="video: frames taken, evenly over its time")
    frame_size: int = Field(default=FRAME_SIZE, ge=1, le=1120, description="video: the longer side of a frame, at most")
    storage: StorageSettings = StorageSettings()

    @field_validator("uri")
    @classmethod
    def _make_absolute(cls, uri: str) -> str:
        # Workers run in other folders than the user does.
        return absolute(uri)


@dataclass(frozen=True)
class Unit:
    """Consecutive rows of one shard, and all it takes to read them.

    Attributes:
        seq: Place in the run.
        root: The uri below which `shard` and `paths` lie.
        shard: Path of the shard; empty where every file is a shard of one row.
        format: How the shard is read.
        start: First row in the shard (or in the sorted listing).
        stop: One more than the last row.
        schema: The columns that reading gives, serialized; the same in every unit of a source.
        first_byte: Where the rows begin in a tar or a file of lines.
        end_byte: Where they end.
        size: Bytes of the shard when it was planned; of all files, where each is a row.
        etag: What its listing said of the content then (see `Entry`); one tag of all files, where each is a row.
        paths: The files, where each is a row.
        header: The cells' names in a CSV shard.
        is_packed: Whether the shard is a gzip stream; its bytes are counted in its content.
        only: Which of these rows are wanted, counted from `start`; empty means all.
        source: The data set of the run that they belong to; empty where there is one.
        is_raw: Whether its columns keep their own names and types (see `pipeline.sources.Source`).
    """

    seq: int
    root: str
    shard: str
    format: Format
    start: int
    stop: int
    schema: bytes
    first_byte: int = 0
    end_byte: int = 0
    size: int = 0
    etag: str | None = None
    paths: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    is_packed: bool = False
    only: tuple[int, ...] = ()
    source: str = ""
    is_raw: bool = False

    @property
    def name(self) -> str:
        """The unit's name in the ledger: its place, so that names sort as the rows do."""
        return f"{self.seq:08d}"

    @property
    def num_rows(self) -> int:
        """How many rows reading the unit gives."""
        return len(self.only) or self.stop - self.start

    @property
    def table_schema(self) -> pa.Schema:
        """The columns that reading the unit gives."""
        return pa.ipc.read_schema(pa.py_buffer(self.schema))


WARNINGS = b"triptych.warnings"  # where they stand in the footer
UNIT_COLUMNS = pa.schema(
    [
        ("seq", pa.int64()),
        ("root", pa.string()),
        ("shard", pa.string()),
        ("format", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("first_byte", pa.int64()),
        ("end_byte", pa.int64()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("paths", pa.list_(pa.string())),
        ("header", pa.list_(pa.string())),
        ("is_packed", pa.bool_()),
        ("only", pa.list_(pa.int64())),
        ("source", pa.string()),
        ("is_raw", pa.bool_()),
        ("schema", pa.binary()),
    ]
)


@dataclass(frozen=True)
class InputPlan:
    """The units of an input, in order, and what is wrong with shards whose rows can be read all the same."""

    units: list[Unit]
    warnings: list[str]


def plan_units(settings: ReadSettings, unit_rows: int) -> list[Unit]:
    """Return the units of an input; shards' troubles that do not stop a run are logged as warnings.

    Raises:
        ReadError: There is no input, a shard cannot be read, or a column that was named does not exist.
        StorageError: The store refuses or does not answer.
    """
    planned = plan_input(settings, unit_rows)
    for warning in planned.warnings:
        log.warning("%s", warning)
    return planned.units


def plan_input(settings: ReadSettings, unit_rows: int, *, is_raw: bool = False) -> InputPlan:
    """List the shards, look through each, and cut its rows into units of at most `unit_rows` rows.

    Args:
        settings: The input.
        unit_rows: The most rows of a unit.
        is_raw: Whether columns keep their own names and types (see `pipeline.sources.Source`).
    """
    shards = find_shards(settings.uri, settings.format, settings.storage)
    fields = _fields_of_files(shards, settings)
    if shards.format in FILE_FORMATS:
        return InputPlan(_file_units(shards, settings, unit_rows, fields), [*shards.warnings])
    looked = look_through(shards, unit_rows, settings.limit)
    columns = columns_read(settings.columns, is_raw=is_raw)
    warnings = [*shards.warnings, *warnings_of(shards, looked, columns)]
    where = next((shards.store.name(entry.path) for entry, index in looked if index.slices), None)
    if where is None:
        raise ReadError("; ".join([f"found no rows in the {len(looked)} shards of {settings.uri}", *warnings[:5]]))
    fields, extensions = merged(shards.format, [index for _, index in looked if index.slices])
    schema = input_schema(fields, columns, shards.format, where, extensions, is_raw=is_raw)
    return InputPlan(_row_units(shards, looked, schema.serialize().to_pybytes(), settings.limit), warnings)


def units_to_parquet(units: Sequence[Unit], warnings: Sequence[str] = ()) -> bytes:
    """Return units, and what their input's plan warned of, as a Parquet file; what is equal gives equal bytes."""
    names = UNIT_COLUMNS.names
    columns = {name: [getattr(unit, name) for unit in units] for name in names}
    table = pa.table(columns, UNIT_COLUMNS.with_metadata({WARNINGS: json.dumps(list(warnings))}))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def unit_to_message(unit: Unit) -> bytes:
    """Return one unit as an Arrow message, to travel by itself; as a Parquet file it would take 30 times as long."""
    columns = {name: [getattr(unit, name)] for name in UNIT_COLUMNS.names}
    return bytes(pa.RecordBatch.from_pydict(columns, UNIT_COLUMNS).serialize())


def unit_from_message(data: bytes) -> Unit:
    """Read a unit back from such a message."""
    (row,) = pa.ipc.read_record_batch(pa.py_buffer(data), UNIT_COLUMNS).to_pylist()
    return _unit(row)


def warnings_from_parquet(data: bytes) -> list[str]:
    """Read the plan's warnings back from such bytes; plans of older versions have none."""
    found = pq.read_schema(pa.BufferReader(data)).metadata or {}
    return [str(warning) for warning in json.loads(found.get(WARNINGS, b"[]"))]


def units_from_parquet(data: bytes) -> list[Unit]:
    """Read units back from such bytes."""
    table = pq.read_table(pa.BufferReader(data), schema=UNIT_COLUMNS)
    shared: dict[bytes, bytes] = {}  # one copy of the schema, however many units there are
    units = []
    for row in table.to_pylist():
        row["schema"] = shared.setdefault(row["schema"], row["schema"])
        units.append(_unit(row))
    return units


def _unit(row: dict[str, Any]) -> Unit:
    lists = {name: tuple(row[name]) for name in ("paths", "header", "only")}
    # Plans of older versions say nothing of sources.
    return Unit(**{**row, **lists, "source": row["source"] or "", "is_raw": bool(row["is_raw"])})


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
                first_byte=piece.first_byte,
                end_byte=piece.end_byte,
                size=entry.size,
                etag=entry.etag,
                header=tuple(index.header),
                is_packed=index.is_packed,
                schema=schema,
            )
            units.append(unit)
    return units


def _fields_of_files(shards: Shards, settings: ReadSettings) -> dict[str, pa.DataType]:
    """Return the columns that files bring which are rows by themselves.

    Raises:
        ReadError: They are videos and nothing here decodes videos, or they are none and frames were asked for.
    """
    if shards.format == "video":
        from pipeline.formats import video

        return video.FIELDS
    if (settings.num_frames, settings.frame_size) != (NUM_FRAMES, FRAME_SIZE):
        raise ReadError(f"read.num_frames and read.frame_size are for videos; found {shards.format} at {settings.uri}")
    return {}


def _file_units(shards: Shards, settings: ReadSettings, unit_rows: int, fields: dict[str, pa.DataType]) -> list[Unit]:
    schema = input_schema(fields, settings.columns, shards.format, shards.store.uri).serialize().to_pybytes()
    entries = shards.entries[: settings.limit]
    for entry in entries:
        if any("\ud800" <= character <= "\udfff" for character in entry.path):
            raise ReadError(f"cannot keep the name {shards.store.name(entry.path)!r}: expected UTF-8")
    cutter, position = Cutter(unit_rows), 0
    for entry in entries:
        # Of a video only frames are held, so its size says nothing.
        end = position + entry.size if shards.format == "images" else position
        cutter.add(position, end)
        position = end
    units: list[Unit] = []
    for piece in cutter.close():
        files = entries[piece.start : piece.stop]
        whole = joined(files)
        unit = Unit(
            seq=len(units),
            root=shards.store.uri,
            shard="",
            format=shards.format,
            start=piece.start,
            stop=piece.stop,
            size=whole.size,
            etag=whole.etag,
            paths=tuple(entry.path for entry in files),
            schema=schema,
        )
        units.append(unit)
    return units
