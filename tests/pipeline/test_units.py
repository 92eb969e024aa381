import itertools
import json
import logging
import os
import tarfile
import time
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.formats.rows import ReadError
from pipeline.input.read import read_unit
from pipeline.input.unit_files import units_from_parquet, units_to_parquet, warnings_from_parquet
from pipeline.input.units import ReadSettings, Unit, plan_input
from pipeline.storage.store import StorageError, Store
from tests.pipeline.inputs import faults, plan_units, rows_as_members, rows_of, tar_bytes, write


def plan(uri: Path | str, unit_rows: int = 3, **settings: object) -> list[Unit]:
    return plan_units(ReadSettings.model_validate({"uri": str(uri), **settings}), unit_rows)


def shard(count: int, first: int = 0) -> bytes:
    rows = [{"key": f"{first + n:04d}", "jpg": b"image %d" % n, "txt": b"text"} for n in range(count)]
    return tar_bytes(rows_as_members(rows))


def test_units_never_cross_a_shard_and_are_numbered_through(tmp_path: Path) -> None:
    write(tmp_path / "b.tar", shard(2))
    write(tmp_path / "a.tar", shard(5))
    units = plan(tmp_path)
    assert [(unit.name, unit.shard, unit.start, unit.stop) for unit in units] == [
        ("00000000", "a.tar", 0, 3),
        ("00000001", "a.tar", 3, 5),
        ("00000002", "b.tar", 0, 2),
    ]


def test_a_plan_is_the_same_every_time_and_survives_being_written_down(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", shard(5))
    write(tmp_path / "photos/1.jpg", b"x")
    for folder in (tmp_path / "a.tar", tmp_path / "photos"):
        units = plan(folder)
        assert units_to_parquet(units) == units_to_parquet(plan(folder))
        assert units_from_parquet(units_to_parquet(units)) == units


def test_what_a_plan_warned_of_is_written_down_with_it(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", shard(5))
    units = plan(tmp_path)
    data = units_to_parquet(units, ["a.tar: café"])
    assert (units_from_parquet(data), warnings_from_parquet(data)) == (units, ["a.tar: café"])
    assert warnings_from_parquet(units_to_parquet(units)) == []


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 6, 100])
def test_a_limit_counts_rows_from_the_start(tmp_path: Path, limit: int) -> None:
    write(tmp_path / "a.tar", shard(4))
    write(tmp_path / "b.tar", shard(3, first=4))
    keys = [row["key"] for row in rows_of(tmp_path, limit=limit)]
    assert keys == [f"{n:04d}" for n in range(min(limit, 7))]


def test_a_limit_spares_looking_at_later_shards(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", shard(4))
    write(tmp_path / "b.tar", b"not a tar" * 1000)
    assert len(plan(tmp_path, limit=4)) == 2
    write(tmp_path / "a.tar", shard(2))
    write(tmp_path / "aa.tar", shard(2))
    assert len(plan(tmp_path, limit=4)) == 2, "the broken shard was probe at beside the second one, for nothing"
    with pytest.raises(ReadError, match=r"b\.tar"):
        plan(tmp_path, limit=5)


def test_a_limit_makes_looking_at_many_shards_no_slower(tmp_path: Path) -> None:
    for number in range(6000):
        (tmp_path / f"{number:05d}.txt").write_text("one\ntwo\n")

    def cpu_seconds(**settings: int) -> float:
        began = time.process_time()
        assert len(plan(tmp_path, **settings)) == 6000
        return time.process_time() - began

    assert cpu_seconds(limit=11_999) < 2.5 * cpu_seconds()


def test_units_of_large_rows_are_cut_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.input.formats.rows.LIMIT_BYTES", 5100)
    write(tmp_path / "a.tar", tar_bytes([(f"{n}.jpg", bytes([n + 1]) * 2000) for n in range(5)]))
    units = plan(tmp_path, unit_rows=100)
    assert [unit.num_rows for unit in units] == [2, 2, 1]
    assert len(rows_of(tmp_path, unit_rows=100)) == 5


def test_units_of_large_image_files_are_cut_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.input.formats.rows.LIMIT_BYTES", 5100)
    for number, size in enumerate([2000, 2000, 2000, 9000, 1, 1]):
        write(tmp_path / f"{number}.jpg", bytes(size))
    assert [unit.num_rows for unit in plan(tmp_path, unit_rows=100)] == [2, 1, 1, 2]
    assert [row["index"] for row in rows_of(tmp_path, unit_rows=100)] == [0] * 6


def test_a_file_a_folder_and_a_glob_find_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path / "x/a.tar", shard(2))
    found = {name: rows_of(tmp_path / name) for name in ("x/a.tar", "x", "x/*.tar")}
    assert found["x/a.tar"] == found["x"] == found["x/*.tar"]
    assert [row["shard"] for row in found["x"]] == ["a.tar", "a.tar"]
    assert {row["shard"] for row in rows_of(tmp_path)} == {"x/a.tar"}


