"""Images that do not stand in one column of their row: in several, in another table, or as base64 in a cell of text."""

import base64
import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.input import joined_table
from pipeline.input.formats.inline import NotBase64, inlined, listed
from pipeline.input.formats.parquet import Opened
from pipeline.input.formats.rows import ReadError
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, Unit, plan_input
from pipeline.settings import ConfigError, check_settings
from pipeline.storage import held_bytes
from pipeline.storage.store import Store
from tests.end_to_end.shards import png
from tests.pictures import encoded
from tests.pipeline.inputs import faults, plan_units, rows_of, write
from tests.s3 import S3
from tests.zoo.layouts import zstd

HUB = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")


def noise(format: str, side: int = 16) -> bytes:
    return encoded(Image.effect_noise((side, side), 50).convert("RGB"), format)


def text_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def separated(rows: Sequence[Sequence[str]], delimiter: str = "\t") -> str:
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter).writerows(rows)
    return sink.getvalue()


# Several columns.


def test_images_of_several_columns_come_in_their_order_and_nulls_are_left_out(tmp_path: Path) -> None:
    rows = [
        {
            "id": "a",
            "image_1": {"bytes": b"1", "path": None},
            "image_2": {"bytes": b"2", "path": None},
            "image_3": None,
        },
        {"id": "b", "image_1": None, "image_2": None, "image_3": {"bytes": b"3", "path": None}},
        {"id": "c", "image_1": None, "image_2": None, "image_3": None},
    ]
    kinds = [("id", pa.string()), *((f"image_{n}", HUB) for n in (1, 2, 3))]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(kinds)), tmp_path / "a.parquet")
    columns = {"key": "id", "image": ["image_2", "image_1", "image_3"]}
    found = rows_of(tmp_path, columns=columns)
    assert [(row["key"], row["images"]) for row in found] == [("a", [b"2", b"1"]), ("b", [b"3"]), ("c", [])]
    assert list(found[0]) == ["key", "shard", "index", "images", "image_path", "error"], "no bytes stay"
    lines = [{"id": row["id"], "image_1": None, "image_2": f"{row['id']}.png"} for row in rows]
    write(tmp_path / "lines/a.jsonl", "\n".join(map(json.dumps, lines)))
    for name in "abc":
        write(tmp_path / f"lines/{name}.png", name.encode())
    found = rows_of(tmp_path / "lines/a.jsonl", columns={"image": ["image_1", "image_2"]})
    assert [row["images"] for row in found] == [[b"a"], [b"b"], [b"c"]]


def test_every_column_that_is_said_to_hold_images_must_be_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_1": [b"x"]}), tmp_path / "a.parquet")
    with pytest.raises(ReadError, match=r"read.columns.image names 'image_2', but the columns are: image_1"):
        rows_of(tmp_path, columns={"image": ["image_1", "image_2"]})
    pq.write_table(pa.table({"image_1": [b"x"], "image_2": [7]}), tmp_path / "a.parquet")
    with pytest.raises(ReadError, match=r"image column 'image_2' holds int64, expected bytes"):
        rows_of(tmp_path, columns={"image": ["image_1", "image_2"]})


