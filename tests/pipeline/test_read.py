import datetime
import gzip
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.formats.rows import ReadError
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings
from pipeline.storage.store import NotFound, StorageError, Store
from tests.pipeline.inputs import faults, plan_units, read_all, rows_as_members, rows_of, tar_bytes, write
from tests.s3 import S3


def jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    return write(path, b"\n".join(lines))


def test_the_columns_are_ours_then_the_inputs_then_the_error(tmp_path: Path) -> None:
    rows = [{"key": f"{n:03d}", "JPG": b"i%d" % n, "txt": b"t", "json": {"width": n}} for n in range(5)]
    table = read_all(write(tmp_path / "a.tar", tar_bytes(rows_as_members(rows))))
    assert table.schema == pa.schema(
        [
            ("key", pa.string()),
            ("shard", pa.string()),
            ("index", pa.int64()),
            ("images", pa.list_(pa.large_binary())),
            ("width", pa.int64()),
            ("text", pa.string()),
            ("image_path", pa.string()),
            ("error", pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])),
        ]
    )
    assert table.column("key").to_pylist() == ["000", "001", "002", "003", "004"]
    assert table.column("index").to_pylist() == [0, 1, 2, 3, 4]
    assert table.column("images").to_pylist() == [[b"i0"], [b"i1"], [b"i2"], [b"i3"], [b"i4"]]
    assert set(table.column("shard").to_pylist()) == {"a.tar"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_is_read_as_the_standard_library_reads_it(tmp_path: Path, format: int) -> None:
    folder = "/".join("d" * 30 for _ in range(5 if format == tarfile.USTAR_FORMAT else 12))
    names = [f"{folder}/{n}.{'x' * 20 if n == 1 else 'y'}.jpg" for n in range(4)] + ["./dotted.jpg", "ü.jpg"]
    path = write(tmp_path / "a.tar", tar_bytes([(name, name.encode()) for name in names], format))
    rows = rows_of(path, columns={})
    with tarfile.open(path) as archive:
        expected = [member.name.removeprefix("./") for member in archive]
    assert [row["key"] for row in rows] == [name[: name.index(".", name.rfind("/") + 1)] for name in expected]


def test_every_kind_of_tar_gives_its_images(tmp_path: Path) -> None:
    for number, format in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        members = [(f"{'f' * 90}/{'n' * 9}{n}.jpg", os.urandom(n * 511)) for n in range(1, 6)]
        path = write(tmp_path / f"{number}.tar", tar_bytes(members, format))
        assert [row["images"] for row in rows_of(path, unit_rows=2)] == [[data] for _, data in members]


def test_a_tar_row_is_its_consecutive_members_of_one_base_name(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"1"),
        ("a.txt", b"one"),
        ("b.txt", b"two"),
        ("x/a.png", b"3"),
        ("../a.jpg", b"4"),
        (".hidden.jpg", b"no"),
        ("README", b"no"),
        ("a.b.c.jpg", b"5"),
        ("a.cls", b"7"),
    ]
    rows = rows_of(write(tmp_path / "a.tar", tar_bytes(members)))
    assert [(row["key"], row["text"], row["images"]) for row in rows] == [
        ("a", "one", [b"1"]),
        ("b", "two", []),
        ("x/a", None, [b"3"]),
        ("../a", None, [b"4"]),
        ("a", None, []),
    ]
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_tar_row_with_two_images_needs_to_be_told_which(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tar", tar_bytes([("a.jpg", b"j"), ("a.seg.png", b"s"), ("a.png", b"p"), ("b.jpg", b"j")])
    )
    rows = rows_of(path)
    assert faults(rows) == ["SeveralImages", None]
    assert "a.jpg, a.png" in rows[0]["error"]["message"]
    for extension, image in ((".PNG", b"p"), ("seg.png", b"s")):
        assert rows_of(path, columns={"image": extension})[0]["images"] == [image]


def test_bad_members_of_a_tar_cost_their_rows_only(tmp_path: Path) -> None:
    members = [
        ("0.txt", b"well"),
        ("0.jpg", b"well"),
        ("1.json", b"{not json"),
        ("2.json", b"\xff\xfe"),
        ("3.json", b"[1]"),
        ("4.jpg", b"a"),
        ("4.jpg", b"b"),
        ("5.txt", b"\xff"),
        ("6.jpg", b""),
        ("7.json", b"[" * 100_000),
        ("8.json", b'{"text": 5}'),
        ("9.json", b'{"n": "\\ud800"}'),
        ("10.jpg", b"well"),
    ]
    rows = rows_of(write(tmp_path / "a.tar", tar_bytes(members)))
    expected = [None, "NotJson", "NotUtf8", "NotJson", "DuplicateMember", "NotUtf8", "NoBytes", "NotJson"]
    assert faults(rows) == [*expected, "WrongType", "WrongType", None]
    assert {row["error"]["stage"] for row in rows if row["error"]} == {"fetch"}
    assert [row["images"] for row in rows] == [[b"well"], *[[]] * 9, [b"well"]]


