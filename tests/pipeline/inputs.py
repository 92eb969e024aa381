"""Small inputs of every format, written by the standard writers."""

import io
import json
import logging
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.input.read import read_unit
from pipeline.input.units import InputPlan, ReadSettings, Unit, plan_input
from pipeline.storage.store import Store

log = logging.getLogger(__name__)


def tar_bytes(members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def rows_as_members(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, bytes]]:
    """One row: `key`, and by extension its members' content; a dict is written as JSON."""
    return [
        (f"{row['key']}.{extension}", json.dumps(value).encode() if isinstance(value, dict) else value)
        for row in rows
        for extension, value in row.items()
        if extension != "key"
    ]


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def plan_units(settings: ReadSettings, unit_rows: int) -> list[Unit]:
    """Cut an input into units, and log what is odd about its shards."""
    planned = plan_input(settings, unit_rows)
    for warning in planned.warnings:
        log.warning("%s", warning)
    return planned.units


def plan(uri: Path | str, **settings: Any) -> InputPlan:
    """Plan an input in units of at most three rows."""
    return plan_input(ReadSettings.model_validate({"uri": str(uri), **settings}), 3)


def read_all(uri: Path | str, unit_rows: int = 3, **settings: Any) -> pa.Table:
    """Plan an input and read every unit of it."""
    read = ReadSettings.model_validate({"uri": str(uri), **settings})
    tables = [read_unit(unit, read) for unit in plan_units(read, unit_rows)]
    assert all(table.num_rows <= unit_rows for table in tables)
    return pa.concat_tables(tables)


def rows_of(uri: Path | str, unit_rows: int = 3, **settings: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_all(uri, unit_rows, **settings).to_pylist()
    return rows


def faults(rows: Iterable[Mapping[str, Any]]) -> list[str | None]:
    """Every row's kind of error."""
    return [row["error"] and row["error"]["type"] for row in rows]


def names(store: Store) -> list[str]:
    """The paths of all files of a store."""
    return [entry.path for entry in store.list()]
