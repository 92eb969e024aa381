"""Conversations that people have in files are rows: turns, images in their places, the right answer, and a key."""

import base64
import gzip
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.formats.chats import EARLIER, MESSAGES
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, Unit, plan_input
from pipeline.storage.store import StorageError
from tests.end_to_end.shards import png
from tests.pipeline.inputs import faults, plan_units, rows_of, tar_bytes, write

IMAGE = {"type": "image"}


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def said(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [text(part) if isinstance(part, str) else part for part in parts]}


def talk(*turns: str, first: str = "human") -> list[dict[str, str]]:
    """LLaVA's turns, one after the other."""
    speakers = ("human", "gpt") if first == "human" else ("gpt", "human")
    return [{"from": speakers[place % 2], "value": turn} for place, turn in enumerate(turns)]


def turns_of(row: dict[str, Any]) -> Any:
    return json.loads(row[MESSAGES])


LLAVA = [
    {"id": "000001", "image": "a.png", "conversations": talk("<image>\nWhat is this?", "A cat.", "Sure?", "Yes.")},
    {"id": "000002", "conversations": talk("Say hello.", "Hello.")},
    {"id": "000003", "conversations": talk("What?\n<image>")},
    {"id": "000004", "image": "a.png", "conversations": [{"from": "system", "value": "x"}]},
    {"id": "000005", "image": "a.png", "conversations": talk("Hm?", "So.", first="gpt")},
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_the_last_turn_of_llavas_conversations_is_asked_after_those_before_it(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.png", png(1))
    path = write(tmp_path / name, jsonl(*LLAVA) if name.endswith("l") else json.dumps(LLAVA))
    rows = rows_of(path)
    assert [(row["key"], row["question"], row["answers"], row["images"]) for row in rows[:2]] == [
        ("000001", "Sure?", ["Yes."], [png(1)]),
        ("000002", "Say hello.", ["Hello."], []),
    ]
    assert turns_of(rows[0]) == [
        said("user", IMAGE, "What is this?"),
        said("assistant", "A cat."),
        said("user", "Sure?"),
    ]
    assert faults(rows) == [None, None, "NoImage", "WrongTurn", None]
    assert (rows[4]["question"], rows[4]["answers"]) == ("So.", None), "who speaks first says nothing of who is asked"
    assert [row["key"] for row in rows[2:4]] == ["000003", "000004"], "a row that cannot be asked keeps its name"
    assert json.loads(rows[0]["conversations"]) == LLAVA[0]["conversations"]
    read = ReadSettings(uri=str(path))
    assert duplicate_keys(plan_units(read, 3), read) == []
    assert "question" not in rows_of(path, columns={"answers": "id"})[0], "settings say what the answers are"


@pytest.mark.parametrize(("value", "parts"), [
    ("What?\n<image>", ["What?", IMAGE]),
    (" <image>\n<image>\n Which? ", [IMAGE, IMAGE, "Which? "]),
    ("A: <image>\nB: <image>\nWhich?", ["A: ", IMAGE, "\nB: ", IMAGE, "\nWhich?"]),
    ("<image>", [IMAGE]),
    ("\n<image>\n", [IMAGE]),
    (" two\nlines ", [" two\nlines "]),
])  # fmt: skip
def test_llavas_marks_are_images_in_their_places(tmp_path: Path, value: str, parts: list[Any]) -> None:
    row = {"image": ["a.png"] * value.count("<image>"), "conversations": talk(value)}
    write(tmp_path / "a.png", png(1))
    (found,) = rows_of(write(tmp_path / "a.jsonl", jsonl(row)))
    assert turns_of(found) == [said("user", *parts)]
    assert found["images"] == [png(1)] * value.count("<image>")


def test_chat_messages_are_asked_as_they_are(tmp_path: Path) -> None:
    address = "data:image/png;base64," + base64.b64encode(png(1)).decode()
    asked = [text("What"), {"type": "image_url", "image_url": {"url": address}}, text("is it?")]
    asked += [{"type": "input_image", "image_url": "b.png"}]
    body = {"model": "x", "messages": [{"role": "user", "content": asked}]}
    write(tmp_path / "b.png", png(2))
    history = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [text("This"), {"type": "image_url", "image_url": {"url": "b.png"}}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Red."}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}]},
    ]
    path = write(
        tmp_path / "batch.jsonl",
        jsonl(
            {"custom_id": "r-1", "method": "POST", "body": body},
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
            {"custom_id": "r-3", "body": {"messages": history}},
        ),
    )
    rows = rows_of(path)
    assert [(row["key"], row["question"], row["answers"]) for row in rows] == [
        ("r-1", "What\nis it?", None),
        ("batch.jsonl#1", "Hi", ["Ho"]),
        ("r-3", "", None),
    ]
    assert [row["images"] for row in rows] == [[png(1), png(2)], [], [png(2), png(1)]]
    assert turns_of(rows[0]) == [said("user", "What", IMAGE, "is it?", IMAGE)]
    assert turns_of(rows[2]) == [
        said("system", "Be brief."),
        said("user", "This", IMAGE),
        said("assistant", "Red."),
        said("user", IMAGE),
    ]
    assert len(rows[0]["body"]) < 500, "images stand in the row once"
    assert [row["image_path"] for row in rows] == [["b.png"], None, ["b.png"]]


@pytest.mark.parametrize(("messages", "fault"), [
    ([said("user", {"type": "input_audio"})], "WrongPart"),
    ([{"role": "user", "content": None}], "WrongPart"),
    ([{"role": "user", "content": []}], "WrongPart"),
    ([said("user", "Hi"), {"role": "tool", "content": "7"}], "WrongTurn"),
    ([said("user", "Hi"), said("assistant", "Ho"), said("assistant", "Ha")], "WrongTurn"),
    ([said("system", "Be brief.")], "WrongTurn"),
    ([said("user", "Hi"), said("system", "Now.")], "WrongTurn"),
    ([said("assistant", "Ho")], "WrongTurn"),
    ([said("user", "Draw."), said("assistant", {"type": "image", "image": "a.png"})], "WrongPart"),
    ([said("user", IMAGE, "Hm?")], "WrongImages"),
])  # fmt: skip
def test_messages_that_cannot_be_asked_say_why_and_keep_their_key(
    tmp_path: Path, messages: list[Any], fault: str
) -> None:
    well = {"custom_id": "r-1", "body": {"messages": [said("user", "Hi")]}}
    rows = rows_of(write(tmp_path / "a.jsonl", jsonl(well, {"custom_id": "r-2", "body": {"messages": messages}})))
    assert faults(rows) == [None, fault]
    assert [row["key"] for row in rows] == ["r-1", "r-2"]


@pytest.mark.parametrize(("parts", "images"), [
    ([IMAGE, "?", IMAGE], [1, 2]),
    ([{"type": "image", "index": 1}, {"type": "image", "index": 0, "text": None}], [2, 1]),
    ([IMAGE, {"type": "image", "image": "3.png"}, IMAGE], [1, 3, 2]),
    (["Which?"], [1, 2]),
    ([IMAGE], None),
    ([IMAGE, IMAGE, IMAGE], None),
])  # fmt: skip
def test_images_beside_messages_stand_where_their_parts_do(
    tmp_path: Path, parts: list[Any], images: list[int] | None
) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"{number}.png", png(number))
    row = {"messages": [said("user", *parts)], "images": ["1.png", "2.png"]}
    (found,) = rows_of(write(tmp_path / "a.jsonl", jsonl(row)))
    assert faults([found]) == ["WrongImages" if images is None else None]
    assert found["images"] == [png(number) for number in images or ()]


@pytest.mark.parametrize("images", [["a.png", "b.png"], []])
def test_marks_in_messages_are_places_of_images_that_stand_beside(tmp_path: Path, images: list[str]) -> None:
    for number, name in enumerate("ab"):
        write(tmp_path / f"{name}.png", png(number))
    messages = [{"role": "user", "content": "<image>What?"}, said("assistant", "It."), said("user", "And <image>?")]
    (row,) = rows_of(write(tmp_path / "a.jsonl", jsonl({"messages": messages, "images": images})))
    last = said("user", "And ", IMAGE, "?") if images else said("user", "And <image>?")
    first = said("user", IMAGE, "What?") if images else said("user", "<image>What?")
    assert turns_of(row) == [first, said("assistant", "It."), last]
    assert row["images"] == [png(number) for number, _ in enumerate(images)]


def test_a_system_message_beside_a_conversation_is_told_first(tmp_path: Path) -> None:
    own = [{"from": "system", "value": "Be kind."}, *talk("Hm?")]
    rows: list[dict[str, Any]] = [{"system": "Be brief.", "conversations": talk("Hm?")}]
    rows += [{"system": "Be brief.", "messages": [said("user", "Hm?")]}, {"system": "Be brief.", "conversations": own}]
    rows += [{"system": " ", "conversations": talk("Hm?")}]
    told = [turns_of(row)[0] for row in rows_of(write(tmp_path / "a.jsonl", jsonl(*rows)))]
    brief = said("system", "Be brief.")
    assert told == [brief, brief, said("system", "Be kind."), said("user", "Hm?")]


def test_lines_of_the_responses_endpoint_are_asked_too(tmp_path: Path) -> None:
    address = "data:image/png;base64," + base64.b64encode(png(1)).decode()
    parts = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": address}]
    bodies = [{"instructions": "Be brief.", "input": [{"role": "user", "content": parts}]}, {"input": "Hm?"}]
    lines = ({"custom_id": f"r-{n}", "url": "/v1/responses", "body": body} for n, body in enumerate(bodies))
    rows = rows_of(write(tmp_path / "a.jsonl", jsonl(*lines)))
    assert [turns_of(row) for row in rows] == [
        [said("system", "Be brief."), said("user", "What?", IMAGE)],
        [said("user", "Hm?")],
    ]
    assert [row["images"] for row in rows] == [[png(1)], []]


def test_questions_that_are_only_history_are_counted_aloud(tmp_path: Path) -> None:
    history = talk("A?", "a.", "B?", "b.", "C?")
    answered = {"conversations": [*history, {"from": "gpt", "value": "c."}]}
    for name, rows in (("a.jsonl", jsonl(answered, answered)), ("a.json", json.dumps([answered, answered]))):
        planned = plan_input(ReadSettings(uri=str(write(tmp_path / name, rows))), 3)
        assert planned.warnings == [f"passed over 4 {EARLIER} in 1 of 1 shards"]
        assert "the user's last turn is asked after all turns before it" in planned.notes[0]
    waiting = write(tmp_path / "b.jsonl", jsonl({"conversations": history}))
    assert plan_input(ReadSettings(uri=str(waiting)), 3).warnings == []


def hub_rows() -> list[dict[str, Any]]:
    """Rows as hubs have them in Parquet: structs with all names, and the images' bytes beside."""
    address = "data:image/png;base64," + base64.b64encode(png(3)).decode()

    def part(**told: Any) -> dict[str, Any]:
        return {"type": "text", "text": None, "index": None, "image_url": None, **told}

    asked = [part(type="image", index=0), part(text="What?"), part(type="image_url", image_url={"url": address})]
    turns = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": [part(text="It.")]},
        {"role": "user", "content": [part(text="Sure?")]},
    ]
    answered = [*turns, {"role": "assistant", "content": [part(text="Yes.")]}]
    images = [{"bytes": png(1), "path": None}]
    rows = [{"id": 7, "messages": turns}, {"id": 8, "messages": answered}, {"id": 9, "messages": answered[1:2]}]
    return [{**row, "images": images} for row in rows]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_conversations_in_columns_are_those_of_json(tmp_path: Path, name: str) -> None:
    path = table_at(tmp_path / name, hub_rows())
    rows = rows_of(path, 2)
    assert [(row["key"], row["question"], row["answers"]) for row in rows] == [
        ("7", "Sure?", None),
        ("8", "Sure?", ["Yes."]),
        ("9", None, None),
    ]
    assert [row["images"] for row in rows] == [[png(1), png(3)], [png(1), png(3)], []]
    assert faults(rows) == [None, None, "WrongTurn"]
    assert turns_of(rows[0]) == [said("user", IMAGE, "What?", IMAGE), said("assistant", "It."), said("user", "Sure?")]
    assert rows[0]["messages"][2]["content"][0]["text"] == "Sure?", "the column stays what it is"
    assert len(str(rows[0]["messages"])) < 1000 and "input_images" not in rows[0], "images stand in the row once"
    assert rows[0]["image_path"] is None, "bytes have no name"
    read = ReadSettings(uri=str(path))
    assert "chat messages: the user's last turn is asked" in plan_input(read, 2).notes[0]
    assert duplicate_keys(plan_units(read, 2), read) == []
    twice = ReadSettings(uri=str(table_at(tmp_path / f"b{path.suffix}", hub_rows() + hub_rows())))
    assert duplicate_keys(plan_units(twice, 2), twice) == ["7", "8", "9"]


