"""What a retry writes down, and how answered rows come into the places of failed ones; without Ray."""

import io
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.execution.attempt import RunError
from pipeline.input.unit_files import units_from_parquet
from pipeline.input.units import ReadSettings, Unit
from pipeline.retry import commit_log_of, refuse_changed_shards, rewrite_part
from pipeline.rows import IMAGES, ODDITIES, with_unit
from pipeline.settings import ConfigError
from pipeline.state import ledger
from pipeline.state.ledger import RunReplaced
from pipeline.state.retries import BEFORE, RetryPlan, failed_rows, freeze_retry, last_number, open_retry, restrict
from pipeline.state.rewrite import replace_rows
from pipeline.steps.tars import part_tar
from pipeline.steps.write import (
    Part,
    commit_unit,
    merge_part,
    oddities_in,
    parquet_bytes,
    plan_parts,
    unit_path,
    with_oddities,
)
from pipeline.storage.store import NotFound, Store
from tests.pipeline.inputs import names
from tests.pipeline.toys import part_columns, units_of
from tests.s3 import S3

SCHEMA = pa.schema(
    [
        *part_columns("key", "shard", "index", "finish_reason", "prompt_tokens", "output_tokens", "error"),
        ("caption", pa.string()),
        *part_columns("output_token_ids"),
    ]
)
GONE = {"stage": "fetch", "type": "NotFound", "message": "no such file"}
BROKEN = {"stage": "decode", "type": "BadImage", "message": "cannot decode"}
UNITS = units_of(10, 3)  # rows 0-2, 3-5, 6-8 and 9
PARTS = plan_parts(UNITS, 6)  # rows 0-5 and 6-9
FAILED = (1, 4, 5)