def test_what_is_no_name_of_a_column_is_said_in_one_sentence() -> None:
    for columns, said in (
        ({"image": 7}, "columns.image: found 7, expected the name of a column, or for images a list of names"),
        ({"image": []}, "columns.image: found [], expected the name of a column, or for images a list of names"),
        ({"key": ["a", "b"]}, "columns.key names several columns, expected one"),
        ({"video": "v", "image": "i"}, "found columns.video beside columns.image or join; a row's images are its"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_settings(ReadSettings, {"uri": "in", "columns": columns})
        (fault,) = caught.value.faults
        assert fault.startswith(said)


# Base64.


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_in_base64_is_known_by_its_first_bytes(format: str) -> None:
    image = noise(format)
    text = text_of(image)
    assert inlined(text) == image
    assert inlined("\n".join(text[start : start + 76] for start in range(0, len(text), 76))) == image
    with pytest.raises(NotBase64, match="begins as an image in base64, but"):
        inlined(text[:200] + "!" + text[201:])


@pytest.mark.parametrize(
    "text",
    [
        "a.png",
        "1234567",
        "photos/" * 20 + "a.png",
        "Qk" + "a/" * 60 + "b.png",
        text_of(b"never an image " * 20),
        text_of(b"RIFF1234WAVE" * 20),
        "s3://bucket/" + "x" * 100,
    ],
)
def test_names_ids_and_other_things_in_base64_are_no_images(text: str) -> None:
    assert inlined(text) is None


def test_a_list_in_a_cell_is_read_as_a_literal_and_never_run() -> None:
    assert listed("['a.png', \"b.png\"]") == ["a.png", "b.png"]
    assert listed("['a' + 'b']") is None
    assert listed("['a', __import__('os').getcwd(), 'b']") is None
    assert listed("[]") is None and listed("a.png") is None


@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl"])
def test_cells_of_text_hold_images_of_megabytes_in_base64(tmp_path: Path, format: str) -> None:
    images = [noise("PNG", side=700), noise("JPEG"), noise("WEBP")]
    assert len(images[0]) > 10**6
    cells = [text_of(images[0]), f"data:image/jpeg;base64,{text_of(images[1])}", repr([text_of(one) for one in images])]
    questions = ["tab\there?", 'a "quoted" line\nand another', ""]
    pairs = list(zip(cells, questions, strict=True))
    if format == "jsonl":
        rows = [{"index": n, "image": cell, "question": text} for n, (cell, text) in enumerate(pairs)]
        data = "\n".join(map(json.dumps, rows))
    else:
        rows = [["index", "image", "question"], *([str(n), *pair] for n, pair in enumerate(pairs))]
        data = separated(rows, "\t" if format == "tsv" else ",")
    write(tmp_path / f"a.{format}", data)
    found = rows_of(tmp_path, columns={"key": "index"})
    assert [row["images"] for row in found] == [[images[0]], [images[1]], images]
    assert [row["question"] for row in found] == questions and faults(found) == [None] * 3
    assert [row["key"] for row in found] == ["0", "1", "2"]


def test_a_broken_image_in_a_cell_costs_its_row_and_is_told_in_a_few_letters(tmp_path: Path) -> None:
    text = text_of(noise("PNG", side=200))
    rows = [["image"], [text[:1000] + "?" + text[1001:]], ["x" * 10_000], [text]]
    found = rows_of(write(tmp_path / "a.tsv", separated(rows)))
    assert faults(found) == ["NotBase64", "WrongAddress", None]
    assert all(len(row["error"]["message"]) < 200 for row in found[:2])


def test_a_quote_that_is_never_closed_is_named_and_one_within_a_cell_does_no_harm(tmp_path: Path) -> None:
    found = rows_of(write(tmp_path / "a.tsv", 'question\tn\nsay "hi"\t1\n5" of rain\t2\n'))
    assert [row["question"] for row in found] == ['say "hi"', '5" of rain']
    with pytest.raises(ReadError, match="a quote that opens in the row from byte 11 on is never closed"):
        rows_of(write(tmp_path / "b.tsv", 'question\tn\n"never closed\t1\nmore\t2\n'))


# Another table.


def tables(folder: Path, num_images: int = 10, group: int = 3) -> dict[str, Any]:
    """Questions on images that lie in two files of another table; the ids there are numbers, here they are texts."""
    ids = list(range(100, 100 + num_images))
    for half, some in enumerate((ids[: num_images // 2], ids[num_images // 2 :])):
        images = pa.array([{"bytes": png(n), "path": f"{n}.png"} for n in some], HUB)
        path = folder / "images" / f"{half}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": some, "image": images}), path, row_group_size=group)
    questions = [{"id": f"q{n}", "imageId": str(100 + n % num_images), "question": f"what is {n}?"} for n in range(25)]
    path = folder / "questions" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(questions), path)
    return {"columns": {"key": "id", "image": "imageId"}, "join": {"uri": str(folder / "images")}}


def planned(folder: Path, unit_rows: int = 4, **read: Any) -> tuple[list[Unit], ReadSettings]:
    settings = ReadSettings.model_validate({"uri": str(folder), **read})
    return plan_units(settings, unit_rows), settings


def test_images_are_those_of_the_rows_of_their_ids_in_another_table(tmp_path: Path) -> None:
    read = tables(tmp_path)
    found = rows_of(tmp_path / "questions", 4, **read)
    assert [row["images"] for row in found] == [[png(100 + n % 10)] for n in range(25)]
    assert [row["imageId"] for row in found] == [str(100 + n % 10) for n in range(25)], "the id stays: it is data"
    assert faults(found) == [None] * 25


def test_an_id_that_is_not_there_costs_its_row_and_names_the_table(tmp_path: Path) -> None:
    read = tables(tmp_path)
    rows = [{"id": str(n), "imageId": name} for n, name in enumerate(["101", "7", None, "103"])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "questions" / "a.parquet")
    found = rows_of(tmp_path / "questions", 4, **read)
    assert faults(found) == [None, "UnknownId", None, None]
    assert found[1]["error"]["message"] == f"'7' is not among the 10 ids in 'id' of {tmp_path}/images"
    assert [len(row["images"]) for row in found] == [1, 0, 0, 1]


def test_only_row_groups_with_wanted_images_are_read_and_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tables(tmp_path, num_images=20, group=2)
    picked: list[int] = []
    pick = Opened.pick

    def watched(shard: Opened, column: str, rows: Sequence[int]) -> dict[int, Any]:
        picked.extend(rows)
        return pick(shard, column, rows)

    monkeypatch.setattr(Opened, "pick", watched)
    units, settings = planned(tmp_path / "questions", 5, **read)
    for unit in units:
        read_unit(unit, settings)
    assert len(picked) == 20, "of 25 questions on 20 images"


def test_of_images_looked_up_no_more_is_held_than_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_table, "HELD_BYTES", 3 * len(png(100)))
    read = tables(tmp_path)
    units, settings = planned(tmp_path / "questions", 25, **read)
    assert [row["images"] for row in read_unit(units[0], settings).to_pylist()] == [
        [png(100 + n % 10)] for n in range(25)
    ]
    from pipeline.input.joins import _open

    table = next(reversed(_open.values()))
    assert len(table.held) <= 4 and table.held_bytes == sum(map(len, table.held.values())) <= joined_table.HELD_BYTES


