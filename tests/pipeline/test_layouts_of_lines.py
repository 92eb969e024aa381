"""Lines that are compressed, and lists of paths, are read as if they were plain rows."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.input import streams
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings
from tests.end_to_end.shards import png
from tests.pipeline.inputs import faults, plan, plan_units, read_all, rows_of, write
from tests.pipeline.layouts import jsonl
from tests.zoo.layouts import zstd


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_compressed_lines_give_the_same_rows(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [os.urandom(99).hex() for _ in range(400)]
    content = {
        "jsonl": jsonl(*({"key": n, "text": text} for n, text in enumerate(texts))),
        "csv": "key,text\r\n" + "".join(f'{n},"{text}\n"\r\n' for n, text in enumerate(texts)),
        "txt": "".join(f"{text}\n" for text in texts),
    }[kind].encode()
    plain = write(tmp_path / f"plain/a.{kind}", content)
    half = len(content) // 2
    packed = write(tmp_path / f"packed/a.{kind}.gz", pack(content[:half]) + pack(content[half:]))
    monkeypatch.setattr("pipeline.input.formats.packed.PIECE_BYTES", 999)
    found = read_all(packed.parent, 7)
    assert found.drop(["shard", "key"]) == read_all(plain, 7).drop(["shard", "key"]) and len(found) == 400
    read = ReadSettings(uri=str(packed))
    units = plan_units(read, 7)
    assert {unit.is_packed for unit in units} == {True} and duplicate_keys(units, read) == []
    for unit in (units[5], units[2], units[40]):
        assert read_unit(unit, read)["text"].to_pylist() == found["text"].to_pylist()[unit.start : unit.stop]


def test_units_of_a_compressed_shard_that_come_in_order_unpack_it_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(jsonl(*({"text": str(n)} for n in range(50))).encode()))
    read = ReadSettings(uri=str(path))
    units = plan_units(read, 5)
    streams._streams._open.clear()
    first = read_unit(units[0], read)
    (stream,) = streams._streams._open.values()
    assert [text for unit in units[1:] for text in read_unit(unit, read)["text"].to_pylist()][-1] == "49"
    assert [*streams._streams._open.values()] == [stream]
    assert read_unit(units[0], read) == first


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_compressed_lines_that_are_cut_off_give_the_rows_before(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    lines = jsonl(*({"text": os.urandom(500).hex()} for _ in range(400))).encode()
    packed = pack(lines)
    path = write(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2])
    planned = plan(path)
    rows = rows_of(path)
    assert 50 < len(rows) < 400 and faults(rows) == [None] * len(rows)
    assert [row["text"] for row in rows] == [json.loads(line)["text"] for line in lines.splitlines()[: len(rows)]]
    assert f"stream is cut off; found {len(rows)} rows before that" in planned.warnings[0]


@pytest.mark.parametrize("name", ["paths.txt", "paths.lst", "paths.txt.gz"])
def test_a_list_of_paths_is_a_list_of_images(tmp_path: Path, name: str) -> None:
    for n in range(2):
        write(tmp_path / f"pictures/{n} x.png", png(n))
    listed = f"pictures/0 x.png\r\n{tmp_path}/pictures/1 x.png\r\n".encode()
    path = write(tmp_path / name, gzip.compress(listed) if name.endswith("gz") else listed)
    rows = rows_of(path, columns={"image": "text", "key": "text"})
    assert [row["images"] for row in rows] == [[png(0)], [png(1)]]
    assert [row["key"] for row in rows] == ["pictures/0 x.png", f"{tmp_path}/pictures/1 x.png"]
