"""Large row groups of Parquet: read once by all units together, in memory that the pages bound."""

import functools
import io
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.formats import page_bodies, page_cuts, page_files, page_rows, page_sizes, parquet
from pipeline.input.formats.page_bodies import Body
from pipeline.input.formats.parquet import Opened
from pipeline.input.formats.rows import Index
from pipeline.input.formats.thrift import NotThrift, read_struct, write_struct
from pipeline.input.read import read_unit
from pipeline.input.unit_files import units_from_parquet, units_to_parquet
from pipeline.input.units import ReadSettings, plan_input
from pipeline.storage import held_bytes

ROWS = 900


class Counting(io.BytesIO):
    """A file that counts the bytes read of it."""

    num_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.num_bytes += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self.num_bytes += count
        return count


@pytest.fixture(autouse=True)
def small_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large is a thousand times smaller here, and what is held is this test's alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for module in (page_cuts, page_rows):
        monkeypatch.setattr(module, "SHARED_BYTES", 100_000)
        monkeypatch.setattr(module, "WHOLE_BYTES", 20_000)
    monkeypatch.setattr(page_bodies, "PIECE_BYTES", 16_000)
    monkeypatch.setattr(held_bytes, "BLOCK_BYTES", 20_000)


def limit(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    for module in (page_cuts, page_files, page_rows, page_sizes, parquet):
        monkeypatch.setattr(module, "LIMIT_BYTES", num_bytes)


@functools.cache
def of_all_kinds(num_rows: int = ROWS) -> pa.Table:
    random_ = random.Random(1)
    rows = range(num_rows)
    pictures = [{"bytes": random_.randbytes(1000 + row % 100), "path": f"p{row}.png"} for row in rows]
    return pa.table(
        {
            "image": [picture if row % 7 else None for row, picture in enumerate(pictures)],
            "n": rows,
            "bytes": [[random_.randbytes(row % 50)] * (row % 4) if row % 11 else None for row in rows],
            "images": [pictures[row : row + row % 3] if row % 11 else None for row in rows],
            "text": pa.array([f"word {row % 100}" if row % 5 else None for row in rows], pa.large_string()),
            "large": pa.array([random_.randbytes(300) for _ in rows], pa.large_binary()),
            "label": pa.array([f"cat {row % 9}" * 50 for row in rows]).dictionary_encode(),
            "fixed": pa.array([[float(row)] * 3 for row in rows], pa.list_(pa.float32(), 3)),
            "number": [random_.random() for _ in rows],
            "map": pa.array([[("key", row)] * (row % 3) for row in rows], pa.map_(pa.string(), pa.int64())),
        }
    )


def written(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    sizes = {"data_page_size": 30_000, "write_batch_size": 64, "dictionary_pagesize_limit": 100_000}
    pq.write_table(table, sink, **{**sizes, **options})
    return sink.getvalue()


def check(data: bytes, unit_rows: int, num_readers: int = 1, name: str = "") -> tuple[Index, float, int]:
    """Read all units and compare; return the index, bytes read / file size, and the largest unit's bytes.

    Readers take turns; with a name, they share what they fetch.
    """
    expected = pq.ParquetFile(io.BytesIO(data)).read()
    file = Counting(data)
    index = parquet.index(file, unit_rows)
    readers = [Opened(file, name) for _ in range(num_readers)]
    largest = 0
    assert index.num_rows == expected.num_rows
    for place, piece in enumerate(index.slices):
        found = readers[place % num_readers].read(piece.start, piece.stop, (), piece.pages)
        wanted = expected.slice(piece.start, piece.stop - piece.start)
        assert found.schema.remove_metadata().equals(wanted.schema.remove_metadata())
        assert found.to_pylist() == wanted.to_pylist()
        assert 0 < found.num_rows <= unit_rows
        found.validate(full=True)
        largest = max(largest, found.nbytes)
    return index, file.num_bytes / len(data), largest


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
@pytest.mark.parametrize("options", [{}, {"data_page_version": "2.0"}, {"write_page_index": True}])
def test_every_kind_of_column_is_read_as_arrow_reads_it(compression: str, options: dict[str, Any]) -> None:
    data = written(of_all_kinds(), compression=compression, use_dictionary=compression != "zstd", **options)
    index, share, _ = check(data, 100)
    assert all(piece.pages for piece in index.slices)
    # Of lists in pages of version 1 the plan reads the levels: of pages as small as these, all.
    most = 1.5 if "data_page_version" in options else 1.8
    assert share < most
    assert [warning for warning in index.warnings if "'map" not in warning] == []
    assert check(data, 100, num_readers=3)[1] > share
    assert check(data, 100, 3, "shared")[1] < most


def test_pages_larger_than_a_unit_are_fetched_once(tmp_path: Path) -> None:
    random_ = random.Random(0)
    table = pa.table({"image": [random_.randbytes(2000) for _ in range(3000)], "n": range(3000)})
    data = written(table, write_batch_size=1024, data_page_size=2**20)
    for readers, name in ((1, ""), (1, "one"), (3, "three")):
        index, share, _ = check(data, 50, readers, name)
        assert len(index.slices) == 21 + 21 + 20, "units of 50 rows, and one of 24, in each page of 1024"
        assert share < 1.2
    assert not [path for path in (tmp_path / next(tmp_path.iterdir())).iterdir() if path.stat().st_size > 50_000]


def test_without_a_place_to_hold_them_pages_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    data = written(of_all_kinds(), use_dictionary=False)
    _, share, _ = check(data, 20, 3, "x")
    assert share > 1.5


def test_units_end_where_pages_end() -> None:
    table = pa.table({"image": [random.Random(row).randbytes(1000) for row in range(1000)]})
    data = written(table, use_dictionary=False)
    index, share, _ = check(data, 100)
    assert {piece.stop - piece.start for piece in index.slices} == {64, 40}
    assert share < 1.3, "with the footer, for which Arrow reads 64 kB, twice"


def test_a_value_that_many_rows_share_counts_for_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 400_000)
    picture = random.Random(0).randbytes(60_000)
    data = written(pa.table({"image": [picture] * 600}))
    index, _, largest = check(data, 256)
    assert largest <= 800_000
    assert len(index.slices) == 100
    data = written(pa.table({"image": [picture if row == 77 else b"%d" % (row % 10) for row in range(600)]}))
    assert len(check(data, 256)[0].slices) == 3


@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("row_group_size", [2000, 300])
def test_large_rows_among_small_ones_do_not_stand_together(
    monkeypatch: pytest.MonkeyPatch, *, use_dictionary: bool, row_group_size: int
) -> None:
    limit(monkeypatch, 100_000)
    sizes = np.random.default_rng(3).choice([40_000, 100], 1000, p=[0.03, 0.97])
    rows = [random.Random(row).randbytes(int(size)) for row, size in enumerate(sizes)]
    table = pa.table({"image": rows, "images": [[row, row] for row in rows]})
    options = {"write_batch_size": 1024, "data_page_size": 2**30, "data_page_version": "2.0"}
    data = written(table, use_dictionary=use_dictionary, row_group_size=row_group_size, **options)
    index, _, largest = check(data, 256)
    assert largest <= 200_000
    assert len(index.slices) < 100


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_of_a_page_larger_than_a_unit_only_its_rows_are_unpacked(
    monkeypatch: pytest.MonkeyPatch, compression: str, version: str, *, use_dictionary: bool
) -> None:
    limit(monkeypatch, 200_000)
    opened: list[Body] = []

    def watched(self: Body, *arguments: Any) -> Iterator[bytes]:
        opened.append(self)
        return pages(self, *arguments)

    pages = Body.pages
    monkeypatch.setattr(Body, "pages", watched)
    random_ = random.Random(1)
    values = [random_.randbytes(3000 + row) if row % 5 else (b"abc%d" % row) * 300 for row in range(250)]
    values[77] = random_.randbytes(70_000)
    table = pa.table(
        {
            "image": [{"bytes": value, "path": f"{row}.png"} if row % 7 else None for row, value in enumerate(values)],
            "shared": [value if row % 3 else values[5] for row, value in enumerate(values)],
            "text": [value.hex()[:2000] if row % 4 else None for row, value in enumerate(values)],
        }
    )
    options = {"data_page_version": version, "compression": compression, "use_dictionary": use_dictionary}
    data = written(table, data_page_size=2**30, dictionary_pagesize_limit=2**30, **options)
    _, _, largest = check(data, 100)
    assert largest < 400_000
    assert len(opened) >= 3, "each column at least once"


def test_a_large_dictionary_of_numbers_is_given_to_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 10_000)
    table = pa.table({"n": range(9000), "image": [bytes(row % 7) for row in range(9000)]})
    index, _, _ = check(written(table), 100, 2)
    assert any(piece.pages for piece in index.slices)