def test_a_broken_page_of_the_other_table_costs_the_rows_that_need_it(tmp_path: Path) -> None:
    read = tables(tmp_path)
    path = tmp_path / "images" / "0.parquet"
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 30] = bytes(30)
    units, settings = planned(tmp_path / "questions", 25, **read)
    path.write_bytes(data)
    found = read_unit(units[0], settings.model_copy(update={"on_changed": "accept"})).to_pylist()
    assert set(faults(found)) == {None, "Unreadable"}
    assert [row["images"] for row in found[5:10]] == [[png(105 + n)] for n in range(5)]


def text_table(kind: str, numbers: Sequence[int]) -> bytes:
    """Images in base64 and their ids; of JSONL some are in data: addresses."""
    if kind == "jsonl":
        heads = ("", "data:image/png;base64,")
        rows = ({"picture": heads[n % 2] + text_of(png(n)), "name": n} for n in numbers)
        return "\n".join(map(json.dumps, rows)).encode()
    rows = [["name", "picture"], *([str(n), text_of(png(n))] for n in numbers)]
    return separated(rows, "\t" if kind == "tsv" else ",").encode()


@pytest.mark.parametrize("kept", [held_bytes.HELD_BYTES, 0])
@pytest.mark.parametrize("pack", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_the_other_table_may_be_text_with_images_in_base64_compressed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pack: str, kept: int
) -> None:
    monkeypatch.setattr("pipeline.storage.held_bytes.tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(held_bytes, "HELD_BYTES", kept)
    read = tables(tmp_path)
    packed = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[pack]
    for part, numbers in enumerate(([109, 101, 100, 105], [108, 102, 103, 104, 106, 107])):
        write(tmp_path / f"pictures/{part}.{kind}{pack}", packed(text_table(kind, numbers)))
    join = {"uri": str(tmp_path / "pictures"), "key": "name", "image": "picture"}
    found = rows_of(tmp_path / "questions", 4, **{**read, "join": join})
    assert [row["images"] for row in found] == [[png(100 + n % 10)] for n in range(25)]


def test_a_compressed_table_is_unpacked_twice_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.held_bytes.tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(joined_table, "HELD_BYTES", 1)
    read = tables(tmp_path)
    path = write(tmp_path / "images.csv.gz", gzip.compress(text_table("csv", range(100, 110))))
    opened: list[str] = []
    open_file = Store.open

    def watched(store: Store, name: str, *more: Any) -> BinaryIO:
        opened.append(name)
        return open_file(store, name, *more)

    monkeypatch.setattr(Store, "open", watched)
    join = {"uri": str(path), "key": "name", "image": "picture"}
    found = rows_of(tmp_path / "questions", 4, **{**read, "join": join})
    assert [row["images"] for row in found] == [[png(100 + n % 10)] for n in range(25)]
    assert opened.count("images.csv.gz") == 2, "once for the ids, once for the images of seven units"


def test_a_compressed_shard_may_hold_its_images_by_id(tmp_path: Path) -> None:
    image = noise("PNG")
    rows = [["index", "question", "image"], ["1", "first?", text_of(image)], ["2", "turned?", "1"]]
    write(tmp_path / "a.tsv.gz", gzip.compress(separated(rows).encode()))
    found = rows_of(tmp_path, 1, columns={"key": "index"}, join={"key": "index"})
    assert [row["images"] for row in found] == [[image], [image]]


def test_a_compressed_table_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    read = tables(tmp_path)
    path = write(tmp_path / "images.csv.gz", gzip.compress(text_table("csv", range(100, 110)))[:-20])
    join = {"uri": str(path), "key": "name", "image": "picture"}
    with pytest.raises(ReadError, match=r"read.join: .*images\.csv\.gz: gzip stream is cut off"):
        planned(tmp_path / "questions", **{**read, "join": join})


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ({"uri": "nowhere"}, "found no files at .*nowhere"),
        ({"uri": "texts"}, r"read.join.uri: found text at .*texts, expected parquet, jsonl, csv, tsv"),
        ({"uri": "images", "key": "image_id"}, "read.join.key names 'image_id', but the columns are: id, image"),
        ({"uri": "images", "image": "photo"}, "read.join.image names 'photo', but the columns are: id, image"),
        ({"uri": "images", "image": "id"}, "image column 'id' holds int64, expected bytes"),
        ({"uri": "twice"}, "several rows have the id '1' in 'id', expected one each"),
    ],
)
def test_what_is_wrong_with_the_other_table_is_said_when_the_run_is_planned(
    tmp_path: Path, join: dict[str, str], message: str
) -> None:
    read = tables(tmp_path)
    write(tmp_path / "texts/a.txt", "line")
    (tmp_path / "twice").mkdir()
    pq.write_table(pa.table({"id": [1, 2, 1], "image": [b"x"] * 3}), tmp_path / "twice/a.parquet")
    with pytest.raises(ReadError, match=message):
        planned(tmp_path / "questions", **{**read, "join": {**join, "uri": str(tmp_path / join["uri"])}})
    with pytest.raises(ReadError, match=r"read.join looks up the ids in column 'image', but the columns are: id"):
        planned(tmp_path / "questions", join={"uri": str(tmp_path / "images")})