def table_at(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    with pa.ipc.new_file(path, table.schema) as sink:
        sink.write_table(table)
    return path


def test_llavas_conversations_in_columns_and_images_that_settings_name(tmp_path: Path) -> None:
    picture = {"bytes": png(1), "path": None}
    rows = [{"id": "a", "image": picture, "conversations": talk("<image>\nWhat?", "It."), "note": 1}]
    rows += [{"id": "b", "image": None, "conversations": talk("Hm?"), "note": 2}]
    found = rows_of(table_at(tmp_path / "a.parquet", rows))
    assert [(row["key"], row["question"], row["answers"], row["images"], row["note"]) for row in found] == [
        ("a", "What?", ["It."], [png(1)], 1),
        ("b", "Hm?", None, [], 2),
    ]
    renamed = [{**row, "photo": row["image"], "key": row["id"] * 2} for row in rows]
    for row in renamed:
        row.pop("image")
    for path in (table_at(tmp_path / "b.parquet", renamed), table_at(tmp_path / "b.arrow", renamed)):
        found = rows_of(path, columns={"image": "photo"})
        assert [(row["images"], row["key"], "photo" in row) for row in found] == [
            ([png(1)], "aa", False),
            ([], "bb", False),
        ]
    own = [{**row, "question": "Mine?"} for row in rows]
    (first, _) = rows_of(table_at(tmp_path / "c.parquet", own))
    assert first["question"] == "Mine?" and MESSAGES not in first


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_conversations_of_an_archives_members_have_their_images(tmp_path: Path, name: str) -> None:
    history = {"id": "x", "image": "train/7.jpg", "conversations": talk("<image>\nWhat?", "It.", "Sure?", "Yes.")}
    parts = [{"type": "image"}, text("or"), {"type": "image"}]
    members = {
        "0.png": png(0),
        "0.json": json.dumps(history).encode(),
        "1.0.png": png(1),
        "1.1.png": png(2),
        "1.json": json.dumps({"messages": [said("user", *parts)]}).encode(),
        "2.json": json.dumps({"conversations": talk("Hm?")}).encode(),
        "3.json": json.dumps({"conversations": talk("<image>?")}).encode(),
        "4.png": png(4),
        "4.json": json.dumps({"messages": [said("tool", "7")]}).encode(),
    }
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
    else:
        plain = tar_bytes(list(members.items()))
        write(tmp_path / name, gzip.compress(plain) if name.endswith("gz") else plain)
    rows = rows_of(tmp_path / name, 2)
    assert faults(rows) == [None, None, None, "NoImage", "WrongTurn"]
    assert [row["key"] for row in rows] == ["0", "1", "2", "3", "4"], "members name their rows, and no field does"
    assert [(row["question"], row["answers"], len(row["images"])) for row in rows[:3]] == [
        ("Sure?", ["Yes."], 1),
        ("or", None, 2),
        ("Hm?", None, 0),
    ]
    assert turns_of(rows[0])[0] == said("user", IMAGE, "What?")
    assert turns_of(rows[1]) == [said("user", IMAGE, "or", IMAGE)]
    planned = plan_input(ReadSettings(uri=str(tmp_path / name)), 2)
    assert f"passed over 1 {EARLIER} in 1 of 1 shards" in planned.warnings
    unread = plan_input(ReadSettings(uri=str(tmp_path / name)), 9, reads=())
    assert faults(read_unit(unread.units[0], ReadSettings(uri=str(tmp_path / name))).to_pylist()) == [None] * 5


def test_answers_that_stand_beside_a_conversation_stay(tmp_path: Path) -> None:
    row = {"messages": [said("user", "Hi")], "answers": ["Ho", "Hey"]}
    for path in (write(tmp_path / "a.jsonl", jsonl(row)), table_at(tmp_path / "a.parquet", [row])):
        assert [one["answers"] for one in rows_of(path)] == [["Ho", "Hey"]]


def test_rows_with_a_question_of_their_own_are_no_conversations(tmp_path: Path) -> None:
    row = {"question": "Mine", "answers": ["x"], "messages": [{"role": "user", "content": "Hi"}]}
    (own,) = rows_of(write(tmp_path / "a.jsonl", jsonl(row)))
    assert own["question"] == "Mine" and MESSAGES not in own
    (row,) = rows_of(write(tmp_path / "b.jsonl", jsonl({"messages": [{"role": "user", "content": "Hi"}]})), 1)
    assert row["question"] == "Hi"
    (row,) = rows_of(write(tmp_path / "c.jsonl", jsonl({"question": "Hm?", MESSAGES: "mine"})))
    assert row[f"input_{MESSAGES}"] == "mine", "no input brings turns of its own making"


def test_a_conversation_costs_its_row_only_where_the_job_asks_it(tmp_path: Path) -> None:
    write(tmp_path / "a.png", png(1))
    well = {"image": "a.png", "messages": [said("user", "Hi")]}
    path = write(tmp_path / "a.jsonl", jsonl(well, {"image": "a.png", "messages": [said("tool", "7")]}))
    read = ReadSettings(uri=str(path))
    for reads, expected in ((("question", "answers"), "WrongTurn"), ((), None)):
        (unit,) = plan_input(read, 9, reads=reads).units
        rows = read_unit(unit, read).to_pylist()
        assert faults(rows) == [None, expected]
        assert rows[0]["images"] == [png(1)] and (rows[1]["images"] == [png(1)]) == (expected is None)


def test_ids_that_stand_twice_can_be_left_for_places(tmp_path: Path) -> None:
    row = {"id": "7", "conversations": talk("Hm?")}
    path = write(tmp_path / "a.json", json.dumps([row, row]))
    read = ReadSettings(uri=str(path))
    assert duplicate_keys(plan_units(read, 3), read) == ["7"]
    placed = ReadSettings.model_validate({"uri": str(path), "columns": {"key": "#"}})
    assert duplicate_keys(plan_units(placed, 3), placed) == []
    assert [(row["key"], row["id"]) for row in rows_of(path, columns={"key": "#"})] == [
        ("a.json#0", "7"),
        ("a.json#1", "7"),
    ]


def as_planned_before(unit: Unit) -> Unit:
    """The unit as a version would have planned it that asked single turns."""
    schema = unit.table_schema
    older = pa.schema([field for field in schema if field.name != MESSAGES])
    return replace(unit, schema=older.serialize().to_pybytes())


def test_conversations_planned_by_a_version_that_asked_otherwise_are_refused(tmp_path: Path) -> None:
    read = ReadSettings(uri=str(write(tmp_path / "a.jsonl", jsonl({"conversations": talk("Hm?")}))))
    (unit,) = plan_input(read, 3).units
    with pytest.raises(StorageError, match=r"a\.jsonl: planned by an older version, which asked one turn"):
        read_unit(as_planned_before(unit), read)
