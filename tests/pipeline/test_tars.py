import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import ledger
from pipeline.columns import ERROR
from pipeline.storage import Store
from pipeline.tars import has_pictures, picture_tar, tar_path
from tests.pipeline.inputs import read_all, write

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("index", pa.int64()),
        ("output_token_ids", pa.list_(pa.int32())),
        ("output_logprobs", pa.list_(pa.float32())),
        ("seed", pa.int64()),
        ("error", ERROR),
        ("scene", pa.list_(pa.string())),
        ("clip", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("caption_in", pa.string()),
        ("image", pa.binary()),
        ("image_format", pa.string()),
        ("image_index", pa.int32()),
        ("guidance_scale", pa.float64()),
        ("keep", pa.bool_()),
    ]
)
FAILED = {"stage": "generate", "type": "PromptTooLong", "message": "too long"}


def drawn(*rows: dict[str, Any]) -> pa.Table:
    """Result rows of a job that draws; a row that failed has no picture."""
    given = {"shard": "p.txt", "scene": ["red", "blue"], "clip": {"bytes": b"mp4"}, "guidance_scale": 3.0, "keep": None}
    tokens = {"output_token_ids": [1, 2], "output_logprobs": [-0.5, 0.0]}
    full = [
        {
            **given,
            **tokens,
            "key": f"k{place}",
            "index": place,
            "seed": 2**62 + place,
            "image_index": 0,
            "caption_in": f"Zürich.{place}\n",
            "image": b"picture %d" % place,
            "image_format": "png",
            **row,
        }
        for place, row in enumerate(rows)
    ]
    return pa.Table.from_pylist([{**row, "image": None} if row.get("error") else row for row in full], schema=SCHEMA)


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in files.items() if file}


def test_a_sample_is_the_picture_its_text_and_its_numbers() -> None:
    found = members(picture_tar(3, drawn({}, {"image_format": "jpeg", "guidance_scale": float("nan")})))
    assert list(found) == [
        *[f"00003-000000.{extension}" for extension in ("png", "txt", "json")],
        *[f"00003-000001.{extension}" for extension in ("jpg", "txt", "json")],
    ]
    assert found["00003-000000.png"] == b"picture 0" and found["00003-000001.jpg"] == b"picture 1"
    assert found["00003-000000.txt"].decode() == "Zürich.0\n"
    assert json.loads(found["00003-000000.json"]) == {
        "key": "k0",
        "shard": "p.txt",
        "index": 0,
        "seed": 2**62,
        "scene": ["red", "blue"],
        "image_index": 0,
        "guidance_scale": 3.0,
        "keep": None,
    }
    assert json.loads(found["00003-000001.json"])["guidance_scale"] is None


def test_rows_that_failed_or_were_dropped_are_left_out_and_the_others_keep_their_places() -> None:
    rows = drawn(
        {"error": FAILED}, {"keep": False}, {"keep": True}, {}, {"image": None}, {"keep": True, "error": FAILED}
    )
    places = {name.partition(".")[0] for name in members(picture_tar(0, rows))}
    assert places == {"00000-000002", "00000-000003"}
    without = drawn({}, {"error": FAILED}).drop_columns(["keep"])
    assert {name.partition(".")[0] for name in members(picture_tar(0, without))} == {"00000-000000"}


def test_a_part_without_a_picture_has_an_empty_tar() -> None:
    assert members(picture_tar(0, drawn({"error": FAILED}))) == {}
    assert members(picture_tar(0, drawn())) == {}


def test_equal_rows_give_equal_tars_however_they_were_put_together() -> None:
    whole = drawn({}, {}, {})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert picture_tar(1, whole) == picture_tar(1, pieces)
    with tarfile.open(fileobj=io.BytesIO(picture_tar(1, whole))) as archive:
        headers = {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in archive}
    assert headers == {(0, 0, 0, "", "", 0o644)}


def test_our_own_reader_gives_back_what_was_drawn(tmp_path: Path) -> None:
    parts = [drawn({}, {"error": FAILED}, {"image_index": 1}), drawn({"keep": False}, {"image_format": "webp"})]
    for number, rows in enumerate(parts):
        write(tmp_path / tar_path(number), picture_tar(number, rows))
    found = read_all(tmp_path / "_webdataset", unit_rows=2).to_pylist()
    assert [row["key"] for row in found] == ["00000-000000", "00000-000002", "00001-000001"]
    assert [row["images"] for row in found] == [[b"picture 0"], [b"picture 2"], [b"picture 1"]]
    assert [row["text"] for row in found] == ["Zürich.0\n", "Zürich.2\n", "Zürich.1\n"]
    assert [(row["input_key"], row["seed"], row["image_index"]) for row in found] == [
        ("k0", 2**62, 0),
        ("k2", 2**62 + 2, 1),
        ("k1", 2**62 + 1, 0),
    ]
    assert {tuple(row["scene"]) for row in found} == {("red", "blue")}
    assert all(row["error"] is None for row in found)


def test_values_that_json_has_no_word_for_become_texts_or_nothing() -> None:
    times = pa.array([0], pa.timestamp("s", tz="UTC"))
    rows = drawn({}).append_column("when", times).append_column("pairs", pa.array([[[1.0, float("inf")]]]))
    values = json.loads(members(picture_tar(0, rows))["00000-000000.json"])
    assert values["when"] == "1970-01-01 00:00:00+00:00" and values["pairs"] == [[1.0, None]]


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary(2), pa.list_(pa.binary()), pa.map_("string", "binary")])
def test_columns_that_hold_bytes_stay_in_the_part(kind: pa.DataType) -> None:
    rows = drawn({}).append_column("blob", pa.nulls(1, kind))
    assert "blob" not in json.loads(members(picture_tar(0, rows))["00000-000000.json"])


def test_whether_a_job_draws_is_seen_by_its_columns() -> None:
    assert has_pictures(SCHEMA)
    assert not has_pictures(pa.schema([("caption", pa.string())]))


def test_tars_are_no_strangers_and_go_with_the_run_that_left_them(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for path in (tar_path(0), ledger.SETTINGS):
        store.publish(path, b"{}")
    output = ledger.look(store)
    assert tar_path(0) in output.paths and not output.strangers
    ledger.clear(store, output)
    assert store.list() == []
