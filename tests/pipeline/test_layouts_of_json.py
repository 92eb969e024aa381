"""JSON arrays and COCO annotations are rows, with keys that join back."""

import gzip
import json
from pathlib import Path

import pytest

from pipeline.input.formats import arrays
from pipeline.storage.store import StorageError
from tests.end_to_end.shards import png
from tests.pipeline.inputs import faults, plan, rows_of, write
from tests.pipeline.layouts import coco, jsonl


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


def test_rows_of_thousands_of_fields_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl(*({f"f{n}": n for n in range(4000)} for _ in range(3))))
    rows = rows_of(path)
    assert rows[2]["f3999"] == 3999 and len(rows[0]) > 4000
    write(path, jsonl({f"f{n}": n for n in range(4097)}))
    with pytest.raises(StorageError, match="more than 4096 different fields"):
        plan(path)
