"""Layouts that other tools write are read as they mean them, with keys that join back."""

import base64
import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input import streams, stretches
from pipeline.input.formats import arrays
from pipeline.input.formats import arrow as arrow_files
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import InputPlan, ReadSettings, plan_input
from pipeline.storage import held_bytes
from pipeline.storage.store import StorageError, Store
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
    named = rows_of(tmp_path, columns={"question": "text"})
    assert [row["question"] for row in named] == [row["text"] for row in rows]
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


def test_the_elements_of_a_json_array_are_rows_wherever_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [{"n": n, "text": ['q"uo\\te', "br]ack{et", "é"][n % 3] * n, "deep": [{"a": [1, {}]}]} for n in range(40)]
    for chunk in (1, 7, 64, 10**6):
        monkeypatch.setattr(arrays, "CHUNK_BYTES", chunk)
        for name, indent in (("plain.json", None), ("pretty.json", 2)):
            rows = rows_of(write(tmp_path / name, json.dumps(values, indent=indent)))
            assert [(row["n"], row["text"]) for row in rows] == [(one["n"], one["text"]) for one in values]
            assert rows[1]["deep"] == '[{"a": [1, {}]}]' and rows[1]["key"] == f"{name}#1"


@pytest.mark.parametrize(
    "content",
    [
        '[{"n": 1}, {"n": 2}]',
        '\ufeff [ {"n": 1}\n,{"n": 2} ]\n',
        '{"info": {"a": [{"x": 1}]}, "note": "[{", "data": [{"n": 1}, {"n": 2}], "version": 3, "empty": []}',
        '{"n": 1}\n{"n": 2}\n',
        '{"n": 1, "more": [{"a": 1}]} {"n": 2}',
        '{\n "n": 1\n}\n{\n "n": 2\n}',
    ],
)
def test_rows_of_json_stand_in_one_array_or_one_after_the_other(tmp_path: Path, content: str) -> None:
    for path in (tmp_path / "a.json", tmp_path / "b.json.gz"):
        data = content.encode()
        write(path, data if path.suffix == ".json" else gzip.compress(data))
        assert [row["n"] for row in rows_of(path, unit_rows=1)] == [1, 2]


def test_what_is_no_object_in_an_array_is_an_error_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"n": 1}, null, 5, "te,xt", [1, {"n": 2}], nonsense, {"n": 3}, {"n": NaN}]')
    rows = rows_of(path)
    assert faults(rows) == [None, *["NotJson"] * 5, None, None]
    assert len({row["key"] for row in rows}) == 8


