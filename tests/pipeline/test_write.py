import io
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.rows import ODDITIES, UNIT, UNIT_ROWS, with_unit
from pipeline.state import ledger
from pipeline.steps.write import Part, Parts, commit_unit, merge_part, oddities_in, parquet_bytes, plan_parts, unit_path
from pipeline.storage.store import StorageError, Store
from tests.pipeline.inputs import names
from tests.pipeline.toys import part_columns, units_of

SCHEMA = pa.schema(
    [
        *part_columns("key", "shard", "index", "prompt_tokens", "output_tokens", "error"),
    ]
)
UNITS = units_of(10, 3)  # rows 0-2, 3-5, 6-8 and 9


def answered(unit: int) -> pa.Table:
    rows = [
        {
            "key": f"s.tar#{i}",
            "shard": "s.tar",
            "index": i,
            "prompt_tokens": 4,
            "output_tokens": i,
            "error": {"stage": "fetch", "type": "NotFound", "message": "gone"} if i == 4 else None,
        }
        for i in range(UNITS[unit].start, UNITS[unit].stop)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    return with_unit(table, UNITS[unit].name, UNITS[unit].num_rows)


def leave_short(store: Store) -> None:
    """Leave the first unit without its last row, as nothing here does."""
    block = answered(0).slice(0, 2).drop_columns([UNIT, UNIT_ROWS])
    store.publish(unit_path(UNITS[0].name), parquet_bytes(block))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def test_parts_hold_whole_units_and_follow_from_the_plan_alone() -> None:
    cut = [[unit.seq for unit in part.units] for part in plan_parts(UNITS, 7)]
    assert cut == [[0, 1], [2, 3]]
    assert [part.path for part in plan_parts(UNITS, 7)] == ["part-00000.parquet", "part-00001.parquet"]
    assert [len(part.units) for part in plan_parts(UNITS, 1)] == [1, 1, 1, 1]


def test_a_committed_unit_is_one_object_and_a_line_of_numbers(store: Store) -> None:
    numbers = commit_unit(answered(1), store).to_pylist()
    failure = {"stage": "fetch", "type": "NotFound", "count": 1, "key": "s.tar#4", "message": "gone"}
    counts = {"rows": 3, "answers": 3, "failed": 1, "prompt_tokens": 12, "output_tokens": 12}
    assert numbers == [{"unit": UNITS[1].name, **counts, "failures": [failure]}]
    assert names(store) == [unit_path(UNITS[1].name)]
    assert pq.read_table(io.BytesIO(store.read(unit_path(UNITS[1].name)))).schema.equals(SCHEMA)


def test_the_first_writer_of_a_unit_wins(store: Store) -> None:
    commit_unit(answered(0), store)
    before = store.read(unit_path(UNITS[0].name))
    commit_unit(answered(0).take([2, 1, 0]), store)
    assert store.read(unit_path(UNITS[0].name)) == before


def test_a_block_of_two_units_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="a block holds rows of 2 units"):
        commit_unit(pa.concat_tables([answered(0), answered(1)]), store)
    assert names(store) == []


def test_a_unit_that_lost_a_row_on_its_way_is_never_written(store: Store) -> None:
    with pytest.raises(ValueError, match="unit 00000000 has 2 rows, the plan says 3"):
        commit_unit(answered(0).slice(1), store)
    assert names(store) == []


def test_a_part_appears_with_the_last_of_its_units_and_takes_their_place(store: Store) -> None:
    with Parts(store, plan_parts(UNITS, 6), [], SCHEMA) as parts:
        for unit in (1, 2):
            commit_unit(answered(unit), store)
            parts.add(UNITS[unit].name)
        assert names(store) == [unit_path(UNITS[1].name), unit_path(UNITS[2].name)]
        commit_unit(answered(0), store)
        parts.add(UNITS[0].name)
    assert names(store) == [unit_path(UNITS[2].name), "part-00000.parquet"]
    assert pq.read_table(io.BytesIO(store.read("part-00000.parquet"))).column("index").to_pylist() == list(range(6))
    assert parts.missing_units == {UNITS[3].name}


def test_a_part_is_merged_at_the_start_if_its_units_are_all_there(store: Store) -> None:
    for unit in range(4):
        commit_unit(answered(unit), store)
    parts = Parts(store, plan_parts(UNITS, 100), [unit.name for unit in UNITS], SCHEMA)
    assert parts.missing_units == set() and names(store) == ["part-00000.parquet"]


def test_a_plain_read_of_the_output_sees_parts_only(store: Store) -> None:
    with Parts(store, plan_parts(UNITS, 6), [], SCHEMA) as parts:
        for unit in (0, 1, 2):
            commit_unit(answered(unit), store)
            parts.add(UNITS[unit].name)
    assert pq.read_table(store.uri).column("index").to_pylist() == list(range(6))


