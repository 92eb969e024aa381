"""A column has one type in all shards, which holds the values of each; what no job reads costs no row."""

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.formats.rows import ReadError
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input
from tests.pipeline.inputs import faults, plan_units, write
from tests.zoo.tables import latin


def rows_of(folder: Path, reads: tuple[str, ...] | None = (), **read: Any) -> list[dict[str, Any]]:
    settings = ReadSettings(uri=str(folder), **read)
    return [row for unit in plan_input(settings, 2, reads=reads).units for row in read_unit(unit, settings).to_pylist()]


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize(
    ("one", "other", "values"),
    [
        (pa.array([[]], pa.list_(pa.null())), pa.array([["x"]]), [[], ["x"]]),
        (pa.array([1], pa.int32()), pa.array([2**40]), [1, 2**40]),
        (pa.array([1]), pa.array([2.5]), [1.0, 2.5]),
        (pa.array([0.5], pa.float32()), pa.array([0.1]), [0.5, 0.1]),
        (pa.array([1]), pa.array(["x"]), ["1", "x"]),
        (pa.array([True]), pa.array([7]), ["true", "7"]),
        (pa.array([5], pa.int64()), pa.array([2**64 - 1], pa.uint64()), [5, 2**64 - 1]),
        (pa.array([{"a": 1}]), pa.array([{"a": 2, "b": "x"}]), [{"a": 1, "b": None}, {"a": 2, "b": "x"}]),
        (pa.array([{"a": 1}]), pa.array(["x"]), ['{"a": 1}', "x"]),
        (pa.array([["x"]]), pa.array(["y"]), ['["x"]', "y"]),
        (pa.array([1], pa.timestamp("ms")), pa.array([1_500_001], pa.timestamp("us")), [1000, 1_500_001]),
        (pa.array(["x"], pa.large_string()), pa.array(["y"]).dictionary_encode(), ["x", "y"]),
    ],
)
def test_shards_of_different_types_lose_nothing_in_whatever_order_they_are_listed(
    tmp_path: Path, one: pa.Array, other: pa.Array, values: list[Any], is_turned: bool
) -> None:
    for name, array in zip("ba" if is_turned else "ab", (one, other), strict=True):
        pq.write_table(pa.table({"x": array}), tmp_path / f"{name}.parquet")
    rows = rows_of(tmp_path, reads=None)
    found = [row["x"] for row in rows]
    if pa.types.is_timestamp(one.type):
        found = [value.microsecond + 1_000_000 * value.second for value in found]
    assert (found[::-1] if is_turned else found) == values
    assert faults(rows) == [None, None]