def test_another_table_that_has_changed_is_refused(tmp_path: Path) -> None:
    read = tables(tmp_path)
    units, settings = planned(tmp_path / "questions", **read)
    assert len({(unit.join_size, unit.join_etag) for unit in units}) == 1
    pq.write_table(pa.table({"id": [100], "image": [b"another"]}), tmp_path / "images" / "1.parquet")
    with pytest.raises(ReadError, match=r"images is not what it was when the run was planned: found \d+ bytes"):
        read_unit(units[0], settings)


def test_a_bucket_holds_the_other_table_as_well(s3: S3, tmp_path: Path) -> None:
    read = tables(tmp_path)
    local = rows_of(tmp_path / "questions", 4, **read)
    for path in sorted(tmp_path.rglob("*.parquet")):
        Store(s3.uri, s3.settings).replace(f"gqa/{path.relative_to(tmp_path)}", path.read_bytes())
    there = {**read, "join": {"uri": f"{s3.uri}/gqa/images"}, "storage": s3.settings.model_dump()}
    assert rows_of(f"{s3.uri}/gqa/questions", 4, **there) == local


def test_in_a_tsv_a_short_cell_is_the_index_of_the_row_that_holds_the_image(tmp_path: Path) -> None:
    images = [noise("PNG"), noise("JPEG")]
    rows = [
        ["index", "question", "image"],
        ["1", "first?", text_of(images[0])],
        ["1000001", "turned once?", "1"],
        ["2", "second?", text_of(images[1])],
        ["1000002", "turned once?", "2"],
        ["2000002", "turned twice?", "1000002"],
        ["3", "none?", ""],
        ["4", "lost?", "77"],
    ]
    write(tmp_path / "a.tsv", separated(rows))
    read = {"columns": {"key": "index"}, "join": {"key": "index"}}
    found = rows_of(tmp_path, 2, **read)
    expected = [[images[0]], [images[0]], [images[1]], [images[1]], [], [], []]
    assert [row["images"] for row in found] == expected
    assert faults(found) == [None] * 4 + ["WrongType", None, "UnknownId"]
    assert "holds '2' for this id" in found[4]["error"]["message"]
    assert "image" not in found[0] and "input_image" not in found[0]
    with pytest.raises(ReadError, match="several rows have the id '1' in 'index'"):
        planned(write(tmp_path / "b.tsv", separated([*rows, ["1", "again?", ""]])), **read)


