import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings
from pipeline.storage.store import StorageSettings, Store
from tests.end_to_end.shards import png, tar_bytes
from tests.pipeline.inputs import plan_units
from tests.proxy import proxy
from tests.s3 import S3, forget_connections

ROWS = [{"key": "a"}, {"key": "b"}, {"key": "a"}, {"key": None}, {"key": None}, {"key": "c"}]


def write(folder: Path, format: str, rows: list[dict[str, str | None]]) -> ReadSettings:
    folder.mkdir()
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=2)
    elif format == "jsonl":
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif format == "csv":
        (folder / "rows.csv").write_text("key,text\n" + "".join(f"{row['key'] or ''},x\n" for row in rows))
    else:
        for n, row in enumerate(rows):
            (folder / f"{n}.tar").write_bytes(tar_bytes({f"deep/{row['key'] or n}.tar.png": png(n)}))
    return ReadSettings(uri=str(folder))


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv", "tar"])
def test_a_key_of_two_rows_is_found_in_every_format(tmp_path: Path, format: str) -> None:
    read = write(tmp_path / "in", format, ROWS)
    units = plan_units(read, 2)
    found = duplicate_keys(units, read)
    assert found == ["deep/a" if format == "tar" else "a"]
    keys = [key for unit in units for key in read_unit(unit, read).column("key").to_pylist()]
    assert {key for key in keys if keys.count(key) > 1} == set(found), "the reader gives the same keys"


@pytest.mark.parametrize("format", ["parquet", "jsonl", "csv", "tar"])
def test_rows_without_a_key_are_named_by_their_place_and_never_clash(tmp_path: Path, format: str) -> None:
    read = write(tmp_path / "in", format, [{"key": "a"}, {"key": None}, {"key": None}])
    assert duplicate_keys(plan_units(read, 1), read) == []


def test_a_tenth_row_of_the_same_key_is_one_example(tmp_path: Path) -> None:
    read = write(tmp_path / "in", "jsonl", [{"key": str(n % 5)} for n in range(50)])
    assert duplicate_keys(plan_units(read, 7), read) == ["0", "1", "2"]


def test_lines_of_text_have_no_keys_whatever_they_look_like(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text('{"key": "a"}\n{"key": "a"}\n')
    read = ReadSettings(uri=str(tmp_path))
    assert duplicate_keys(plan_units(read, 1), read) == []


def test_a_broken_page_of_keys_hides_no_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    keys = [f"{n % 8:0900d}" for n in range(12)]
    pq.write_table(pa.table({"key": keys}), path, row_group_size=4, use_dictionary=False, compression="zstd")
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 32] = b"\xff" * 32
    path.write_bytes(data)
    read = ReadSettings(uri=str(path))
    assert duplicate_keys(plan_units(read, 4), read) == keys[8:11]


def test_looking_for_keys_in_a_tar_opens_it_once_however_many_units_it_has(s3: S3) -> None:
    members = {f"{n}.png": png(n) for n in range(60)}
    with proxy(s3.endpoint_url) as between:
        store = Store(s3.uri, StorageSettings(endpoint_url=between.url))
        store.replace("a.tar", tar_bytes(members))
        read = ReadSettings(uri=f"{s3.uri}/a.tar", storage=store.settings)
        units = plan_units(read, 2)
        asked = between.count("GET", "a.tar")
        assert len(units) == 30 and duplicate_keys(units, read) == []
        assert between.count("GET", "a.tar") == asked + 1
    forget_connections()