def test_a_value_that_fits_no_common_type_is_null_and_costs_its_row_only_where_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pq.write_table(pa.table({"x": pa.array([2**53 + 1, 7])}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": pa.array([2.5])}), tmp_path / "b.parquet")
    rows = rows_of(tmp_path)
    assert [row["x"] for row in rows] == [None, 7.0, 2.5] and faults(rows) == [None, None, None]
    assert "1 values do not fit and are null; no job reads them: column 'x' holds 9007199254740993" in caplog.text
    read = rows_of(tmp_path, reads=("x",))
    assert [row["x"] for row in read] == [None, 7.0, 2.5] and faults(read) == ["WrongType", None, None]


@pytest.mark.parametrize("name", ["text", "question", "answers"])
def test_columns_that_are_called_as_ours_are_ours_only_where_the_job_reads_them(tmp_path: Path, name: str) -> None:
    write(tmp_path / "x.jsonl", f'{{"{name}": [{{"answer": "red"}}]}}\n{{"{name}": 5}}\n{{"{name}": "five"}}\n')
    rows = rows_of(tmp_path / "x.jsonl")
    assert [row[name] for row in rows] == ['[{"answer": "red"}]', "5", "five"] and faults(rows) == [None] * 3
    assert faults(rows_of(tmp_path / "x.jsonl", reads=(name,)))[0] == "WrongType"
    pq.write_table(pa.table({name: [[{"answer": "red"}]]}), tmp_path / "x.parquet")
    (row,) = rows_of(tmp_path / "x.parquet")
    assert row[name] == [{"answer": "red"}]
    with pytest.raises(ReadError, match=f"column '{name}' holds list|'answers' holds list"):
        rows_of(tmp_path / "x.parquet", reads=(name,))


def test_whole_numbers_of_json_keep_all_their_digits(tmp_path: Path) -> None:
    values = [5, 2**63 + 5, 2**64 - 1]
    write(tmp_path / "x.jsonl", "".join(f'{{"hash": {value}, "id": {2**53 + value % 3}}}\n' for value in values))
    rows = rows_of(tmp_path / "x.jsonl", reads=None)
    assert [row["hash"] for row in rows] == values
    assert [row["id"] for row in rows] == [2**53 + value % 3 for value in values]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("shape", ["text", "list", "struct", "dictionary", "large"])
def test_a_text_that_is_not_utf8_costs_its_row_alone_and_only_where_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, shape: str
) -> None:
    texts = latin(["a", "caf\xe9", "c"])
    shaped = {
        "text": texts,
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), texts),
        "struct": pa.StructArray.from_arrays([texts], ["s"]),
        "dictionary": texts.dictionary_encode(),
        "large": texts.cast(pa.binary()).cast(pa.large_binary()).view(pa.large_string()),
    }
    table = pa.table({"x": shaped[shape]})
    if name.endswith("arrow"):
        with pa.ipc.new_stream(tmp_path / name, table.schema) as sink:
            sink.write_table(table)
    else:
        pq.write_table(table, tmp_path / name)
    rows = rows_of(tmp_path)
    assert faults(rows) == [None] * 3 and rows[1]["x"] is None and "c" in str(rows[2]["x"])
    assert "1 values do not fit and are null; no job reads them: column 'x' holds 'caf\\udce9'" in caplog.text
    rows = rows_of(tmp_path, ("x",))
    assert faults(rows) == [None, "WrongType", None] and rows[1]["error"]["message"].endswith("is not UTF-8")


@pytest.mark.parametrize("name", ["key", "image"])
def test_a_key_or_a_path_that_is_not_utf8_costs_its_row_alone(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.png", b"1")
    columns = {"key": pa.array(["1", "2"]), "image": pa.array(["a.png", "a.png"])}
    pq.write_table(pa.table(columns | {name: latin(["a.png", "\xe9.png"])}), tmp_path / "a.parquet")
    rows = rows_of(tmp_path / "a.parquet")
    assert faults(rows) == [None, "WrongKey" if name == "key" else "NotFound"]
    read = ReadSettings(uri=str(tmp_path / "a.parquet"))
    assert duplicate_keys(plan_units(read, 2), read) == []


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"]), pa.array(["z"])], names=["a", "b", "a"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ReadError, match=r"x\.parquet as parquet: several columns are called 'a'; expected one of"):
        rows_of(tmp_path)


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (pa.array([uuid.UUID(int=7).bytes], pa.uuid()), "uuid"),
        (pa.array([b"x" * 16], pa.binary(16)), "binary"),
        (pa.array([b"abc"]), "binary"),
        (pa.array([7.0]), "double"),
        (pa.array([0], pa.date32()), "date32"),
        (pa.array([["a"]]), "list"),
    ],
)
def test_a_key_column_that_can_never_work_stops_the_plan(tmp_path: Path, ids: pa.Array, kind: str) -> None:
    pq.write_table(pa.table({"id": ids, "key": ids}), tmp_path / "x.parquet")
    for named in ({"columns": {"key": "id"}}, {}):
        with pytest.raises(ReadError, match=rf"key column '(id|key)' holds .*{kind}.*, expected text or whole numbers"):
            rows_of(tmp_path, **named)


@pytest.mark.parametrize("ids", [pa.array(["a"]), pa.array([7], pa.uint16()), pa.array(["a"]).dictionary_encode()])
def test_texts_and_whole_numbers_are_keys(tmp_path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"id": ids}), tmp_path / "x.parquet")
    (row,) = rows_of(tmp_path, columns={"key": "id"})
    assert row["key"] == str(ids[0].as_py())