def test_small_row_groups_are_cut_as_if_they_were_one() -> None:
    data = written(of_all_kinds(), row_group_size=10)
    index, _, _ = check(data, 100)
    assert [piece.stop - piece.start for piece in index.slices] == [100] * 9
    assert not any(piece.pages for piece in index.slices)


def test_large_and_small_row_groups_stand_in_one_file() -> None:
    table = of_all_kinds()
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, data_page_size=30_000, write_batch_size=64) as writer:
        for start, stop in [(0, 30), (30, 60), (60, 500), (500, 530), (530, 900)]:
            writer.write_table(table.slice(start, stop - start), row_group_size=2000)
    index, _, _ = check(sink.getvalue(), 100)
    assert [(piece.start, piece.stop) for piece in index.slices if not piece.pages] == [(0, 60), (500, 530)]


def test_with_a_limit_no_more_is_cut_than_is_wanted() -> None:
    data = written(of_all_kinds())
    assert parquet.index(io.BytesIO(data), 4, limit=10).num_rows == 12


def test_a_damaged_page_costs_the_rows_of_its_units(tmp_path: Path) -> None:
    table = pa.table({"image": [random.Random(row).randbytes(1000) for row in range(640)]})
    data = bytearray(written(table, use_dictionary=False, compression="zstd"))
    units = parquet.index(io.BytesIO(data), 64).slices
    begin = data.index(b"\x28\xb5\x2f\xfd", units[3].pages[3])  # where zstd's frame begins
    data[begin : begin + 200] = b"\xff" * 200
    (tmp_path / "a.parquet").write_bytes(data)
    settings = ReadSettings(uri=str(tmp_path / "a.parquet"))
    errors = [row["error"] for unit in plan_input(settings, 64).units for row in read_unit(unit, settings).to_pylist()]
    assert [row for row, error in enumerate(errors) if error] == list(range(192, 256))
    assert {error["type"] for error in errors if error} == {"Unreadable"}