def test_what_a_merge_fails_of_is_raised_at_the_latest_at_the_end(store: Store) -> None:
    leave_short(store)
    parts = Parts(store, [Part(0, (UNITS[0],))], [], SCHEMA)
    with pytest.raises(ValueError, match="has 2 rows, the plan says 3"), parts:
        parts.add(UNITS[0].name)


def test_after_a_merge_that_failed_no_other_is_begun(store: Store) -> None:
    asked: list[int] = []

    def merge(store: Store, part: Part, schema: pa.Schema) -> None:
        asked.append(part.number)
        raise StorageError("the store is gone")

    parts = Parts(store, [Part(unit, (UNITS[unit],)) for unit in range(3)], [], SCHEMA, merge)
    with pytest.raises(StorageError, match="the store is gone"), parts, suppress(StorageError):
        for unit in range(3):  # a quick failure may be heard of at once
            parts.add(UNITS[unit].name)
    assert asked == [0]


def test_what_was_odd_of_rows_that_are_well_is_summed_up_in_the_footers(store: Store) -> None:
    odd = [["cmyk", "cmyk"], ["gray"], ["cmyk"]]
    for unit in (0, 1):
        block = answered(unit)
        named = (odd * 3)[: block.num_rows]
        commit_unit(block.append_column(ODDITIES, pa.array(named, pa.list_(pa.string()))), store)
    well = [row for unit in (0, 1) for row in zip(odd, answered(unit)["error"].to_pylist(), strict=False)]
    merge_part(store, Part(0, tuple(UNITS[:2])), SCHEMA)
    expected = Counter(name for names_, error in well if error is None for name in names_)
    part = pq.read_table(io.BytesIO(store.read("part-00000.parquet")))
    assert expected and oddities_in(part.schema) == expected
    assert part.schema.equals(SCHEMA)


def test_a_unit_with_rows_missing_is_never_merged(store: Store) -> None:
    leave_short(store)
    with pytest.raises(ValueError, match="has 2 rows, the plan says 3"):
        merge_part(store, Part(0, (UNITS[0],)), SCHEMA)
    assert not store.exists("part-00000.parquet")


def test_a_row_with_several_answers_is_one_row_of_its_unit(store: Store) -> None:
    twice = pa.concat_tables([answered(0), answered(0).slice(1, 1)])
    assert commit_unit(twice, store).to_pylist()[0]["rows"] == 3
    merge_part(store, Part(0, (UNITS[0],)), SCHEMA)
    assert pq.read_table(io.BytesIO(store.read("part-00000.parquet"))).num_rows == 4


def test_a_part_that_another_driver_merged_is_left_as_it_is(store: Store) -> None:
    store.publish("part-00000.parquet", b"theirs")
    merge_part(store, Part(0, (UNITS[0],)), SCHEMA)
    assert store.read("part-00000.parquet") == b"theirs"


def test_equal_rows_give_equal_bytes_however_they_were_put_together() -> None:
    whole = answered(0)
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert parquet_bytes(whole) == parquet_bytes(pieces)


def test_what_stands_in_an_output_is_told_apart(store: Store) -> None:
    for path in ("part-00003.parquet", unit_path("00000007"), ledger.SETTINGS, "_SUCCESS", "_report/report.html"):
        store.publish(path, b"{}")
    output = ledger.read_output(store)
    assert output.parts == {3} and output.units == {"00000007"} and output.is_done and not output.is_planned
    assert ledger.existing_fault(output, "resume", store.uri) is None
    assert "the setting is 'fail'" in str(ledger.existing_fault(output, "fail", store.uri))
    store.publish("notes.parquet", b"")
    assert "files that no run wrote (notes.parquet)" in str(
        ledger.existing_fault(ledger.read_output(store), "replace", store.uri)
    )


def test_replacing_removes_an_earlier_run_and_nothing_else(store: Store) -> None:
    for path in ("part-00000.parquet", ledger.SETTINGS, "_SUCCESS", ".keep"):
        store.publish(path, b"{}")
    ledger.clear(store, ledger.read_output(store))
    assert names(store) == [".keep"]


def test_a_removal_that_was_interrupted_leaves_an_unfinished_run(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for path in ("_report/report.html", "part-00000.parquet", "part-00001.parquet", ledger.SETTINGS, "_SUCCESS"):
        store.publish(path, b"{}")
    output = ledger.read_output(store)
    (tmp_path / "part-00001.parquet").unlink()
    (tmp_path / "part-00001.parquet").mkdir()  # nobody can delete this as a file
    with pytest.raises(StorageError, match=r"cannot delete .*part-00001\.parquet"):
        ledger.clear(store, output)
    left = ledger.read_output(store)
    assert left.is_started and not left.is_done and left.parts == frozenset()
