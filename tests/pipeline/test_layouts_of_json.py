"""JSON arrays, COCO's annotations and conversations are rows, with keys that join back."""

import base64
import gzip
import json
from pathlib import Path

import pytest

from pipeline.input.formats import arrays
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input
from pipeline.storage.store import StorageError
from tests.end_to_end.shards import png
from tests.pipeline.inputs import faults, plan, plan_units, rows_of, write
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