# Without images.


def test_without_images_nothing_of_them_is_read_or_fetched(tmp_path: Path) -> None:
    read = tables(tmp_path)
    units, settings = planned(tmp_path / "questions", 25, **read)
    with_images = read_unit(units[0], settings)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    without = read_unit(units[0], settings, with_images=False)
    assert without.schema == with_images.schema
    assert without.drop_columns(["images"]).equals(with_images.drop_columns(["images"]))
    assert without["images"].to_pylist() == [[]] * 25


def test_without_images_a_table_with_a_broken_image_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"key": ["a"], "question": ["q"], "image": [b"x" * 2000]}), path, compression="none")
    units, settings = planned(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"x" * 100, b"y" * 100))
    settings = settings.model_copy(update={"on_changed": "accept"})
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(2)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    broken = bytearray(data)
    broken[start : start + 30] = bytes(30)
    path.write_bytes(broken)
    assert faults(read_unit(units[0], settings).to_pylist()) == ["Unreadable"]
    (row,) = read_unit(units[0], settings, with_images=False).to_pylist()
    assert (row["key"], row["question"], row["images"], row["error"]) == ("a", "q", [], None)


def test_keys_of_a_tsv_are_compared_as_those_of_other_tables(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", separated([["index", "image"], ["7", ""], ["8", ""], ["7", ""]]))
    units, settings = planned(tmp_path, columns={"key": "index"})
    assert duplicate_keys(units, settings) == ["7"]


def test_a_raw_source_keeps_its_other_columns_beside_an_image_from_elsewhere(tmp_path: Path) -> None:
    read = tables(tmp_path)
    settings = ReadSettings.model_validate({"uri": str(tmp_path / "questions"), **read})
    (unit,) = plan_input(settings, 99, is_raw=True).units
    table = read_unit(replace(unit, is_raw=True), settings)
    assert table.column_names == ["key", "shard", "index", "images", "imageId", "question", "error"]
