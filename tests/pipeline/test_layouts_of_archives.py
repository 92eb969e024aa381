"""Arrow files, data sets of `save_to_disk` and zip archives are read by their pieces."""

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.input import stretches
from pipeline.input.formats import arrow as arrow_files
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input
from pipeline.storage import held_bytes
from pipeline.storage.store import StorageError, Store
from tests.end_to_end.shards import png
from tests.pipeline.inputs import faults, plan, plan_units, rows_of, write
from tests.pipeline.layouts import arrow, hub_table, noise, zip_of


@pytest.mark.parametrize("unit_rows", [1, 4, 7, 100])
@pytest.mark.parametrize(("is_stream", "compression"), [(True, None), (False, None), (False, "zstd")])
def test_arrow_files_are_read_by_their_batches(
    tmp_path: Path, is_stream: bool, compression: str | None, unit_rows: int
) -> None:
    sizes = [3, 1, 10, 2]
    tables = [hub_table(range(sum(sizes[:n]), sum(sizes[: n + 1]))) for n in range(4)]
    path = arrow(tmp_path / "a.arrow", tables, is_stream=is_stream, compression=compression)
    rows = rows_of(path, unit_rows, columns={"key": "id"})
    assert [(row["key"], row["n"], row["images"]) for row in rows] == [(f"r{n}", n, [png(n % 5)]) for n in range(16)]
    read = ReadSettings.model_validate({"uri": str(path), "columns": {"key": "id"}, "limit": 9})
    units = plan_units(read, unit_rows)
    assert [n for unit in units for n in read_unit(unit, read, with_images=False)["n"].to_pylist()] == list(range(9))


def test_dictionaries_that_change_between_batches_are_read(tmp_path: Path) -> None:
    words = [["a", "b", "a"], ["c", "d", "c"], ["a", "e", "e"]]
    tables = [pa.table({"word": pa.array(found).dictionary_encode(), "n": [1, 2, 3]}) for found in words]
    path = arrow(tmp_path / "a.arrow", tables)
    assert [row["word"] for row in rows_of(path, 2)] == [word for found in words for word in found]
    read = ReadSettings.model_validate({"uri": str(path), "columns": {"key": "word"}})
    assert set(duplicate_keys(plan_units(read, 2), read)) == {"a", "c", "e"}


def test_large_batches_are_cut_by_bytes_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_files, "LIMIT_BYTES", 10_000)
    monkeypatch.setattr(arrow_files, "HELD_BYTES", 20_000)
    monkeypatch.setattr(stretches, "LIMIT_BYTES", 10_000)  # larger ones are mapped
    table = pa.table({"image": [os.urandom(3000) for _ in range(9)], "n": list(range(9))})
    path = arrow(tmp_path / "a.arrow", [table])
    planned = plan(path)
    assert [unit.num_rows for unit in planned.units] == [3, 3, 3]
    assert "has record batches of up to 0 MB; from a store, batches of more than" in planned.warnings[0]
    assert [row["n"] for row in rows_of(path)] == list(range(9))


def test_an_arrow_file_that_is_cut_off_gives_the_batches_before(tmp_path: Path) -> None:
    path = arrow(tmp_path / "a.arrow", [hub_table(range(n, n + 2)) for n in range(0, 8, 2)])
    path.write_bytes(path.read_bytes()[:-300])
    assert [row["n"] for row in rows_of(path)] == list(range(6))
    assert "cut off within the message at byte" in plan(path).warnings[0]
    for data in (b"<html>" * 99, b"FEA1" + bytes(99), b""):
        with pytest.raises(StorageError, match=r"a\.arrow"):
            plan(write(tmp_path / "a.arrow", data))