def test_a_folder_with_glob_characters_in_its_name_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "photos [2024]/a.tar", shard(2))
    assert len(rows_of(tmp_path / "photos [2024]")) == 2


def test_hidden_files_and_other_files_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", shard(1))
    for name in ("_SUCCESS", ".DS_Store", "._a.tar", "_triptych/b.tar", "README.md"):
        write(tmp_path / name, b"nothing of ours")
    planned = plan_input(ReadSettings(uri=str(tmp_path)), 3)
    assert [unit.shard for unit in planned.units] == ["a.tar"]
    listed = "2 hidden, 1 with .md, 1 with .tar, 1 with no extension"
    assert planned.warnings == [f"passed over 5 files at {tmp_path}: {listed}"]


def test_texts_beside_other_data_are_no_rows_unless_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "a caption\n")
    assert [unit.shard for unit in plan(tmp_path)] == ["a.txt"]
    write(tmp_path / "a.png", b"x")
    assert [unit.paths for unit in plan(tmp_path)] == [("a.png",)]
    assert [unit.shard for unit in plan(tmp_path, format="text")] == ["a.txt"]
    assert [unit.shard for unit in plan(tmp_path / "*.txt")] == ["a.txt"]


def test_a_line_that_no_memory_should_hold_stops_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.input.formats.cells.LIMIT_BYTES", 100)
    monkeypatch.setattr("pipeline.input.formats.cells.CHUNK_BYTES", 64)
    write(tmp_path / "a.txt", "short\n" + "x" * 300)
    with pytest.raises(ReadError, match=r"a\.txt as text: found a line of more than 100 bytes"):
        plan(tmp_path)


def test_photographs_may_begin_with_an_underscore(tmp_path: Path) -> None:
    write(tmp_path / "_MG_1.JPG", b"x")
    assert [row["key"] for row in rows_of(tmp_path)] == ["_MG_1.JPG"]


@pytest.mark.parametrize(
    ("files", "uri", "message"),
    [
        ({}, "absent", "found no files at .*absent"),
        ({}, "absent/*.tar", r"found no files at .*absent/\*.tar"),
        ({"a.tar": b"", "b.csv": b"a\n1\n"}, "", "several formats .*1 with .csv, 1 with .tar; set read.format"),
        (
            {"a.parquet.gz": b"", "notes": b""},
            "",
            r"cannot tell the format .*1 with .gz, 1 with no extension.*expected .tar",
        ),
        ({"a.tar.gz": b""}, "", "found no rows in the 1 shards of .*a.tar.gz: has no bytes"),
        ({"a.tar": b""}, "", "found no rows in the 1 shards of .*a.tar: has no bytes"),
        ({"a.parquet": b""}, "", "cannot read .*a.parquet.*0 bytes"),
        ({"a.parquet": b"PAR1 but not really PAR1"}, "", "cannot read .*a.parquet"),
        ({"a.tar": b"<html>not a tar</html>" * 100}, "", "cannot read .*a.tar as webdataset: no tar header at byte 0"),
        ({"a.csv": b"a,a\n1,2\n"}, "", "cannot read .*a.csv as csv: the header names 'a' more than once"),
        ({"a.csv": b'a\n"' + b"x" * 200_000}, "", "a.csv as csv: a quote that opens in the row from byte 2"),
        ({"a.jsonl": b"\n\n"}, "", "found no rows"),
        ({"a.txt": b"\xef\xbb\xbf\r\n  \n"}, "", "found no rows"),
        ({"a.txt": "a\nb".encode("utf-16")}, "", "cannot read .*a.txt as text: found UTF-16 .*expected UTF-8"),
        (
            {"a.csv": b"a\n1\n", "a.txt": b"", "a.jsonl": b""},
            "",
            "several formats .*1 with .csv, 1 with .jsonl, 1 with",
        ),
    ],
)
def test_an_input_that_is_not_one_says_what_was_found(
    tmp_path: Path, files: dict[str, bytes], uri: str, message: str
) -> None:
    for name, data in files.items():
        write(tmp_path / name, data)
    with pytest.raises(StorageError, match=message):
        plan(tmp_path / uri)