def test_a_member_that_is_too_large_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("formats.rows", "formats.samples", "read", "fetch"):
        monkeypatch.setattr(f"pipeline.input.{module}.LIMIT_BYTES", 4000)
    path = write(
        tmp_path / "a.tar", tar_bytes([("0.jpg", b"a"), ("1.jpg", bytes(9000)), ("1.txt", b"t"), ("2.jpg", b"c")])
    )
    rows = rows_of(path)
    assert faults(rows) == [None, "TooLarge", None]
    assert rows[1]["key"] == "1" and "9000 bytes, at most 4000" in rows[1]["error"]["message"]
    write(tmp_path / "photos/large.jpg", bytes(4001))
    write(tmp_path / "photos/small.jpg", bytes(4000))
    assert faults(rows_of(tmp_path / "photos")) == ["TooLarge", None]


def test_images_that_are_too_large_together_are_not_all_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.input.fetch.LIMIT_BYTES", 4000)
    write(tmp_path / "x.jpg", bytes(1500))
    rows = rows_of(jsonl(tmp_path / "m.jsonl", [{"image": ["x.jpg"] * count} for count in (2, 3, 1)]))
    assert faults(rows) == [None, "TooLarge", None]
    assert "together the row's images have over 4000 bytes" in rows[1]["error"]["message"]


def test_the_folder_is_the_key_of_an_image_folder(tmp_path: Path) -> None:
    write(tmp_path / "b.png", b"2")
    write(tmp_path / "a/1.JPEG", b"1")
    write(tmp_path / "zero.webp", b"")
    rows = rows_of(tmp_path, unit_rows=2)
    assert [(row["key"], row["shard"], row["index"], row["images"]) for row in rows] == [
        ("a/1.JPEG", "a/1.JPEG", 0, [b"1"]),
        ("b.png", "b.png", 0, [b"2"]),
        ("zero.webp", "zero.webp", 0, [b""]),
    ]


