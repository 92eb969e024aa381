"""Write units down and read them back: all of a plan as a Parquet file, or one as a message that travels by itself.

It knows the fields of a unit and nothing of what they mean; plans of older versions lack some.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.units import Unit

# Where what a plan says beside its units stands in the footer.
WARNINGS, PART_SIZES = b"triptych.warnings", b"triptych.part_sizes"
ARROW_TYPES = {
    "int": pa.int64(),
    "str": pa.string(),
    "str | None": pa.string(),
    "bytes": pa.binary(),
    "bool": pa.bool_(),
    "Format": pa.string(),
    "Shape": pa.string(),
    "tuple[str, ...]": pa.list_(pa.string()),
    "tuple[int, ...]": pa.list_(pa.int64()),
}
UNIT_COLUMNS = pa.schema([(field.name, ARROW_TYPES[str(field.type)]) for field in fields(Unit)])


def units_to_parquet(units: Sequence[Unit], warnings: Sequence[str] = (), part_sizes: Sequence[int] = ()) -> bytes:
    """Return a plan as a Parquet file; what is equal gives equal bytes.

    Args:
        units: What the input is cut into.
        warnings: What is wrong with it although it can be read.
        part_sizes: How many units each part has; empty where there will be no parts of units.
    """
    names = UNIT_COLUMNS.names
    columns = {name: [getattr(unit, name) for unit in units] for name in names}
    footer = {WARNINGS: json.dumps(list(warnings)), PART_SIZES: json.dumps(list(part_sizes))}
    table = pa.table(columns, UNIT_COLUMNS.with_metadata(footer))
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


def part_sizes_from_parquet(data: bytes) -> list[int] | None:
    """Read back how many units each part has; None where a plan does not say: then it is of an older version."""
    found = pq.read_schema(pa.BufferReader(data)).metadata or {}
    return [int(size) for size in json.loads(found.get(PART_SIZES, b"[]"))] or None


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
    lists = {name: tuple(row[name] or ()) for name in ("paths", "header", "only", "sidecars", "pages", "hive")}
    # Plans of older versions say nothing of sources, shapes or pages.
    late = {"source": row["source"] or "", "is_raw": bool(row["is_raw"]), "join_size": row["join_size"] or 0}
    late |= {"shape": row["shape"] or "", "skipped": row["skipped"] or 0}
    return Unit(**{**row, **lists, **late})
