"""What a row's images are called where they lie stays with the row, so that answers can be joined with files."""

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.columns import IMAGE_PATH
from pipeline.input.read import read_unit
from pipeline.input.unit_files import units_from_parquet, units_to_parquet
from pipeline.input.units import ReadSettings, Unit
from tests.end_to_end.shards import png
from tests.pipeline.inputs import plan_units, read_all, rows_of, tar_bytes, write

HUB = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def paths(uri: Path, **settings: Any) -> list[Any]:
    return [row[IMAGE_PATH] for row in rows_of(uri, **settings)]


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_files_that_are_rows_are_called_by_their_paths(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png"):
        write(tmp_path / name, png(1))
    write(tmp_path / "a/1.json", '{"image_path": "elsewhere.png"}')
    rows = rows_of(tmp_path)
    assert [row[IMAGE_PATH] for row in rows] == ["a/1.png", "a/2.png"]
    assert [row["input_image_path"] for row in rows] == ["elsewhere.png", None], "the input's own makes room"


def test_members_of_archives_are_called_by_their_names(tmp_path: Path) -> None:
    members = [("./cats/1.JPG", png(1)), ("./cats/1.txt", b"a cat"), ("2.txt", b"no picture"), ("3.png", png(3))]
    write(tmp_path / "tar/a.tar", tar_bytes(members))
    assert paths(tmp_path / "tar") == ["./cats/1.JPG", None, "3.png"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("cats/1.jpg", png(1))
    write(tmp_path / "zip/a.zip", packed.getvalue())
    assert paths(tmp_path / "zip") == ["cats/1.jpg"]


def test_an_archive_without_pictures_has_no_such_column(tmp_path: Path) -> None:
    table = read_all(write(tmp_path / "a.tar", tar_bytes([("1.txt", b"draw"), ("1.json", b'{"image_path": "x"}')])))
    assert table.column(IMAGE_PATH).to_pylist() == ["x"], "the input's own keeps its name"


def test_numbered_members_are_a_list(tmp_path: Path) -> None:
    members = [("1.0.png", png(1)), ("1.1.png", png(2)), ("2.0.png", png(3))]
    assert paths(write(tmp_path / "a.tar", tar_bytes(members))) == [["1.0.png", "1.1.png"], ["2.0.png"]]


def test_rows_of_manifests_keep_paths_and_addresses_and_nothing_of_what_stands_in_them(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    inline = base64.b64encode(png(1)).decode()
    given = ["a.png", inline, f"data:image/png;base64,{inline}", None, "", "gone.png", inline[:100] + "!"]
    found = rows_of(lines(tmp_path / "m.jsonl", *({"image": image} for image in given)))
    assert [row[IMAGE_PATH] for row in found] == ["a.png", None, None, None, None, "gone.png", None]
    assert [len(row["images"]) for row in found] == [1, 1, 1, 0, 0, 0, 0]
    written = write(tmp_path / "m.csv", f"photo,image_path\na.png,own\n{inline},\n")
    assert paths(written, columns={"image": "photo"}) == ["a.png", None]
    assert paths(written, columns={"image": "image_path"}) == ["own", None]


def test_several_images_of_a_row_are_a_list(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.png", png(1))
    listed = lines(tmp_path / "list.jsonl", {"image": ["a.png", "b.png"]}, {"image": ["b.png"]}, {"image": []})
    assert paths(listed) == [["a.png", "b.png"], ["b.png"], None]
    several = lines(tmp_path / "two.jsonl", {"left": "a.png", "right": "b.png"}, {"left": None, "right": "b.png"})
    assert paths(several, columns={"image": ["left", "right"]}) == [["a.png", "b.png"], ["b.png"]]
    messages = lines(tmp_path / "chat.jsonl", {"image": {"image_url": {"url": "a.png"}}}, {"image": {"path": "b.png"}})
    assert paths(messages) == ["a.png", "b.png"]


def test_several_images_that_the_plan_has_not_seen_are_json_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.input.formats.manifest.is_sampled", lambda place: place < 1)
    write(tmp_path / "a.png", png(1))
    assert paths(lines(tmp_path / "m.jsonl", {"image": "a.png"}, {"image": ["a.png", "a.png"]})) == [
        "a.png",
        '["a.png", "a.png"]',
    ]


@pytest.mark.parametrize("kind", ["struct", "path", "list", "bytes", "dictionary"])
def test_parquet_gives_the_hubs_path_or_its_own(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    columns: dict[str, Any] = {
        "struct": pa.array([{"bytes": png(1), "path": "a.png"}, {"bytes": png(2), "path": None}, None], HUB),
        "path": pa.array(["a.png", None, None]),
        "list": pa.array([[{"bytes": png(1), "path": "a.png"}], [], None], pa.list_(HUB)),
        "bytes": pa.array([png(1), png(2), None], pa.binary()),
        "dictionary": pa.array(["a.png", None, None]).dictionary_encode(),
    }
    pq.write_table(pa.table({"image": columns[kind]}), tmp_path / "a.parquet")
    table = read_all(tmp_path / "a.parquet")
    if kind == "bytes":
        assert IMAGE_PATH not in table.column_names, "bytes have no name"
    else:
        assert table.column(IMAGE_PATH).to_pylist() == [["a.png"] if kind == "list" else "a.png", None, None]


def test_an_imagefolders_paths_are_those_below_the_input(tmp_path: Path) -> None:
    for place in ("x", "y"):
        write(tmp_path / f"{place}/1.png", png(1))
        lines(tmp_path / f"{place}/metadata.jsonl", {"file_name": "1.png", "text": place})
    assert paths(tmp_path) == ["x/1.png", "y/1.png"]
    two = tmp_path / "two"
    write(two / "1.png", png(1))
    lines(two / "metadata.jsonl", {"a_file_name": "1.png", "b_file_name": "1.png"})
    assert paths(two) == [["1.png", "1.png"]]


def test_lists_of_paths_and_halves_of_characters(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    assert paths(write(tmp_path / "list.lst", "a.png\n"), columns={"image": "text", "key": "text"}) == ["a.png"]
    found = rows_of(write(tmp_path / "m.jsonl", '{"image": "\\ud83d.png"}\n'))
    assert found[0][IMAGE_PATH] == "\\ud83d.png" and found[0]["error"]


def test_units_of_an_older_plan_have_no_such_column_and_read_as_they_did(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    read = ReadSettings(uri=str(lines(tmp_path / "m.jsonl", {"image": "a.png", "image_path": "own", "n": 1})))
    (unit,) = plan_units(read, 3)
    assert unit.image_path == pa.string() and unit.table_schema.names[-2:] == [IMAGE_PATH, "error"]
    before = pa.schema([*(f for f in unit.table_schema if f.name not in ("input_image_path", IMAGE_PATH, "error"))])
    older = [*before, pa.field(IMAGE_PATH, pa.string()), unit.table_schema.field("error")]
    frozen = Unit(**{**vars(unit), "schema": pa.schema(older).serialize().to_pybytes()})
    (again,) = units_from_parquet(units_to_parquet([frozen]))
    assert again.image_path is None
    (row,) = read_unit(again, read).to_pylist()
    assert (row[IMAGE_PATH], row["n"], len(row["images"])) == ("own", 1, 1)


def test_a_unit_travels_with_its_marks(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    (unit,) = plan_units(ReadSettings(uri=str(tmp_path)), 3)
    (again,) = units_from_parquet(units_to_parquet([unit]))
    assert again.image_path == pa.string() and again.unread == frozenset()