def test_a_json_file_that_is_cut_off_gives_the_rows_before(tmp_path: Path) -> None:
    content = json.dumps([{"n": n, "text": "x" * 50} for n in range(40)])
    path = write(tmp_path / "a.json", content[: len(content) // 2])
    rows = rows_of(path)
    assert [row["n"] for row in rows] == list(range(len(rows))) and 15 < len(rows) < 25
    assert plan(path).warnings == [f"{path}: the file is cut off; found {len(rows)} rows before that"]


def test_several_arrays_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"train": [{"n": 1}], "test": [{"n": 2}, {"n": 3}], "names": ["a"]}')
    with pytest.raises(StorageError, match=r"several arrays of objects: 'train' \(1\), 'test' \(2\); expected one"):
        plan(path)


def coco(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    images = [{"id": n, "file_name": f"{n:012d}.png", "width": 4} for n in (7, 3, 12)]
    for n, image in enumerate(images):
        write(folder / "val2017" / image["file_name"], png(n))
    content = {"info": {"year": 2017}, "images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return write(folder / "annotations/a.json", json.dumps(content))


def test_coco_captions_join_their_images(tmp_path: Path) -> None:
    said = [(3, "a"), (7, "b"), (3, "c")]
    path = coco(tmp_path, [{"image_id": image, "id": n, "caption": text} for n, (image, text) in enumerate(said)])
    rows = rows_of(path, unit_rows=2, folders={"image": str(tmp_path / "val2017")})
    assert [(row["key"], row["captions"], row["images"]) for row in rows] == [
        ("7", ["b"], [png(0)]),
        ("3", ["a", "c"], [png(1)]),
        ("12", None, [png(2)]),
    ]
    planned = plan(path)
    assert "COCO annotations: a row an image, with its `captions`; key is its `id`" in planned.notes[0]
    asked = rows_of(path, columns={"answers": "captions"}, folders={"image": str(tmp_path / "val2017")})
    assert [row["answers"] for row in asked] == [["b"], ["a", "c"], None]


def test_coco_instances_name_their_categories(tmp_path: Path) -> None:
    boxes = [{"image_id": 7, "category_id": one, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2]]} for one in (2, 1, 2)]
    rows = rows_of(coco(tmp_path, boxes), folders={"image": str(tmp_path / "val2017")})
    assert [row["categories"] for row in rows] == [["dog", "cat"], None, None]


LLAVA = [
    {
        "id": "000001",
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is this?"},
            {"from": "gpt", "value": "A cat."},
            {"from": "human", "value": "Sure?"},
            {"from": "gpt", "value": "Yes."},
        ],
    },
    {"id": "000002", "conversations": [{"from": "human", "value": "Say hello."}, {"from": "gpt", "value": "Hello."}]},
    {"id": "000003", "conversations": [{"from": "human", "value": "What?\n<image>"}]},
    {"id": "000004", "image": "a.png", "conversations": [{"from": "system", "value": "x"}]},
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_llava_conversations_are_questions_with_answers(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.png", png(1))
    path = write(tmp_path / name, jsonl(*LLAVA) if name.endswith("l") else json.dumps(LLAVA))
    rows = rows_of(path)
    assert [(row["key"], row["question"], row["answers"], row["images"]) for row in rows[:2]] == [
        ("000001", "What is this?", ["A cat."], [png(1)]),
        ("000002", "Say hello.", ["Hello."], []),
    ]
    assert faults(rows) == [None, None, "NoImage", "WrongTurn"]
    assert json.loads(rows[0]["conversations"]) == LLAVA[0]["conversations"]
    read = ReadSettings(uri=str(path))
    assert duplicate_keys(plan_units(read, 3), read) == []
    assert "question" not in rows_of(path, columns={"answers": "id"})[0], "settings say what the answers are"


def test_chat_messages_are_asked_or_say_why_not(tmp_path: Path) -> None:
    address = "data:image/png;base64," + base64.b64encode(png(1)).decode()
    asked = [{"type": "text", "text": "What"}, {"type": "image_url", "image_url": {"url": address}}]
    asked += [{"type": "text", "text": "is it?"}, {"type": "input_image", "image_url": "b.png"}]
    body = {"model": "x", "messages": [{"role": "user", "content": asked}]}
    write(tmp_path / "b.png", png(2))
    several = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    sound = [{"role": "user", "content": [{"type": "input_audio"}]}]
    beside = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hm?"}]}]
    path = write(
        tmp_path / "batch.jsonl",
        jsonl(
            {"custom_id": "r-1", "method": "POST", "body": body},
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
            {"messages": several},
            {"messages": sound},
            {"messages": beside, "images": ["b.png"]},
        ),
    )
    rows = rows_of(path)
    assert [(row["key"], row["question"], row["answers"]) for row in rows[:2]] == [
        ("r-1", "What\nis it?", None),
        ("batch.jsonl#1", "Hi", ["Ho"]),
    ]
    assert [row["images"] for row in rows] == [[png(1), png(2)], [], [], [], [png(2)]]
    assert faults(rows) == [None, None, "SeveralTurns", "WrongPart", None]
    assert len(rows[0]["body"]) < 500, "images stand in the row once"


def test_rows_with_a_question_of_their_own_are_no_conversations(tmp_path: Path) -> None:
    row = {"question": "Mine", "answers": ["x"], "messages": [{"role": "user", "content": "Hi"}]}
    assert rows_of(write(tmp_path / "a.jsonl", jsonl(row)))[0]["question"] == "Mine"
    (row,) = rows_of(write(tmp_path / "b.jsonl", jsonl({"messages": [{"role": "user", "content": "Hi"}]})), 1)
    assert row["question"] == "Hi"


def arrow(path: Path, tables: list[pa.Table], *, is_stream: bool = True, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if is_stream else pa.ipc.new_file
    with new(path, tables[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as sink:
        for table in tables:
            sink.write_table(table)
    return path


def hub_table(numbers: range) -> pa.Table:
    images = pa.array([{"bytes": png(n % 5), "path": None} for n in numbers])
    return pa.table({"id": [f"r{n}" for n in numbers], "image": images, "n": list(numbers)})


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


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"], "train,test"),
        (["data/train.parquet", "data/val.parquet"], "train,validation"),
        (["validation/a.parquet", "test/a.parquet"], "validation,test"),
        (["x_train2017.parquet", "x_dev.parquet"], "train,validation"),
        (["train.parquet", "contrast.parquet"], None),
        (["train-0.parquet", "train-1.parquet"], None),
        (["a/latest.parquet", "b/attest.parquet"], None),
    ],
)
def test_splits_in_one_folder_are_told_by_all_names(tmp_path: Path, names: list[str], splits: str | None) -> None:
    for name in names:
        write(tmp_path / name, b"")
        pq.write_table(pa.table({"text": [name]}), tmp_path / name)
    if splits is None:
        assert sorted(row["text"] for row in rows_of(tmp_path)) == sorted(names)
        return
    with pytest.raises(StorageError, match="found several splits"):
        plan(tmp_path)
    found = [row["text"] for split in splits.split(",") for row in rows_of(tmp_path, split=split)]
    assert sorted(found) == sorted(names) == sorted(row["text"] for row in rows_of(tmp_path, split="all"))
    assert len(rows_of(f"{tmp_path}/**/*.parquet")) >= 1, "a glob says what is meant"
    with pytest.raises(StorageError, match=r"found no split 'mine' at .*; splits that its file names tell: "):
        plan(tmp_path, split="mine")


def test_pictures_have_splits_by_their_folders_alone(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png"):
        write(tmp_path / name, png(1))
        write(tmp_path / name.replace(".png", ".txt"), name)
    with pytest.raises(StorageError, match="found several splits"):
        plan(tmp_path)
    (row,) = rows_of(tmp_path, split="validation")
    assert (row["key"], row["label"], row["text"]) == ("val/cat/3.png", "cat", "val/cat/3.png")
    for name in ("other/train.png", "other/test.png"):
        write(tmp_path / name, png(1))
    assert len(rows_of(tmp_path / "other")) == 2


def zip_of(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


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


def test_folders_of_hive_are_columns(tmp_path: Path) -> None:
    for lang, year in (("en", 2020), ("d%20e", 2021), ("__HIVE_DEFAULT_PARTITION__", 2022)):
        path = tmp_path / f"lang={lang}/year={year}/part-0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"text": [str(year)]}), path)
    rows = rows_of(tmp_path)
    assert [(row["text"], row["lang"], row["year"]) for row in rows] == [
        ("2022", None, 2022),
        ("2021", "d e", 2021),
        ("2020", "en", 2020),
    ]
    assert plan(tmp_path).notes[0].endswith("parquet, 3 files; folders name the columns lang, year")


def test_a_files_own_column_comes_before_its_folders_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for lang, own in (("en", "en"), ("de", "fr")):
        write(tmp_path / f"lang={lang}/a.jsonl", jsonl({"lang": own, "n": 1}))
    assert [row["lang"] for row in rows_of(tmp_path)] == ["fr", "en"]
    assert plan(tmp_path).warnings == ["the columns lang stand in files and in folders' names; the files' are kept"]
    said = [record.message for record in caplog.records if "the folder says" in record.message]
    assert said == ["lang=de/a.jsonl: the folder says lang=de, the file's own column 'fr'; the file's is kept"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/deep/b.png", png(1))
    write(tmp_path / "in/a.png", png(0))
    (tmp_path / "in/linked").symlink_to("../elsewhere")
    (tmp_path / "in/again").symlink_to("../elsewhere")
    (tmp_path / "elsewhere/up").symlink_to("../in")
    (tmp_path / "in/c.png").symlink_to("../elsewhere/deep/b.png")
    (tmp_path / "in/gone").symlink_to("nothing")
    rows = rows_of(tmp_path / "in")
    assert [(row["key"], row["images"]) for row in rows] == [
        ("a.png", [png(0)]),
        ("again/deep/b.png", [png(1)]),
        ("c.png", [png(1)]),
    ]


def test_rows_of_thousands_of_fields_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl(*({f"f{n}": n for n in range(4000)} for _ in range(3))))
    rows = rows_of(path)
    assert rows[2]["f3999"] == 3999 and len(rows[0]) > 4000
    write(path, jsonl({f"f{n}": n for n in range(4097)}))
    with pytest.raises(StorageError, match="more than 4096 different fields"):
        plan(path)


def test_a_conversation_costs_its_row_only_where_the_job_asks_it(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    well = {"image": "a.png", "messages": turns[1:]}
    path = write(tmp_path / "a.jsonl", jsonl(well, {"image": "a.png", "messages": turns}))
    read = ReadSettings(uri=str(path))
    for reads, expected in ((("question", "answers"), "SeveralTurns"), ((), None)):
        (unit,) = plan_input(read, 9, reads=reads).units
        rows = read_unit(unit, read).to_pylist()
        assert faults(rows) == [None, expected]
        assert rows[0]["images"] == [png(1)] and (rows[1]["images"] == [png(1)]) == (expected is None)


def test_ids_that_stand_twice_can_be_left_for_places(tmp_path: Path) -> None:
    row = {"id": "7", "conversations": [{"from": "human", "value": "Hm?"}]}
    path = write(tmp_path / "a.json", json.dumps([row, row]))
    read = ReadSettings(uri=str(path))
    assert duplicate_keys(plan_units(read, 3), read) == ["7"]
    placed = ReadSettings.model_validate({"uri": str(path), "columns": {"key": "#"}})
    assert duplicate_keys(plan_units(placed, 3), placed) == []
    assert [(row["key"], row["id"]) for row in rows_of(path, columns={"key": "#"})] == [
        ("a.json#0", "7"),
        ("a.json#1", "7"),
    ]


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
