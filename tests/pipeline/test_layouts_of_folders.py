"""Folders of images, splits and columns are read as those who wrote them mean them, with keys that join back."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings
from pipeline.storage.store import StorageError, Store
from tests.end_to_end.shards import png
from tests.pipeline.inputs import faults, plan, plan_units, read_all, rows_of, tar_bytes, write
from tests.pipeline.layouts import jsonl


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
    assert planned.notes[0].endswith("found images, 4 files, with 1 .txt, 1 .caption, 1 .json beside them")
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
    assert (
        "what img2dataset writes: webdataset, 1 tars; the .parquet and .json about them are not read"
        in planned.notes[0]
    )


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


def test_a_folder_of_metadata_that_names_no_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    write(tmp_path / "metadata.jsonl", jsonl({"id": 1}))
    with pytest.raises(StorageError, match=r"expected the column `file_name` or .* set read.format=images"):
        plan(tmp_path)
    assert len(rows_of(tmp_path, format="images")) == 1


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


@pytest.mark.parametrize(("pattern", "expected"), [
    ("*/*.png", ["lb/1.png", "real/0.png"]),
    ("l*/*.png", ["la/0.png", "lb/1.png"]),
    ("lc/*.png", ["lc/1.png"]),
    ("*/deep/*.png", ["lb/deep/2.png"]),
    ("**/*.png", ["lb/1.png", "lb/deep/2.png", "real/0.png"]),
    ("l[bc]/1.png", ["lb/1.png"]),
    ("*.png", []),
])  # fmt: skip
def test_globs_follow_linked_folders_once_as_folders_do(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for number, name in enumerate(("in/real/0.png", "elsewhere/1.png", "elsewhere/deep/2.png", "elsewhere/x.txt")):
        write(tmp_path / name, png(number))
    for link, target in (("la", "real"), ("lb", "../elsewhere"), ("lc", "../elsewhere"), ("gone", "nothing")):
        (tmp_path / "in" / link).symlink_to(target)
    (tmp_path / "elsewhere/up").symlink_to("../in")
    store = Store(str(tmp_path / "in"))
    assert [entry.path for entry in store.glob(pattern)] == expected
    for entry in store.glob(pattern):
        assert store.entry(entry.path) == entry, "a listing and a look-up agree"
    if expected:
        keys = [row["key"].rpartition("/")[2] for row in rows_of(f"{tmp_path}/in/{pattern}")]
        assert keys == [path.rpartition("/")[2] for path in expected]