def test_an_image_that_is_gone_costs_its_row_only(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.jpg", name)
    settings = ReadSettings(uri=str(tmp_path))
    (unit,) = plan_units(settings, 9)
    (tmp_path / "b.jpg").unlink()
    rows = read_unit(unit, settings).to_pylist()
    assert faults(rows) == [None, "NotFound", None]
    assert "b.jpg" in rows[1]["error"]["message"]


def test_parquet_images_come_as_bytes_as_the_hubs_struct_or_as_paths(tmp_path: Path) -> None:
    write(tmp_path / "deep/pictures/1.jpg", b"one")
    struct = [
        {"bytes": b"one", "path": "x"},
        None,
        {"bytes": None, "path": "pictures/1.jpg"},
        {"bytes": None, "path": None},
    ]
    columns = {
        "binary": [b"one", None, b"one", b""],
        "struct": struct,
        "path": ["pictures/1.jpg", None, "../deep/pictures/1.jpg", ""],
        "absolute": [str(tmp_path / "deep/pictures/1.jpg"), None, (tmp_path / "deep/pictures/1.jpg").as_uri(), ""],
        "several": [[b"one"], None, [b"one", b"one"], []],
        "dictionary": pa.array(["pictures/1.jpg", None, "pictures/1.jpg", None]).dictionary_encode(),
        "large": pa.array([b"one", None, b"one", None], pa.large_binary()),
        "fixed": pa.array([b"one", None, b"one", None], pa.binary(3)),
        "view": pa.array([b"one", None, b"one", None], pa.binary_view()),
        "structs": [[struct[0]], None, [struct[0], None, struct[2]], [None]],
        "nested": [[[b"one"]], None, [[b"one"], [], [b"one"]], [[]]],
        "pair": pa.array([[b"one", None], None, [b"one", b"one"], [None, None]], pa.list_(pa.binary(), 2)),
    }
    pq.write_table(pa.table(columns), tmp_path / "deep/a.parquet")
    for name in columns:
        rows = rows_of(tmp_path / "deep/a.parquet", 4, columns={"image": name})
        are_two = name in ("several", "structs", "nested", "pair")
        expected = [[b"one"], [], [b"one", b"one"] if are_two else [b"one"], []]
        assert [row["images"] for row in rows] == expected, name
        assert faults(rows) == [None] * 4


@pytest.mark.parametrize("group", [1, 3, 7, 100])
@pytest.mark.parametrize("unit_rows", [1, 4, 7, 50])
def test_parquet_rows_are_the_same_however_they_are_grouped(tmp_path: Path, group: int, unit_rows: int) -> None:
    table = pa.table({"image": [b"%d" % n for n in range(23)], "n": range(23)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    rows = rows_of(tmp_path, unit_rows)
    assert [(row["index"], row["n"], row["images"]) for row in rows] == [(n, n, [b"%d" % n]) for n in range(23)]


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    when = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)
    columns = {
        "when": pa.array([when], pa.timestamp("ns", tz="UTC")),
        "price": pa.array([1], pa.decimal128(10, 2)),
        "vector": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
        "nested": pa.array([{"a": [1]}]),
        "label": pa.array(["cat"]).dictionary_encode(),
        "caption": pa.array(["x"], pa.large_string()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    schema = read_all(tmp_path).schema
    for name in ("when", "price", "vector", "nested"):
        assert schema.field(name).type == columns[name].type
    assert schema.field("label").type == schema.field("caption").type == pa.string()


def test_a_table_that_lacks_a_column_gives_nulls_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pq.write_table(pa.table({"n": [1], "m": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [2]}), tmp_path / "b.parquet")
    assert [row["m"] for row in rows_of(tmp_path)] == ["x", None]
    assert "b.parquet: has no column 'm'" in caplog.text


def test_a_broken_page_costs_the_rows_of_its_unit(tmp_path: Path) -> None:
    table = pa.table({"image": [os.urandom(2000) for _ in range(40)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=10, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    rows = rows_of(path, unit_rows=10)
    assert faults(rows) == [None] * 10 + ["Unreadable"] * 10 + [None] * 20
    assert [row["index"] for row in rows] == list(range(40))
    assert rows[10]["key"] == "a.parquet#10"


def test_jsonl_rows_are_lines_and_a_bad_line_costs_itself_only(tmp_path: Path) -> None:
    write(tmp_path / "in/x.jpg", b"x")
    rows = [
        {"key": "a", "image": "x.jpg", "question": "what?", "answers": ["one", "two"], "n": 1},
        b"{broken",
        b"",
        {"key": 7, "image": ["x.jpg", "x.jpg"], "question": None, "answers": "one"},
        b'{"key": "\xff"}',
        b"[]",
        {"key": "gone", "image": "gone.jpg"},
        {"key": "null", "image": None},
        {"key": "number", "image": 5},
        {"key": "listed number", "image": ["x.jpg", 5]},
        {"key": "bad question", "question": 5},
        {"key": "bad answers", "answers": {"a": 1}},
        {"key": 1.5},
        {"n": 3},
    ]
    found = rows_of(jsonl(tmp_path / "in/m.jsonl", rows))
    assert faults(found) == [
        *[None, "NotJson", None, "NotUtf8", "NotJson", "NotFound", None],
        *["WrongType", "WrongType", "WrongType", "WrongType", "WrongKey", None],
    ]
    assert [row["images"] for row in found[:3]] == [[b"x"], [], [b"x", b"x"]]
    assert [row["answers"] for row in found[:3]] == [["one", "two"], None, ["one"]]
    assert [row["key"] for row in found[:3]] == ["a", "m.jsonl#1", "7"]
    assert found[-1]["key"] == f"m.jsonl#{len(found) - 1}"
    assert [row["index"] for row in found] == list(range(len(found)))


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\r\n')
    write(tmp_path / "a.csv", b"\xef\xbb\xbftext,n\r\na,1\r\n\r\nb,2\r\n")
    assert [row["text"] for row in rows_of(tmp_path / "a.jsonl")] == ["a", "b"]
    assert [(row["text"], row["n"]) for row in rows_of(tmp_path / "a.csv")] == [("a", "1"), ("b", "2")]


def test_a_line_of_text_is_a_row_as_it_stands(tmp_path: Path) -> None:
    lines = [b"\xef\xbb\xbfa red circle", b"", b" two  spaces ", b"\t", b"caf\xe9", '{"key": "ü"}'.encode(), b'a, "b"']
    write(tmp_path / "deep/prompts.txt", b"\r\n".join(lines))
    texts = ["a red circle", " two  spaces ", None, '{"key": "ü"}', 'a, "b"']
    for unit_rows in (1, 2, 100):
        table = read_all(tmp_path, unit_rows)
        assert table.column_names == ["key", "shard", "index", "images", "text", "error"]
        rows = table.to_pylist()
        assert [row["text"] for row in rows] == texts
        assert faults(rows) == [None, None, "NotUtf8", None, None]
        assert [(row["key"], row["index"]) for row in rows] == [(f"deep/prompts.txt#{n}", n) for n in range(5)]
        assert {tuple(row["images"]) for row in rows} == {()}
    assert rows[2]["error"]["stage"] == "fetch" and "at byte 3" in rows[2]["error"]["message"]


def test_a_line_of_text_may_be_called_by_another_of_our_words(tmp_path: Path) -> None:
    write(tmp_path / "x.jpg", b"x")
    path = write(tmp_path / "list.txt", "x.jpg\ny.jpg\n")
    assert [row["question"] for row in rows_of(path, columns={"question": "text"})] == ["x.jpg", "y.jpg"]
    pictures = rows_of(path, columns={"image": "text"})
    assert [row["images"] for row in pictures] == [[b"x"], []]
    assert faults(pictures) == [None, "NotFound"]


def test_fields_of_json_keep_a_type_that_holds_every_row(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": True, "c": "x", "d": {"e": [1]}}, {"a": 2.5, "b": False, "c": {"y": 1}, "d": None}]
    table = read_all(jsonl(tmp_path / "a.jsonl", rows))
    assert table.select(["a", "b", "c", "d"]).to_pylist() == [
        {"a": 1.0, "b": True, "c": "x", "d": '{"e": [1]}'},
        {"a": 2.5, "b": False, "c": '{"y": 1}', "d": None},
    ]


def test_a_field_that_changes_its_type_late_is_found_by_the_plan(tmp_path: Path) -> None:
    rows = [{"score": n if n < 1500 else n / 2} | ({"late": "x"} if n > 1500 else {}) for n in range(1900)]
    members = [{"key": f"{n:04d}", "json": row, "jpg": b"i"} for n, row in enumerate(rows)]
    for path in (jsonl(tmp_path / "a.jsonl", rows), write(tmp_path / "a.tar", tar_bytes(rows_as_members(members)))):
        table = read_all(path, unit_rows=1000)
        assert table.column("score").to_pylist() == [row["score"] for row in rows]
        assert table.column("late").to_pylist() == [row.get("late") for row in rows]


def test_csv_cells_may_hold_newlines_commas_and_quotes(tmp_path: Path) -> None:
    cells = ["plain", "two\nlines", 'a "quoted", word', "", 'disk 5" wide', "ü\r\nz"]
    lines = ["image,text"] + [",".join(["", '"' + cell.replace('"', '""') + '"']) for cell in cells]
    path = write(tmp_path / "m.csv", "\n".join(lines))
    for unit_rows in (1, 2, 100):
        rows = rows_of(path, unit_rows)
        assert [row["text"] for row in rows] == cells
        assert [row["images"] for row in rows] == [[]] * len(cells)


def test_a_bad_csv_row_costs_itself_only(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", b"key,text\na,1\nb\nc,2,3\nd,\xff\n,5\ne,6")
    rows = rows_of(path, unit_rows=2)
    assert faults(rows) == [None, "WrongCells", "WrongCells", "WrongType", "WrongKey", None]
    assert "is not UTF-8" in rows[3]["error"]["message"]
    assert [row["key"] for row in rows] == ["a", "b", "c", "d", "m.csv#4", "e"]


def test_csv_shards_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "text,answers\na,x\n")
    write(tmp_path / "2.csv", "answers,text\ny,b\n")
    assert [(row["text"], row["answers"]) for row in rows_of(tmp_path)] == [("a", ["x"]), ("b", ["y"])]


def test_columns_are_called_by_our_words(tmp_path: Path) -> None:
    write(tmp_path / "x.jpg", b"x")
    row = {"id": "k", "photo": "x.jpg", "q": "what?", "label": "cat", "question": "other", "index": 9, "shard": "s"}
    columns = {"key": "id", "image": "photo", "question": "q", "answers": "label"}
    (found,) = rows_of(jsonl(tmp_path / "m.jsonl", [row]), columns=columns)
    assert found == {
        "key": "k",
        "shard": "m.jsonl",
        "index": 0,
        "image_path": "x.jpg",
        "images": [b"x"],
        "question": "what?",
        "answers": ["cat"],
        "input_question": "other",
        "input_index": 9,
        "input_shard": "s",
        "error": None,
    }


def test_a_named_key_must_be_there_in_every_row(tmp_path: Path) -> None:
    rows = rows_of(jsonl(tmp_path / "m.jsonl", [{"id": "a"}, {"id": None}, {}]), columns={"key": "id"})
    assert faults(rows) == [None, "WrongKey", "WrongKey"]


def test_answers_are_always_a_list_of_texts(tmp_path: Path) -> None:
    for answers in (["yes", "no"], [["yes", "ja"], ["no"]], [1, 0]):
        pq.write_table(pa.table({"answers": answers}), tmp_path / "a.parquet")
        column = read_all(tmp_path).column("answers")
        assert column.type == pa.list_(pa.string())
        assert all(column.to_pylist())


def test_a_shard_that_changed_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "m.jsonl", [{"n": 1}, {"n": 2}])
    settings = ReadSettings(uri=str(path))
    units = plan_units(settings, 1)
    jsonl(path, [{"n": 1}, {"n": 22}])
    with pytest.raises(ReadError, match=r"not what it was when the run was planned: found 18 bytes .*planned 17 bytes"):
        read_unit(units[1], settings)
    jsonl(path, [{"n": 1}, {"n": 3}])
    os.utime(path, (1, 1))
    with pytest.raises(ReadError, match=r"found the planned size, but version 1970-01-01T00:00:01"):
        read_unit(units[1], settings)
    accepting = settings.model_copy(update={"on_changed": "accept"})
    assert read_unit(units[1], accepting).column("n").to_pylist() == [3]
    path.unlink()
    with pytest.raises(NotFound, match=r"m\.jsonl"):
        read_unit(units[1], settings)


def test_settings_say_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="pictures"):
        ReadSettings.model_validate({"uri": "x", "columns": {"pictures": "y"}})
    with pytest.raises(ValueError, match="limit"):
        ReadSettings(uri="x", limit=0)


def test_an_s3_input_reads_like_a_local_one(s3: S3, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = {f"pictures/{n}.jpg": rng.bytes(int(rng.integers(1, 5000))) for n in range(5)}
    rows = [{"key": f"{n:03d}", "jpg": rng.bytes(3000), "json": {"n": n}} for n in range(7)]
    pq.write_table(pa.table({"image": list(pictures), "n": range(5)}), tmp_path / "a.parquet", row_group_size=2)
    files: dict[str, bytes] = {
        **pictures,
        "pictures/empty.jpg": b"",
        "shards/a.tar": tar_bytes(rows_as_members(rows[:4])),
        "shards/b.tar": tar_bytes(rows_as_members(rows[4:])),
        "packed/c.tar.gz": gzip.compress(tar_bytes(rows_as_members(rows))),
        "a.parquet": (tmp_path / "a.parquet").read_bytes(),
        "m.jsonl": "\n".join(json.dumps({"image": name}) for name in [*pictures, "gone.jpg"]).encode(),
        "m.csv": ("image,n\n" + "".join(f"{name},1\n" for name in pictures)).encode(),
        "p.txt": b"one\ntwo\n\xff\nfour",
    }
    remote = Store(f"{s3.uri}/in", s3.settings)
    for name, data in files.items():
        remote.publish(name, data)
        write(tmp_path / "in" / name, data)
    for path in ("pictures", "shards", "shards/*.tar", "packed", "a.parquet", "m.jsonl", "m.csv", "p.txt"):
        local = read_all(tmp_path / "in" / path)
        found = read_all(f"{remote.uri}/{path}", storage={"endpoint_url": s3.endpoint_url})
        assert found.drop(["error"]) == local.drop(["error"]), path
        assert faults(found.to_pylist()) == faults(local.to_pylist())


def test_an_object_that_changed_its_content_but_not_its_size_is_refused(s3: S3) -> None:
    remote = Store(f"{s3.uri}/in", s3.settings)
    remote.publish("m.jsonl", b'{"n": 1}')
    settings = ReadSettings(uri=f"{remote.uri}/m.jsonl", storage=s3.settings)
    (unit,) = plan_units(settings, 1)
    remote.replace("m.jsonl", b'{"n": 2}')
    with pytest.raises(ReadError, match="not what it was when the run was planned"):
        read_unit(unit, settings)


def test_a_bucket_that_is_not_there_is_named(s3: S3) -> None:
    settings = ReadSettings(uri="s3://no-such-bucket/x/*.tar", storage=s3.settings)
    with pytest.raises(StorageError, match="s3://no-such-bucket/x"):
        plan_units(settings, 1)
