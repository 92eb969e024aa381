import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from pipeline.rows import IMAGES, with_unit
from pipeline.state import ledger
from pipeline.steps.tars import has_pictures, part_tar, tar_path
from pipeline.steps.write import Part, Parts, commit_unit, merge_part, parquet_bytes, plan_parts
from pipeline.storage.store import Store
from tests.end_to_end.shards import png
from tests.pictures import plain
from tests.pipeline.inputs import read_all, write
from tests.pipeline.toys import part_columns, units_of

SCHEMA = pa.schema(
    [
        *part_columns("key", "shard", "index", "output_token_ids", "output_logprobs", "seed", "error"),
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
JPEG = plain("red", (8, 8), "JPEG")
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


def tar_of(number: int, rows: pa.Table) -> bytes:
    return part_tar(number, rows, "caption_in")


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in files.items() if file}


def test_a_sample_is_the_picture_its_text_and_its_numbers() -> None:
    found = members(tar_of(3, drawn({}, {"image_format": "jpeg", "guidance_scale": float("nan")})))
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
    places = {name.partition(".")[0] for name in members(tar_of(0, rows))}
    assert places == {"00000-000002", "00000-000003"}
    without = drawn({}, {"error": FAILED}).drop_columns(["keep"])
    assert {name.partition(".")[0] for name in members(tar_of(0, without))} == {"00000-000000"}


def test_a_part_without_a_picture_has_an_empty_tar() -> None:
    assert members(tar_of(0, drawn({"error": FAILED}))) == {}
    assert members(tar_of(0, drawn())) == {}


def test_equal_rows_give_equal_tars_however_they_were_put_together() -> None:
    whole = drawn({}, {}, {})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert tar_of(1, whole) == tar_of(1, pieces)
    with tarfile.open(fileobj=io.BytesIO(tar_of(1, whole))) as archive:
        headers = {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in archive}
    assert headers == {(0, 0, 0, "", "", 0o644)}


def test_our_own_reader_gives_back_what_was_drawn(tmp_path: Path) -> None:
    parts = [drawn({}, {"error": FAILED}, {"image_index": 1}), drawn({"keep": False}, {"image_format": "webp"})]
    for number, rows in enumerate(parts):
        write(tmp_path / tar_path(number), tar_of(number, rows))
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
    values = json.loads(members(tar_of(0, rows))["00000-000000.json"])
    assert values["when"] == "1970-01-01 00:00:00+00:00" and values["pairs"] == [[1.0, None]]


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary(2), pa.list_(pa.binary()), pa.map_("string", "binary")])
def test_columns_that_hold_bytes_stay_in_the_part(kind: pa.DataType) -> None:
    rows = drawn({}).append_column("blob", pa.nulls(1, kind))
    assert "blob" not in json.loads(members(tar_of(0, rows))["00000-000000.json"])


CAPTIONED = pa.schema(
    [
        *part_columns("key", "shard", "index", "output_token_ids", "error", "prompt_tokens", "output_tokens"),
        ("keep", pa.bool_()),
        ("image_format", pa.string()),
        ("caption", pa.string()),
    ]
)