def test_an_explicit_format_that_matches_nothing_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "a\n1\n")
    with pytest.raises(ReadError, match=r"no files for format 'parquet' at .*found 1 with \.csv"):
        plan(tmp_path, format="parquet")


def test_an_explicit_format_reads_a_file_of_any_name(tmp_path: Path) -> None:
    write(tmp_path / "rows.txt", '{"text": "a"}\n')
    assert rows_of(tmp_path / "rows.txt", format="jsonl")[0]["text"] == "a"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_column_that_was_named_must_exist(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.jsonl", '{"picture": "x.jpg", "n": 1}\n')
    write(tmp_path / "a.csv", "picture,n\nx.jpg,1\n")
    pq.write_table(pa.table({"picture": ["x.jpg"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ReadError, match=r"read\.columns\.image names 'photo', but the columns are: picture, n"):
        plan(tmp_path / name, columns={"image": "photo"})


def test_columns_of_tars_and_folders_that_cannot_be_named_say_so(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", shard(1))
    write(tmp_path / "1.jpg", b"x")
    with pytest.raises(ReadError, match="names extension 'png'; found jpg"):
        plan(tmp_path / "a.tar", columns={"image": "png"})
    with pytest.raises(ReadError, match="a tar's keys are its members' base names"):
        plan(tmp_path / "a.tar", columns={"key": "id"})
    with pytest.raises(ReadError, match="a folder of images has no columns"):
        plan(tmp_path / "1.jpg", columns={"text": "caption"})


def test_a_named_column_must_be_in_every_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": ["x.jpg"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ReadError, match=r"b\.parquet: has no column 'picture', which other shards have"):
        plan(tmp_path, columns={"image": "picture"})


def test_a_column_of_the_wrong_type_stops_the_plan(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(ReadError, match="image column 'image' holds int64, expected bytes"):
        plan(tmp_path)
    pq.write_table(pa.table({"question": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(ReadError, match="column 'question' holds int64, expected string"):
        plan(tmp_path)


@pytest.mark.parametrize("cut", [1, 600, 1500, 2100])
def test_a_cut_off_tar_is_planned_to_its_last_whole_member(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tar_bytes([(f"{n}.jpg", bytes([n + 1]) * 700) for n in range(6)])
    end = 6 * (512 + 1024)
    write(tmp_path / "a.tar", whole[: end - cut])
    with caplog.at_level(logging.WARNING):
        rows = rows_of(tmp_path)
    lost = (cut + 1536 - 325) // 1536  # of a member's last 1,024 bytes 324 are padding
    assert [row["images"][0] for row in rows] == [bytes([n + 1]) * 700 for n in range(6 - lost)]
    assert ("cut off within" in caplog.text) == (lost > 0)


def test_a_broken_header_within_a_tar_ends_its_rows_with_a_warning(tmp_path: Path) -> None:
    data = bytearray(shard(3))
    data[4 * 1024] ^= 0xFF
    write(tmp_path / "a.tar", bytes(data))
    planned = plan_input(ReadSettings(uri=str(tmp_path)), 3)
    assert [unit.num_rows for unit in planned.units] == [2]
    assert len(planned.warnings) == 1
    assert "a.tar: no tar header at byte 4096: found" in planned.warnings[0]
    assert planned.warnings[0].endswith("; found 2 rows before that")


def test_an_empty_tar_among_others_is_no_trouble(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", tar_bytes([]))
    write(tmp_path / "b.tar", shard(2))
    assert [unit.shard for unit in plan(tmp_path)] == ["b.tar"]


def test_tars_glued_together_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", shard(2) + shard(2))
    planned = plan_input(ReadSettings(uri=str(tmp_path)), 3)
    assert len(planned.units) == 1
    assert "more bytes after the end-of-archive mark" in planned.warnings[0]


def test_folders_and_devices_are_never_rows_and_links_lead_nowhere_else(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("dir.jpg", tarfile.DIRTYPE), ("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0
            archive.addfile(info)
        device = tarfile.TarInfo("c.jpg")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
        archive.add(write(tmp_path / "real", b"image"), "real.jpg")
    rows = rows_of(tmp_path / "a.tar")
    assert [row["key"] for row in rows] == ["a", "b", "real"]
    assert faults(rows) == ["NoTarget", "NoTarget", None] and rows[0]["images"] == rows[1]["images"] == []


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**21
    write(tmp_path / "a.tar", info.tobuf() + bytes(2**21 + 1024))
    with pytest.raises(ReadError, match="extended header at byte 512 has 2097152 bytes, at most 1048576"):
        plan(tmp_path)
    negative = bytearray(tarfile.TarInfo("x.jpg").tobuf())
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (sum(negative[:148]) + 8 * 32 + sum(negative[156:]))
    write(tmp_path / "a.tar", bytes(negative) + bytes(1024))
    with pytest.raises(ReadError, match="negative size"):
        plan(tmp_path)


def test_planning_looks_at_a_remote_shard_as_at_a_local_one(tmp_path: Path) -> None:
    remote = Store(f"memory://{uuid.uuid4().hex}")
    for name in ("a.tar", "deep/b.tar"):
        remote.publish(name, shard(4))
        write(tmp_path / name, shard(4))
    for pattern in ("", "/*.tar", "/a.tar", "/deep"):
        assert rows_of(remote.uri + pattern) == rows_of(f"{tmp_path}{pattern}")


def test_every_unit_has_the_same_columns_whatever_its_rows_hold(tmp_path: Path) -> None:
    lines = [{"a": None}, {"a": 1, "b": "x"}, {"a": 2.5, "c": [1, "x"]}, {"d": True}, {"d": "yes"}]
    write(tmp_path / "1.jsonl", "\n".join(map(json.dumps, lines[:3])))
    write(tmp_path / "2.jsonl", "\n".join(map(json.dumps, lines[3:])))
    settings = ReadSettings(uri=str(tmp_path))
    units = plan_units(settings, 1)
    schema = units[0].table_schema
    assert all(read_unit(unit, settings).schema == schema for unit in units)
    assert {name: str(schema.field(name).type) for name in "abcd"} == {
        "a": "double",
        "b": "string",
        "c": "string",
        "d": "string",
    }


def test_reading_a_unit_reads_about_its_own_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", shard(50))
    units = plan(tmp_path, unit_rows=10)
    assert sum(unit.end_byte - unit.first_byte for unit in units) <= 50 * 4 * 512
    assert all(before.end_byte <= after.first_byte for before, after in itertools.pairwise(units))


def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    with pytest.raises(ReadError, match="is not UTF-8; rename the file"):
        plan(tmp_path)


@pytest.mark.parametrize("what", ["//x.txt", "//*.txt", "//"])
def test_shards_whose_keys_have_two_slashes_are_read_as_they_are(what: str) -> None:
    bucket = Store(f"memory://{uuid.uuid4().hex}")
    bucket.replace("a/x.txt", b"one")
    bucket.replace("a//x.txt", b"two")
    settings = ReadSettings(uri=f"{bucket.uri}/a{what}")
    (unit,) = plan_input(settings, 4).units
    assert read_unit(unit, settings)["text"].to_pylist() == ["two"]