def test_a_data_set_of_save_to_disk_is_its_own_files(tmp_path: Path) -> None:
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        arrow(tmp_path / split / "data-00000-of-00001.arrow", [hub_table(numbers)])
        arrow(tmp_path / split / "cache-1234.arrow", [hub_table(range(99, 100))])
        write(tmp_path / split / "state.json", "{}")
        write(tmp_path / split / "dataset_info.json", "{}")
    write(tmp_path / "dataset_dict.json", '{"splits": ["train", "test"]}')
    with pytest.raises(StorageError, match=r"several splits at .*: test \(1 files\), train \(1 files\); set "):
        plan(tmp_path)
    assert [row["n"] for row in rows_of(tmp_path, split="test")] == [4, 5]
    assert [row["n"] for row in rows_of(tmp_path / "train")] == [0, 1, 2, 3]
    planned = plan(tmp_path, split="all")
    assert planned.notes[0].endswith("found a data set of save_to_disk (Hugging Face), 2 files")
    assert planned.warnings == [f"passed over 2 files at {tmp_path}: 2 with .arrow"]
    arrow(tmp_path / "train/indices.arrow", [pa.table({"indices": [0]})])
    with pytest.raises(StorageError, match="is a selection of the rows in its files"):
        plan(tmp_path / "train")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_archive_is_read_as_a_tar_is(tmp_path: Path, compression: int) -> None:
    pictures = {f"cats/{n}.png": png(n) for n in range(5)}
    texts = {f"cats/{n}.txt": f"cat {n}".encode() for n in range(5)}  # not beside their pictures
    others = {"cats/3.json": b'{"n": 7}', "__MACOSX/cats/._1.png": b"?", "cats/": b""}
    path = zip_of(tmp_path / "a.zip", pictures | texts | others, compression)
    rows = rows_of(path, 2)
    assert [(row["key"], row["text"], row["images"]) for row in rows] == [
        (f"cats/{n}", f"cat {n}", [png(n)]) for n in range(5)
    ]
    assert [row["n"] for row in rows] == [None, None, None, 7, None]
    assert plan(path).warnings == ["passed over 1 hidden members and members without an extension in 1 of 1 shards"]
    with pytest.raises(StorageError, match="names extension 'jpg'; found png"):
        plan(path, columns={"image": "jpg"})


def test_members_of_a_zip_that_cannot_be_read_cost_their_rows(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {f"{n}.png": png(n) for n in range(3)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(png(1)) + 20] ^= 255
    path.write_bytes(data)
    assert faults(rows_of(path)) == [None, "Unreadable", None]
    encrypted = data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00", 1)
    assert faults(rows_of(write(tmp_path / "b.zip", bytes(encrypted)))) == ["Encrypted", "Unreadable", None]
    with pytest.raises(StorageError, match=r"c\.zip as zip: no zip archive"):
        plan(write(tmp_path / "c.zip", data[:-30]))


def test_a_batch_that_units_share_is_fetched_once_from_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "AHEAD_BYTES", 1000)
    monkeypatch.setattr("pipeline.storage.held_bytes.tempfile.gettempdir", lambda: str(tmp_path))
    table = pa.table({"image": [os.urandom(3000) for _ in range(9)], "n": list(range(9))})
    path = arrow(tmp_path / "a.arrow", [table])
    Store("memory://arrows").publish("a.arrow", path.read_bytes())
    read = ReadSettings(uri="memory://arrows/a.arrow")
    units = plan_units(read, 4)
    fetches: list[int] = []
    keep = held_bytes._fetch

    def fetch(path: Path, size: int, read: Callable[[int, int], bytes]) -> bool:
        fetches.append(size)
        return keep(path, size, read)

    monkeypatch.setattr(held_bytes, "_fetch", fetch)
    assert [n for unit in units for n in read_unit(unit, read)["n"].to_pylist()] == list(range(9))
    assert len(units) == 3 and len(fetches) == 1


def test_rows_of_a_zip_go_by_name_in_plans_of_older_versions(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", {"b.png": noise(0), "a.png": noise(1), "c.png": b""})
    read = ReadSettings(uri=str(tmp_path))
    (unit,) = plan_input(read, 9).units
    assert read_unit(unit, read)["key"].to_pylist() == ["b", "a", "c"]
    old = read_unit(replace(unit, first_byte=0, end_byte=0), read)
    assert [(row["key"], row["images"]) for row in old.to_pylist()] == [("a", [noise(1)]), ("b", [noise(0)]), ("c", [])]
