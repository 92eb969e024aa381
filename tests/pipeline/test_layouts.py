"""Layouts that other tools write are read as they mean them, with keys that join back."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input import streams
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import InputPlan, ReadSettings, plan_input
from pipeline.storage.store import StorageError
from tests.end_to_end.shards import png
from tests.pipeline.inputs import faults, plan_units, read_all, rows_of, tar_bytes, write
from tests.zoo.layouts import zstd


def plan(uri: Path, **settings: Any) -> InputPlan:
    return plan_input(ReadSettings.model_validate({"uri": str(uri), **settings}), 3)


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_metadata_beside_images_is_an_imagefolder(tmp_path: Path) -> None:
    for n, name in enumerate(("a.png", "sub/b.png", "c.png")):
        write(tmp_path / name, png(n))
    write(tmp_path / "metadata.jsonl", jsonl({"file_name": "sub/b.png", "n": 1}, {"file_name": "a.png", "n": 2}))
    rows = rows_of(tmp_path)
    assert [(row["key"], row["n"], row["images"]) for row in rows] == [
        ("sub/b.png", 1, [png(1)]),
        ("a.png", 2, [png(0)]),
    ]
    planned = plan(tmp_path)
    assert planned.notes == [
        f"{tmp_path}: found an ImageFolder of Hugging Face: 1 metadata.jsonl beside 3 images; key and image are its "
        "`file_name`"
    ]
    assert planned.warnings == ["2 rows name images of 3 that lie beside: 1 or more are in no row"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_folders_metadata_counts_from_there(tmp_path: Path, kind: str) -> None:
    for place, folder in enumerate(("train", "more/deep")):
        write(tmp_path / folder / "1.png", png(place))
        rows = [{"file_name": "1.png", "n": place}]
        path = tmp_path / folder / f"metadata.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            write(path, jsonl(*rows) if kind == "jsonl" else f"file_name,n\n1.png,{place}\n")
    rows = rows_of(tmp_path)
    assert [(row["key"], int(row["n"]), row["images"]) for row in rows] == [
        ("more/deep/1.png", 1, [png(1)]),
        ("train/1.png", 0, [png(0)]),
    ]
    read = ReadSettings(uri=str(tmp_path))
    assert duplicate_keys(plan_units(read, 3), read) == []


def test_columns_that_settings_name_come_before_those_of_an_imagefolder(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    write(tmp_path / "metadata.jsonl", jsonl({"file_name": "gone.png", "other": "a.png", "id": 7}))
    (row,) = rows_of(tmp_path, columns={"key": "id", "image": "other"})
    assert (row["key"], row["images"], row["file_name"]) == ("7", [png(1)], "gone.png")


def test_metadata_named_by_itself_is_an_imagefolder_if_its_columns_are(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    path = write(tmp_path / "metadata.jsonl", jsonl({"file_name": "a.png"}))
    assert [(row["key"], row["images"]) for row in rows_of(path)] == [("a.png", [png(1)])]
    path = write(tmp_path / "metadata.jsonl", jsonl({"image": "a.png"}))
    assert [(row["key"], row["images"]) for row in rows_of(path)] == [("metadata.jsonl#0", [png(1)])]


def test_texts_and_fields_beside_pictures_are_columns(tmp_path: Path) -> None:
    for n in range(4):
        write(tmp_path / f"{n}.png", png(n))
    write(tmp_path / "0.txt", "a cat")
    write(tmp_path / "1.caption", "a dog")
    write(tmp_path / "2.json", json.dumps({"width": 5, "text": "from the fields"}))
    write(tmp_path / "notes.txt", "no picture's")
    rows = rows_of(tmp_path)
    assert [(row["key"], row["text"], row["width"]) for row in rows] == [
        ("0.png", "a cat", None),
        ("1.png", "a dog", None),
        ("2.png", "from the fields", 5),
        ("3.png", None, None),
    ]
    planned = plan(tmp_path)
    assert planned.notes[0].endswith("found images, 4 files with 1 .txt, 1 .caption, 1 .json beside them")
    assert planned.warnings == [f"passed over 1 files at {tmp_path}: 1 with .txt"]
    (tmp_path / "0.txt").unlink()
    assert faults(read_unit(planned.units[0], ReadSettings(uri=str(tmp_path))).to_pylist())[0] == "NotFound"


def test_img2datasets_files_have_their_fields(tmp_path: Path) -> None:
    for n in range(2):
        write(tmp_path / f"0000{n}/00000000{n}.jpg", png(n))
        write(tmp_path / f"0000{n}/00000000{n}.txt", f"caption {n}")
        fields = {"caption": f"caption {n}", "url": f"http://x/{n}", "key": f"00000000{n}", "width": 9}
        write(tmp_path / f"0000{n}/00000000{n}.json", json.dumps(fields))
        pq.write_table(pa.table({"url": ["http://x"]}), tmp_path / f"0000{n}.parquet")
        write(tmp_path / f"0000{n}_stats.json", "{}")
    rows = rows_of(tmp_path)
    assert [(row["key"], row["text"], row["url"], row["input_key"]) for row in rows] == [
        ("00000/000000000.jpg", "caption 0", "http://x/0", "000000000"),
        ("00001/000000001.jpg", "caption 1", "http://x/1", "000000001"),
    ]
    assert "label" not in rows[0]


def test_img2datasets_tars_are_read_and_their_tables_said(tmp_path: Path) -> None:
    write(tmp_path / "00000.tar", tar_bytes([("0.jpg", png(1)), ("0.txt", b"x")]))
    pq.write_table(pa.table({"url": ["http://x"]}), tmp_path / "00000.parquet")
    write(tmp_path / "00000_stats.json", "{}")
    assert [(row["key"], row["text"]) for row in rows_of(tmp_path)] == [("0", "x")]
    planned = plan(tmp_path)
    assert planned.warnings == []
    assert "as img2dataset writes them: webdataset, 1 tars with .parquet and .json about each" in planned.notes[0]


def test_class_folders_are_a_column(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        write(tmp_path / name, png(1))
    assert [(row["key"], row["label"]) for row in rows_of(tmp_path)] == [
        ("cat/1.png", "cat"),
        ("cat/2.png", "cat"),
        ("dog/1.png", "dog"),
    ]
    write(tmp_path / "3.png", png(1))
    assert "label" not in read_all(tmp_path).column_names, "not all stand in a folder"


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_compressed_lines_give_the_same_rows(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [os.urandom(99).hex() for _ in range(400)]
    content = {
        "jsonl": jsonl(*({"key": n, "text": text} for n, text in enumerate(texts))),
        "csv": "key,text\r\n" + "".join(f'{n},"{text}\n"\r\n' for n, text in enumerate(texts)),
        "txt": "".join(f"{text}\n" for text in texts),
    }[kind].encode()
    plain = write(tmp_path / f"plain/a.{kind}", content)
    half = len(content) // 2
    packed = write(tmp_path / f"packed/a.{kind}.gz", pack(content[:half]) + pack(content[half:]))
    monkeypatch.setattr("pipeline.input.formats.packed.PIECE_BYTES", 999)
    found = read_all(packed.parent, 7)
    assert found.drop(["shard", "key"]) == read_all(plain, 7).drop(["shard", "key"]) and len(found) == 400
    read = ReadSettings(uri=str(packed))
    units = plan_units(read, 7)
    assert {unit.is_packed for unit in units} == {True} and duplicate_keys(units, read) == []
    for unit in (units[5], units[2], units[40]):
        assert read_unit(unit, read)["text"].to_pylist() == found["text"].to_pylist()[unit.start : unit.stop]


def test_units_of_a_compressed_shard_that_come_in_order_unpack_it_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(jsonl(*({"text": str(n)} for n in range(50))).encode()))
    read = ReadSettings(uri=str(path))
    units = plan_units(read, 5)
    streams._open.clear()
    first = read_unit(units[0], read)
    (stream,) = streams._open.values()
    assert [text for unit in units[1:] for text in read_unit(unit, read)["text"].to_pylist()][-1] == "49"
    assert [*streams._open.values()] == [stream]
    assert read_unit(units[0], read) == first


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_compressed_lines_that_are_cut_off_give_the_rows_before(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    lines = jsonl(*({"text": os.urandom(500).hex()} for _ in range(400))).encode()
    packed = pack(lines)
    path = write(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2])
    planned = plan(path)
    rows = rows_of(path)
    assert 50 < len(rows) < 400 and faults(rows) == [None] * len(rows)
    assert [row["text"] for row in rows] == [json.loads(line)["text"] for line in lines.splitlines()[: len(rows)]]
    assert f"stream is cut off; found {len(rows)} rows before that" in planned.warnings[0]


def test_a_folder_of_metadata_that_names_no_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    write(tmp_path / "metadata.jsonl", jsonl({"id": 1}))
    with pytest.raises(StorageError, match=r"expected the column `file_name` or .* set read.format=images"):
        plan(tmp_path)
    assert len(rows_of(tmp_path, format="images")) == 1


@pytest.mark.parametrize("name", ["paths.txt", "paths.lst", "paths.txt.gz"])
def test_a_list_of_paths_is_a_list_of_images(tmp_path: Path, name: str) -> None:
    for n in range(2):
        write(tmp_path / f"pictures/{n} x.png", png(n))
    listed = f"pictures/0 x.png\r\n{tmp_path}/pictures/1 x.png\r\n".encode()
    path = write(tmp_path / name, gzip.compress(listed) if name.endswith("gz") else listed)
    rows = rows_of(path, columns={"image": "text", "key": "text"})
    assert [row["images"] for row in rows] == [[png(0)], [png(1)]]
    assert [row["key"] for row in rows] == ["pictures/0 x.png", f"{tmp_path}/pictures/1 x.png"]