def captioned(*rows: dict[str, Any]) -> pa.Table:
    """Result rows of a job that captions, with the images that were read."""
    full = [
        {
            "key": f"k{place}",
            "shard": "a.tar",
            "index": place,
            "caption": f"a cat\n{place}",
            "keep": False,
            "image_format": "unknown",
            IMAGES.name: [png(place)],
            **row,
        }
        for place, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(full, schema=CAPTIONED.append(IMAGES))


def test_a_sample_of_a_row_that_was_read_is_its_image_its_caption_and_its_columns() -> None:
    rows = captioned({}, {"error": FAILED, "caption": None}, {IMAGES.name: []}, {IMAGES.name: [png(1), JPEG]})
    found = members(part_tar(2, rows, "caption"))
    assert list(found) == [
        *[f"00002-000000.{extension}" for extension in ("png", "txt", "json")],
        *[f"00002-000002.{extension}" for extension in ("txt", "json")],
        *[f"00002-000003.{extension}" for extension in ("0.png", "1.jpg", "txt", "json")],
    ]
    assert found["00002-000000.png"] == png(0) and found["00002-000000.txt"] == b"a cat\n0"
    assert json.loads(found["00002-000000.json"]) == {
        **{"key": "k0", "shard": "a.tar", "index": 0, "prompt_tokens": None, "output_tokens": None},
        **{"keep": False, "image_format": "unknown"},
    }, "columns of the input mean nothing here"


@pytest.mark.parametrize(
    ("kind", "extension"),
    [
        *[("JPEG", "jpg"), ("PNG", "png"), ("GIF", "gif"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")],
        *[("AVIF", "avif"), ("PPM", "ppm"), ("JPEG2000", "jp2"), ("ICO", "ico")],
    ],
)
def test_an_image_is_called_by_what_it_is(kind: str, extension: str) -> None:
    rows = captioned({IMAGES.name: [plain("red", (32, 32), kind)]})
    assert next(iter(members(part_tar(0, rows, "caption")))) == f"00000-000000.{extension}"


def test_a_tar_gives_its_images_to_rows_that_were_not_read_again() -> None:
    whole = captioned({}, {IMAGES.name: [png(1), JPEG]}, {}, {IMAGES.name: []})
    before = part_tar(0, captioned({}, {IMAGES.name: [png(1), JPEG]}, {"error": FAILED}, {IMAGES.name: []}), "caption")
    again = captioned({IMAGES.name: None}, {IMAGES.name: None}, {}, {IMAGES.name: None})
    assert part_tar(0, again, "caption", before) == part_tar(0, whole, "caption")


def test_units_hold_the_images_and_parts_do_not(store: Store) -> None:
    for number in (0, 1):
        rows = captioned(*({"index": number * 2 + row} for row in (0, 1)))
        commit_unit(with_unit(rows, UNITS[number].name, 2), store)
    (part,) = plan_parts(UNITS[:2], 9, tar_text="caption")
    merge_part(store, part, CAPTIONED)
    assert pq.read_table(store.uri).column_names == CAPTIONED.names
    whole = pa.concat_tables(captioned({}, {}).slice(0) for _ in range(2)).drop_columns(["index"])
    assert len(members(store.read(tar_path(0)))) == 3 * whole.num_rows
    assert [entry.path for entry in store.list()] == [tar_path(0), part.path], "no unit is left"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves the file to the collector
def test_the_package_webdataset_reads_what_was_captioned(tmp_path: Path) -> None:
    rows = captioned({}, {"error": FAILED, "caption": None}, {IMAGES.name: [png(1), JPEG]})
    path = write(tmp_path / "a.tar", part_tar(0, rows, "caption"))
    one, several = list(webdataset.WebDataset(str(path), shardshuffle=False).decode("pil"))
    assert (one["__key__"], one["txt"], one["json"]["key"]) == ("00000-000000", "a cat\n0", "k0")
    assert one["png"].size == (20, 30)
    assert {name for name in several if "." in name} == {"0.png", "1.jpg"}
    mine = read_all(path).to_pylist()
    assert [(row["text"], row["images"]) for row in mine] == [("a cat\n0", [png(0)]), ("a cat\n2", [png(1), JPEG])]


def test_whether_a_job_draws_is_seen_by_its_columns() -> None:
    assert has_pictures(SCHEMA)
    assert not has_pictures(pa.schema([("caption", pa.string())]))


def test_tars_are_no_strangers_and_go_with_the_run_that_left_them(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for path in (tar_path(0), ledger.SETTINGS):
        store.publish(path, b"{}")
    output = ledger.read_output(store)
    assert tar_path(0) in output.paths and not output.strangers
    ledger.clear(store, output)
    assert store.list() == []


UNITS = units_of(6, 2)
COUNTS = (pa.field("prompt_tokens", pa.int32()), pa.field("output_tokens", pa.int32()))
COUNTED = pa.schema([*SCHEMA, *COUNTS])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def commit(store: Store, *units: int) -> None:
    """Commit units of two rows with two pictures each; the first row of unit 1 has failed."""
    for unit in units:
        rows = [{"index": unit * 2 + row, "image_index": image} for row in (0, 1) for image in (0, 1)]
        table = drawn(*([{**rows[0], "error": FAILED}, *rows[2:]] if unit == 1 else rows))
        for field in COUNTS:
            table = table.append_column(field, pa.array([1] * table.num_rows, field.type))
        commit_unit(with_unit(table, UNITS[unit].name, UNITS[unit].num_rows), store)


def test_a_part_has_its_tar_beside_it(store: Store) -> None:
    merged = Parts(store, plan_parts(UNITS, 4, tar_text="caption_in"), [], COUNTED)
    with merged:
        for unit in (0, 1, 2):
            commit(store, unit)
            merged.add(UNITS[unit].name)
    assert [entry.path for entry in store.list()] == [
        *["_webdataset/part-00000.tar", "_webdataset/part-00001.tar", "part-00000.parquet", "part-00001.parquet"]
    ]
    in_tars = [name for number in (0, 1) for name in members(store.read(tar_path(number))) if name.endswith("png")]
    assert len(set(in_tars)) == len(in_tars) == 10
    assert pq.read_table(store.uri).num_rows == 11, "a plain read sees parts only"


def test_the_tar_stands_there_before_its_part_does(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store, 0)
    publish, order = Store.publish, []

    def noted(self: Store, path: str, data: bytes) -> bool:
        order.append(path)
        return publish(self, path, data)

    monkeypatch.setattr(Store, "publish", noted)
    merge_part(store, Part(0, tuple(UNITS[:1]), "caption_in"), COUNTED)
    assert order == ["_webdataset/part-00000.tar", "part-00000.parquet"]


def test_a_tar_whose_part_a_crash_kept_away_is_what_it_would_be_again(store: Store) -> None:
    commit(store, 0, 1)
    part = Part(0, tuple(UNITS[:2]), "caption_in")
    merge_part(store, part, COUNTED)
    before = store.read(tar_path(0))
    store.delete([part.path])
    commit(store, 0, 1)
    store.delete([tar_path(0)])
    merge_part(store, part, COUNTED)
    assert store.read(tar_path(0)) == before


def test_a_run_that_did_not_ask_for_tars_has_none(store: Store) -> None:
    commit(store, 0)
    (part, *_) = plan_parts(UNITS, 2)
    merge_part(store, part, COUNTED)
    assert [entry.path for entry in store.list()] == [part.path]


def test_large_pictures_stand_in_small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(*[{"image": b"x" * 100} for _ in range(10)])
    monkeypatch.setattr("pipeline.steps.write.ROW_GROUP_BYTES", 300)
    written = pq.ParquetFile(io.BytesIO(parquet_bytes(rows)))
    assert [written.metadata.row_group(group).num_rows for group in range(written.num_row_groups)] == [3, 3, 3, 1]
    assert written.read().equals(rows)
    monkeypatch.setattr("pipeline.steps.write.ROW_GROUP_BYTES", 1)
    assert pq.ParquetFile(io.BytesIO(parquet_bytes(rows))).num_row_groups == 10
    for few in (rows.slice(0, 0), drawn({"error": FAILED})):
        assert pq.read_table(io.BytesIO(parquet_bytes(few))).equals(few)