@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_damage_in_a_page_larger_than_a_unit_costs_rows_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, *, use_dictionary: bool
) -> None:
    limit(monkeypatch, 100_000)
    table = pa.table({"image": [random.Random(row).randbytes(1000 + row) for row in range(500)]})
    whole = written(table, compression=compression, use_dictionary=use_dictionary, data_page_size=2**30)
    settings = ReadSettings(uri=str(tmp_path / "a.parquet"))
    for place in range(30, 50_000, 19_991):
        data = whole[:place] + b"\xff" * 60 + whole[place + 60 :]
        (tmp_path / "a.parquet").write_bytes(data)
        tables = [read_unit(unit, settings) for unit in plan_input(settings, 64).units]
        assert sum(found.num_rows for found in tables) == 500


def test_damaged_headers_are_found_when_their_rows_are_read(tmp_path: Path) -> None:
    table = pa.table({"image": [random.Random(row).randbytes(1000) for row in range(640)], "n": range(640)})
    data = bytearray(written(table, use_dictionary=False, compression="zstd"))
    middle = parquet.index(io.BytesIO(data), 64).slices[3].pages[3]
    data[middle : middle + 60] = b"\xff" * 60
    (tmp_path / "a.parquet").write_bytes(data)
    settings = ReadSettings(uri=str(tmp_path / "a.parquet"))
    errors = [row["error"] for unit in plan_input(settings, 64).units for row in read_unit(unit, settings).to_pylist()]
    assert [error is None for error in errors] == [True] * 192 + [False] * 448


def test_a_unit_keeps_its_pages_in_the_plan_and_an_older_plan_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(written(of_all_kinds()))
    settings = ReadSettings(uri=str(tmp_path / "a.parquet"), columns={"image": "image"})
    units = plan_input(settings, 100).units
    data = units_to_parquet(units)
    assert units_from_parquet(data) == units
    older = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(data)).drop_columns(["pages"]), older)
    old_units = units_from_parquet(older.getvalue())
    assert not any(unit.pages for unit in old_units)
    for new, old in zip(units, old_units, strict=True):
        assert read_unit(new, settings).equals(read_unit(old, settings))


def test_keys_and_picks_do_not_fetch_a_row_group_at_once() -> None:
    table = pa.table({"key": [f"{row:0500d}" for row in range(4000)], "image": [b"x" * 500] * 4000})
    file = Counting(written(table, use_dictionary=False, compression="none"))
    assert Opened(file).pick("image", [1]) == {1: b"x" * 500}
    assert parquet.keys(file, "key", 10, 13) == [f"{row:0500d}" for row in (10, 11, 12)]


def test_structs_are_written_back_as_they_were_read() -> None:
    struct = {1: (5, -7), 2: (8, b"x" * 300), 4: (1, True), 20: (12, {1: (2, False)}), 21: (9, (6, list(range(20))))}
    data = write_struct(struct)
    assert read_struct(data) == (struct, len(data))
    for end in range(len(data)):
        with pytest.raises(NotThrift):
            read_struct(data[:end])


def test_a_disk_that_is_nearly_full_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_bytes, "FREE_SHARE", 0.0)
    assert held_bytes.hold("a", 10, lambda position, count: b"x" * count) is None


def test_what_is_held_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_bytes, "HELD_BYTES", 1000)
    asked: list[str] = []

    def fetch(name: str, size: int = 400) -> bytes | None:
        def read(position: int, count: int) -> bytes:
            asked.append(name)
            return name.encode() * count

        file = held_bytes.hold(name, size, read)
        return file and bytes(file.read())

    assert fetch("a") == fetch("a") == b"a" * 400
    assert [fetch(name) for name in "bc"] == [b"b" * 400, b"c" * 400]
    assert fetch("c") == b"c" * 400
    assert fetch("big", 1001) is None
    assert asked == ["a", "b", "c"]
    held_bytes.let_go("c")
    fetch("c")
    assert asked == ["a", "b", "c", "c"]
    with pytest.raises(ZeroDivisionError):
        held_bytes.hold("d", 10, lambda position, count: bytes(1 // 0))
