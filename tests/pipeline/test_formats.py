"""What every input format promises; a new one joins by an entry in `INPUTS`, without which a test fails."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.formats.table import FORMATS, Format
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.shards import find_shards
from pipeline.input.units import ReadSettings
from pipeline.storage.store import StorageSettings
from tests.end_to_end.shards import png
from tests.pipeline.inputs import plan_units, tar_bytes, write
from tests.pipeline.videos import video

NAMES = ["a", "b", "c", "d", "e"]


def webdataset(folder: Path, names: list[str]) -> None:
    for shard, name in enumerate(names):  # within one tar a name is one row
        members = [(f"{name}.png", png(shard)), (f"{name}.txt", name.encode())]
        write(folder / f"{shard}.tar", tar_bytes(members))


def zip_archive(folder: Path, names: list[str]) -> None:
    for shard, name in enumerate(names):
        with zipfile.ZipFile(folder / f"{shard}.zip", "w") as archive:
            archive.writestr(f"{name}.png", png(shard))
            archive.writestr(f"{name}.txt", name)


def parquet(folder: Path, names: list[str]) -> None:
    table = pa.table({"key": names, "image": [png(n) for n in range(len(names))], "text": names})
    pq.write_table(table, folder / "rows.parquet")


def arrow(folder: Path, names: list[str]) -> None:
    table = pa.table({"key": names, "image": [png(n) for n in range(len(names))], "text": names})
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as sink:
        sink.write_table(table, max_chunksize=2)
    write(folder / "state.json", "{}")


def jsonl(folder: Path, names: list[str]) -> None:
    write(folder / "rows.jsonl", "".join(json.dumps({"key": name, "text": name}) + "\n" for name in names))


def json_array(folder: Path, names: list[str]) -> None:
    write(folder / "rows.json", json.dumps([{"key": name, "text": name} for name in names]))


def separated(extension: str, delimiter: str) -> Callable[[Path, list[str]], None]:
    def make(folder: Path, names: list[str]) -> None:
        sink = io.StringIO()
        csv.writer(sink, delimiter=delimiter).writerows([("key", "text"), *((name, name) for name in names)])
        write(folder / f"rows.{extension}", sink.getvalue())

    return make


def text(folder: Path, names: list[str]) -> None:
    write(folder / "rows.txt", "".join(f"{name}\n" for name in names))


def images(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        write(folder / f"{name}.png", png(number))


def videos(folder: Path, names: list[str]) -> None:
    for name in names:
        write(folder / f"{name}.mp4", video(3))


INPUTS: dict[Format, Callable[[Path, list[str]], None]] = {
    "webdataset": webdataset,
    "zip": zip_archive,
    "parquet": parquet,
    "arrow": arrow,
    "images": images,
    "jsonl": jsonl,
    "json": json_array,
    "csv": separated("csv", ","),
    "tsv": separated("tsv", "\t"),
    "text": text,
    "video": videos,
}
# Rows are named by their place or by their file's path, of which there is only one.
NEVER_TWICE = {"text", "images", "video"}


def test_every_format_is_held_to_its_promises() -> None:
    assert INPUTS.keys() == FORMATS.keys()


@pytest.fixture(params=INPUTS)
def format(request: pytest.FixtureRequest) -> Format:
    named: Format = request.param
    return named


def settings(folder: Path) -> ReadSettings:
    frames = {"num_frames": 2} if list(folder.glob("*.mp4")) else {}  # refused where there are no videos
    return ReadSettings.model_validate({"uri": str(folder), **frames})


def test_a_format_is_told_by_its_files_names(tmp_path: Path, format: Format) -> None:
    INPUTS[format](tmp_path, NAMES)
    assert find_shards(str(tmp_path), "auto", StorageSettings()).format == format


@pytest.mark.parametrize("unit_rows", [1, 2, 100])
def test_every_row_is_read_once_and_in_order_however_it_is_cut(tmp_path: Path, format: Format, unit_rows: int) -> None:
    INPUTS[format](tmp_path, NAMES)
    read = settings(tmp_path)
    units = plan_units(read, unit_rows)
    rows = [row for unit in units for row in read_unit(unit, read).to_pylist()]
    assert [row["error"] for row in rows] == [None] * len(NAMES)
    assert [row.get("text", row["key"][0]) for row in rows] == NAMES
    assert len({row["key"] for row in rows}) == len(NAMES)
    assert len({(row["shard"], row["index"]) for row in rows}) == len(NAMES)
    assert all(unit.num_rows <= unit_rows for unit in units)


def test_a_limit_ends_the_rows(tmp_path: Path, format: Format) -> None:
    INPUTS[format](tmp_path, NAMES)
    read = settings(tmp_path).model_copy(update={"limit": 3})
    assert sum(read_unit(unit, read).num_rows for unit in plan_units(read, 2)) == 3


def test_rows_taken_out_of_a_unit_are_those_of_the_whole(tmp_path: Path, format: Format) -> None:
    INPUTS[format](tmp_path, NAMES)
    read = settings(tmp_path)
    unit = plan_units(read, 100)[-1]
    whole = read_unit(unit, read)
    assert read_unit(replace(unit, only=(whole.num_rows - 1,)), read).equals(whole.slice(whole.num_rows - 1))


def test_rows_are_read_without_their_images(tmp_path: Path, format: Format) -> None:
    INPUTS[format](tmp_path, NAMES)
    read = settings(tmp_path)
    tables = [read_unit(unit, read, with_images=False) for unit in plan_units(read, 100)]
    assert [images for table in tables for images in table["images"].to_pylist()] == [[]] * len(NAMES)


def test_keys_that_stand_twice_are_found(tmp_path: Path, format: Format) -> None:
    INPUTS[format](tmp_path, NAMES)
    read = settings(tmp_path)
    assert duplicate_keys(plan_units(read, 2), read) == []
    if format not in NEVER_TWICE:
        INPUTS[format](tmp_path, ["a", "b", "c", "b", "e"])
        assert duplicate_keys(plan_units(read, 2), read) == ["b"]