def row(index: int, error: dict[str, str] | None = None, caption: str = "", shard: str = "s.tar") -> dict[str, Any]:
    return {
        "key": f"key {index}",
        "shard": shard,
        "index": index,
        "finish_reason": "error" if error else "stop",
        "prompt_tokens": None if error else 3,
        "output_tokens": 0 if error else 4,
        "error": error,
        "caption": None if error else caption or f"caption {index}",
        "output_token_ids": [] if error else [index, 7],
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def captions(rows: pa.Table) -> list[str | None]:
    return list(rows["caption"].to_pylist())


def read_part(store: Store, part: Part) -> pa.Table:
    return pq.read_table(io.BytesIO(store.read(part.path)))


def commit(store: Store, unit: Unit, plan: RetryPlan, *rows: dict[str, Any]) -> None:
    block = table(*rows)
    commit_unit(with_unit(block, unit.name, len(rows)), store, plan.units_folder)


def empty_store(kind: str, request: pytest.FixtureRequest) -> Store:
    name = uuid.uuid4().hex
    if kind == "s3":
        s3: S3 = request.getfixturevalue("s3")
        return Store(f"{s3.uri}/{name}", s3.settings)
    return Store(f"memory://{name}" if kind == "memory" else str(request.getfixturevalue("tmp_path") / name))


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    """The output of a finished run of ten rows, of which three of the first part have failed."""
    store = empty_store(request.param, request)
    ledger.freeze_settings(store, {"run": "a-run"})
    for part in PARTS:
        numbers = range(part.units[0].start, part.units[-1].stop)
        store.publish(part.path, parquet_bytes(table(*(row(n, GONE if n in FAILED else None) for n in numbers))))
    return store


@pytest.fixture
def plan(store: Store) -> RetryPlan:
    return freeze_retry(store, PARTS, 1, failed_rows(store, PARTS))


def test_only_the_units_with_failed_rows_are_read_again_and_of_them_only_these_rows(store: Store) -> None:
    found = failed_rows(store, PARTS)
    assert [(unit.seq, unit.only, unit.num_rows) for unit, _ in found] == [(0, (1,), 1), (1, (1, 2), 2)]
    assert [[one["key"] for one in rows] for _, rows in found] == [["key 1"], ["key 4", "key 5"]]
    assert [part.number for part in restrict(PARTS, (unit for unit, _ in found))] == [0]


def test_files_of_a_folder_are_found_by_their_paths(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    unit = Unit(0, "memory://in", "", "images", 0, 3, b"", paths=("a.png", "b.png", "c.png"))
    (part,) = plan_parts([unit], 10)
    rows = [row(0, shard="a.png"), row(0, BROKEN, shard="b.png"), row(0, GONE, shard="c.png")]
    store.publish(part.path, parquet_bytes(table(*rows)))
    assert [unit.only for unit, _ in failed_rows(store, [part])] == [(1, 2)]


def test_a_row_that_the_plan_does_not_know_is_an_error(store: Store) -> None:
    with pytest.raises(RunError, match=r"part-00000.parquet holds rows that are not in the plan, first .*1"):
        failed_rows(store, [replace(PARTS[0], units=(UNITS[1],))])


def test_what_is_run_again_and_how_it_stood_there_is_written_down(store: Store, plan: RetryPlan) -> None:
    table = pq.read_table(io.BytesIO(store.read("_triptych/retries/0001/plan.parquet")))
    assert table.schema.field("before").type == BEFORE
    before = [one for rows in table["before"].to_pylist() for one in rows]
    assert before == [{"key": f"key {n}", "shard": "s.tar", "index": n, "error": GONE} for n in FAILED]
    assert units_from_parquet(store.read("_triptych/retries/0001/plan.parquet")) == list(plan.parts[0].units)


def test_a_retry_that_has_begun_goes_on_and_of_two_at_once_the_second_takes_the_plan_of_the_first(store: Store) -> None:
    assert (last_number(store), open_retry(store, PARTS, 0)) == (0, None)
    found = failed_rows(store, PARTS)
    first, second = freeze_retry(store, PARTS, 1, found[:1]), freeze_retry(store, PARTS, 1, found)
    assert [unit.seq for unit in first.parts[0].units] == [0]
    assert last_number(store) == 1
    assert second == first == open_retry(store, PARTS, 1)


def test_a_part_is_written_anew_when_all_its_rows_are_there_and_the_others_stay(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    before = read_part(store, part)
    commit(store, part.units[0], plan, row(1, caption="now"))
    commit(store, part.units[1], plan, row(4, caption="now too"), row(5, BROKEN))
    assert commit_log_of(plan).read(store).units == {unit.name for unit in part.units}
    rewrite_part(store, part, SCHEMA, plan=plan)
    after = read_part(store, part)
    assert captions(after) == ["caption 0", "now", "caption 2", "caption 3", "now too", None]
    assert after["index"].to_pylist() == before["index"].to_pylist()
    assert after["error"].to_pylist()[5] == BROKEN
    left = [name for name in names(store) if name.startswith("_triptych")]
    folder = "_triptych/retries/0001"
    assert left == [f"{folder}/part-00000.json", f"{folder}/plan.parquet", ledger.SETTINGS]
    assert json.loads(store.read(left[0])) == {
        "rows": 3,
        "recovered": 2,
        "failures": [{"stage": "decode", "type": "BadImage", "count": 1}],
    }
    assert commit_log_of(plan).read(store).parts == {0}
    assert open_retry(store, PARTS, 1) is None
    assert ledger.read_output(store).units == frozenset()


def test_a_part_of_replaced_rows_has_the_bytes_of_one_that_was_right_at_once(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    commit(store, part.units[0], plan, row(1))
    commit(store, part.units[1], plan, row(4), row(5))
    rewrite_part(store, part, SCHEMA, plan=plan)
    assert store.read(part.path) == parquet_bytes(table(*(row(n) for n in range(6))))


def test_what_was_odd_about_rows_that_are_well_now_is_counted_once(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    store.replace(part.path, parquet_bytes(with_oddities(read_part(store, part), {"cmyk": 2, "exif_turned": 1})))
    for unit, rows in zip(part.units, ([row(1)], [row(4), row(5, BROKEN)]), strict=True):
        odd = pa.array([["cmyk"], ["animated"]][: len(rows)], pa.list_(pa.string()))
        block = with_unit(table(*rows), unit.name, len(rows)).append_column(ODDITIES, odd)
        commit_unit(block, store, plan.units_folder)
    units = {path: store.read(path) for path in names(store) if "/units/" in path}
    for _ in range(2):  # the second time as after a kill before the mark
        rewrite_part(store, part, SCHEMA, plan=plan)
        assert oddities_in(read_part(store, part).schema) == {"cmyk": 4, "exif_turned": 1}
        store.delete([plan.mark(part)])
        for path, data in units.items():
            store.publish(path, data)


def test_a_retry_that_brings_the_same_errors_leaves_the_part_untouched(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    # Of other bytes than a part that is written now: one of an earlier version, which is not to be touched for nothing.
    older = io.BytesIO()
    pq.write_table(read_part(store, part), older, compression="none")
    store.replace(part.path, older.getvalue())
    commit(store, part.units[0], plan, row(1, GONE))
    commit(store, part.units[1], plan, row(4, GONE), row(5, GONE))
    rewrite_part(store, part, SCHEMA, plan=plan)
    assert store.read(part.path) == older.getvalue()
    assert store.exists(plan.mark(part))


def test_two_drivers_that_write_one_part_anew_at_once_leave_what_one_would(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    before = store.read(part.path)
    for _ in range(10):
        store.replace(part.path, before)
        store.delete([plan.mark(part)])
        commit(store, part.units[0], plan, row(1))
        commit(store, part.units[1], plan, row(4), row(5))
        with ThreadPoolExecutor(3) as drivers:
            for done in [drivers.submit(rewrite_part, store, part, SCHEMA, plan=plan) for _ in range(3)]:
                done.result()
        assert store.read(part.path) == parquet_bytes(table(*(row(n) for n in range(6))))
        assert not [name for name in names(store) if "/units/" in name]


def test_a_retry_killed_at_any_moment_of_the_writing_goes_on_and_ends_alike(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    commit(store, part.units[0], plan, row(1))
    commit(store, part.units[1], plan, row(4), row(5, BROKEN))
    units = {unit_path(unit.name, plan.units_folder): None for unit in part.units}
    kept = {path: store.read(path) for path in units}
    rewrite_part(store, part, SCHEMA, plan=plan)
    after, mark = store.read(part.path), store.read(plan.mark(part))
    # Killed after the part and before its mark; after the mark and before the units are gone, all or one of them.
    for gone, left in (([plan.mark(part)], kept), ([], kept), ([], dict(list(kept.items())[:1]))):
        store.delete(gone)
        for path, data in left.items():
            store.publish(path, data)
        rewrite_part(store, part, SCHEMA, plan=plan)
        assert (store.read(part.path), store.read(plan.mark(part))) == (after, mark)
        assert not set(names(store)) & set(kept)


def test_a_part_of_other_columns_is_refused_by_their_names(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    commit(store, part.units[0], plan, row(1))
    commit(store, part.units[1], plan, row(4), row(5))
    store.replace(part.path, parquet_bytes(read_part(store, part).drop_columns(["caption"])))
    with pytest.raises(ValueError, match=r"part-00000.parquet has other columns .* \['caption'\]"):
        rewrite_part(store, part, SCHEMA, plan=plan)


def test_units_that_vanish_without_a_mark_are_an_error(store: Store, plan: RetryPlan) -> None:
    commit(store, plan.parts[0].units[0], plan, row(1))
    with pytest.raises(NotFound):
        rewrite_part(store, plan.parts[0], SCHEMA, plan=plan)


def test_a_unit_with_other_rows_than_were_asked_for_changes_nothing(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    before = store.read(part.path)
    commit(store, part.units[0], plan, row(2))
    commit(store, part.units[1], plan, row(4), row(5))
    with pytest.raises(ValueError, match="holds other rows than the failed ones of its unit"):
        rewrite_part(store, part, SCHEMA, plan=plan)
    assert store.read(part.path) == before


def test_a_retry_of_a_run_that_was_replaced_changes_nothing_of_the_other_one(store: Store, plan: RetryPlan) -> None:
    (part,) = plan.parts
    commit(store, part.units[0], plan, row(1))
    commit(store, part.units[1], plan, row(4), row(5))
    ledger.clear(store, ledger.read_output(store))
    ledger.freeze_settings(store, {"run": "another-run"})
    theirs = parquet_bytes(table(*(row(n, GONE) for n in range(6))))
    store.publish(part.path, theirs)
    for unit, numbers in zip(part.units, ((1,), (4, 5)), strict=True):  # workers that live on
        commit(store, unit, plan, *(row(number) for number in numbers))
    with pytest.raises(RunReplaced):
        commit_log_of(plan).read(store)
    with pytest.raises(RunReplaced):
        rewrite_part(store, part, SCHEMA, plan=plan)
    assert store.read(part.path) == theirs and not store.exists(plan.mark(part))
    later = freeze_retry(store, PARTS, 1, failed_rows(store, [PARTS[0]]))
    assert commit_log_of(later).read(store).units == frozenset()


def test_one_failed_row_can_become_several_pictures_and_the_tar_gets_them_too(tmp_path: Path) -> None:
    schema = pa.schema([*SCHEMA, ("image", pa.binary()), ("image_format", pa.string()), ("caption_in", pa.string())])
    store = Store(str(tmp_path))
    (part,) = plan_parts(UNITS[:1], 10, tar_text="caption_in")

    def drawn(index: int, error: dict[str, str] | None, *pictures: bytes) -> list[dict[str, Any]]:
        plain = {**row(index, error), "image_format": "png", "caption_in": "a circle"}
        return [{**plain, "image": picture} for picture in pictures] or [{**plain, "image": None}]

    first = [*drawn(0, None, b"A", b"B"), *drawn(1, GONE), *drawn(2, None, b"E")]
    store.publish(part.path, parquet_bytes(pa.Table.from_pylist(first, schema=schema)))
    ledger.freeze_settings(store, {})
    plan = freeze_retry(store, [part], 1, failed_rows(store, [part]))
    again = pa.Table.from_pylist(drawn(1, None, b"C", b"D"), schema=schema)
    commit_unit(with_unit(again, UNITS[0].name, 1), store, plan.units_folder)
    rewrite_part(store, plan.parts[0], schema, plan=plan)
    rows = read_part(store, part)
    assert rows["image"].to_pylist() == [b"A", b"B", b"C", b"D", b"E"]
    assert store.read("_webdataset/part-00000.tar") == part_tar(0, rows, "caption_in")


def test_a_row_that_is_captioned_at_last_gets_its_place_in_the_tar_and_the_others_keep_theirs(tmp_path: Path) -> None:
    store, images = Store(str(tmp_path)), [b"\xff\xd8\xff%d" % number for number in range(3)]
    (part,) = plan_parts(UNITS[:1], 10, tar_text="caption")

    def with_images(rows: pa.Table, *numbers: int) -> pa.Table:
        return rows.append_column(IMAGES, pa.array([[images[number]] for number in numbers], IMAGES.type))

    ledger.freeze_settings(store, {})
    first = with_images(table(row(0), row(1, GONE), row(2)), 0, 1, 2)
    commit_unit(with_unit(first, UNITS[0].name, 3), store)
    merge_part(store, part, SCHEMA)
    assert read_part(store, part).column_names == SCHEMA.names, "images stand in the tar alone"
    plan = freeze_retry(store, [part], 1, failed_rows(store, [part]))
    for _ in range(2):  # the second time as if the first had been killed before it was done
        again = with_images(table(row(1, caption="at last")), 1)
        commit_unit(with_unit(again, UNITS[0].name, 1), store, plan.units_folder)
        rewrite_part(store, plan.parts[0], SCHEMA, plan=plan)
        whole = with_images(table(row(0), row(1, caption="at last"), row(2)), 0, 1, 2)
        assert read_part(store, part).equals(whole.drop_columns([IMAGES.name]))
        assert store.read("_webdataset/part-00000.tar") == part_tar(0, whole, "caption"), "as if it had never failed"


def test_a_row_does_not_lose_what_it_had() -> None:
    rows = table(row(0), row(1), row(1, BROKEN), row(1, caption="third"), row(2, BROKEN))
    assert replace_rows(rows, table(row(1, GONE))).equals(rows)
    better = table(row(1), row(1, caption="second"), row(1, caption="third"))
    assert captions(replace_rows(rows, better)) == ["caption 0", "caption 1", "second", "third", None]
    other = replace_rows(rows, table(row(2, GONE)))
    assert other["error"].to_pylist()[4] == GONE, "of two errors the later one is true"


def test_a_picture_whose_check_failed_is_kept_if_it_cannot_be_drawn_again() -> None:
    unchecked = {**row(0), "error": {"stage": "check", "type": "MemoryError", "message": "no room"}}
    assert captions(replace_rows(table(unchecked), table(row(0, GONE)))) == ["caption 0"]
    assert captions(replace_rows(table(unchecked), table(row(0, caption="well")))) == ["well"]


def test_rows_that_are_not_in_the_part_or_stand_in_two_places_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 rows .* are not in the part, first \('s.tar', 7\)"):
        replace_rows(table(row(0)), table(row(7)))
    with pytest.raises(ValueError, match=r"row 0 of s.tar has answers in two places"):
        replace_rows(table(row(0), row(1), row(0)), table(row(1)))


def test_shards_that_have_changed_or_gone_are_named_before_anything_starts(tmp_path: Path) -> None:
    for name in ("same.tar", "longer.tar"):
        (tmp_path / name).write_bytes(b"12345")
    units = [
        Unit(seq, str(tmp_path), name, "webdataset", 0, 1, b"", size=size)
        for seq, (name, size) in enumerate([("same.tar", 5), ("longer.tar", 4), ("gone.tar", 5)])
    ]
    refuse_changed_shards(plan_parts(units[:1], 1), {"": ReadSettings(uri=str(tmp_path))})
    with pytest.raises(ConfigError) as caught:
        refuse_changed_shards(plan_parts(units, 1), {"": ReadSettings(uri=str(tmp_path))})
    changed, gone, advice = caught.value.faults
    assert "longer.tar is not what it was" in changed and "gone.tar" in gone
    assert "put the shards back" in advice


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_equal_rows_give_equal_bytes_however_they_were_put_together(cut: int) -> None:
    rows = table(*(row(n, GONE if n % 3 == 0 else None, "long " * 3000 + str(n)) for n in range(300)))
    pieces = pa.concat_tables([rows.slice(start, cut) for start in range(0, 300, cut)])
    assert parquet_bytes(pieces) == parquet_bytes(rows)
