"""What a run has committed is read back before it is done: each row once, in the order of the input."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import look_at, read_results
from pipeline.input.unit_files import UNIT_COLUMNS, units_to_parquet
from pipeline.pipeline_settings import WriteSettings
from pipeline.rows import IMAGES
from pipeline.settings import ConfigError
from pipeline.state import ledger
from pipeline.state.plan import cut_parts, freeze_plan, frozen_parts
from pipeline.steps.write import commit_unit, merge_part, unit_path
from pipeline.storage.store import Store
from tests.pipeline.test_write import SCHEMA, answered
from tests.pipeline.toys import ToyJob, units_of

UNITS = units_of(10, 3)  # rows 0-2, 3-5, 6-8 and 9
FOLDER = ledger.units_folder("me")


def planned_store(folder: Path) -> Store:
    """Make an output whose run has planned two parts of six rows."""
    store = Store(str(folder / "out"))
    ledger.freeze_settings(store, {"run": "me", "settings": {}})
    write = WriteSettings(uri=store.uri, rows_per_part=6)
    freeze_plan(store, UNITS, (), cut_parts(UNITS, write, ToyJob()))
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return planned_store(tmp_path)


def indices(store: Store) -> list[int]:
    return list(read_results(store.uri)["index"].to_pylist())


def test_committed_units_are_read_before_their_part_is_made_and_never_twice(store: Store) -> None:
    with pytest.raises(ConfigError, match="found no committed rows"):
        read_results(store.uri)
    for unit in (1, 3):
        commit_unit(answered(unit), store, FOLDER)
    assert indices(store) == [3, 4, 5, 9]
    commit_unit(answered(0), store, FOLDER)
    (first, second) = frozen_parts(store, UNITS, WriteSettings(uri=store.uri, rows_per_part=6), ToyJob())
    merge_part(store, first, SCHEMA, FOLDER)
    commit_unit(answered(0), store, FOLDER)  # a merge that was killed leaves some of its units
    files = look_at(store).files
    assert [(file.path, file.num_rows) for file in files] == [
        ("part-00000.parquet", 6),
        (unit_path(UNITS[3].name, FOLDER), 1),
    ]
    assert [file.size for file in files] == [len(store.read(file.path)) for file in files]
    assert indices(store) == [0, 1, 2, 3, 4, 5, 9]
    commit_unit(answered(2), store, FOLDER)
    merge_part(store, second, SCHEMA, FOLDER)
    assert indices(store) == list(range(10))


def test_images_on_their_way_to_a_tar_are_no_column_of_the_results(store: Store) -> None:
    rows = answered(1)
    commit_unit(rows.append_column(IMAGES, pa.array([[b"jpeg"]] * rows.num_rows, IMAGES.type)), store, FOLDER)
    assert read_results(store.uri).column_names == SCHEMA.names
    with pytest.raises(ConfigError, match=r"found no column input\.images"):
        read_results(store.uri, [IMAGES.name])


def test_only_the_columns_that_are_asked_for_are_read(store: Store) -> None:
    commit_unit(answered(1), store, FOLDER)
    assert read_results(store.uri, ["key", "error"]).column_names == ["key", "error"]
    with pytest.raises(ConfigError, match="found no column caption, expected some of key, shard"):
        read_results(store.uri, ["caption"])


def test_a_unit_that_is_merged_meanwhile_is_looked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in (0, 1):
        commit_unit(answered(unit), store, FOLDER)
    looked = look_at(store)
    (first, _) = frozen_parts(store, UNITS, WriteSettings(uri=store.uri, rows_per_part=6), ToyJob())
    merge_part(store, first, SCHEMA, FOLDER)
    answers = iter([looked, look_at(store)])
    monkeypatch.setattr("pipeline.results.look_at", lambda store: next(answers))
    assert indices(store) == list(range(6))


def test_units_of_a_run_that_was_replaced_are_no_results(store: Store) -> None:
    commit_unit(answered(0), store, ledger.units_folder("another"))
    commit_unit(answered(1), store, FOLDER)
    assert indices(store) == [3, 4, 5]


def test_plans_of_older_versions_give_finished_parts_and_their_runs_go_on_as_they_were_cut(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    ledger.freeze_settings(store, {"run": "me", "settings": {}})
    old = pq.read_table(pa.BufferReader(units_to_parquet(UNITS))).replace_schema_metadata()
    assert old.column_names == UNIT_COLUMNS.names
    sink = pa.BufferOutputStream()
    pq.write_table(old, sink)
    store.publish(ledger.PLAN, sink.getvalue().to_pybytes())
    for unit in (0, 1, 2):
        commit_unit(answered(unit), store, FOLDER)
    write = WriteSettings(uri=store.uri, rows_per_part=6)
    parts = frozen_parts(store, UNITS, write, ToyJob())
    assert [len(part.units) for part in parts] == [2, 2]
    assert [len(part.units) for part in frozen_parts(store, UNITS, WriteSettings(uri="x"), ToyJob())] == [4]
    merge_part(store, parts[0], SCHEMA, FOLDER)
    assert [(file.path, file.num_rows) for file in look_at(store).files] == [("part-00000.parquet", None)]


def test_the_first_part_is_small_unless_the_settings_say_how_large_parts_are() -> None:
    many = units_of(30_000, 100)
    sizes = [sum(unit.num_rows for unit in part.units) for part in cut_parts(many, WriteSettings(uri="x"), ToyJob())]
    assert sizes == [300, 10_000, 10_000, 9_700]
    said = WriteSettings(uri="x", rows_per_part=10_000)
    assert [sum(unit.num_rows for unit in part.units) for part in cut_parts(many, said, ToyJob())] == [10_000] * 3
