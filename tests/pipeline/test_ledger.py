"""One output, one run: what another has replaced writes nothing more there, and nothing of it is taken for its own."""

import io
import json
import subprocess
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import ledger
from pipeline.cluster.placement import Placement
from pipeline.ledger import RunError, RunReplaced
from pipeline.pipeline_settings import PipelineSettings
from pipeline.plan import freeze_plan
from pipeline.preflight.check import Ready, check
from pipeline.retry import retry
from pipeline.rounds import Rounds
from pipeline.rows import part_schema, with_unit
from pipeline.run import books_of, freeze, run, work_of
from pipeline.settings import ConfigError, check_settings
from pipeline.storage.local_disk import machine
from pipeline.storage.store import Entry, Store
from pipeline.units import Unit
from pipeline.write import commit_unit, plan_parts, unit_path
from tests.end_to_end.shards import write_shards
from tests.pipeline.toys import READ_SCHEMA, ToyJob, units_of
from tests.s3 import S3
from tests.tiny import tiny_mllama

DEVICES = {"device": "cpu", "check_device": ""}
INPUT = READ_SCHEMA.serialize().to_pybytes()
UNITS = [replace(unit, schema=INPUT) for unit in units_of(4, 2)]
SCHEMA = part_schema(READ_SCHEMA, ToyJob())
PLACEMENT = Placement(1, 1.0, 1, 1.0, 0.0)


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        return Store(s3.uri, s3.settings)
    name = uuid.uuid4().hex
    return Store(f"memory://{name}" if request.param == "memory" else str(request.getfixturevalue("tmp_path") / name))


def settings_of(store: Store, on_existing: str = "resume", **sections: Any) -> PipelineSettings:
    values = {
        "read": {"uri": "memory://in"},
        "model": {"path": "model"},
        "write": {"uri": store.uri, "unit_rows": 2, "rows_per_part": 2, "on_existing": on_existing},
    }
    return check_settings(PipelineSettings, {**values, **sections})


def ready_of(store: Store, units: Sequence[Unit] = UNITS) -> Ready:
    """What the checks of a start find out."""
    output = ledger.look(store)
    return Ready("model", list(units), "w", is_started=output.is_planned, is_done=output.is_done, run=output.run)


def begun(store: Store, on_existing: str = "replace", units: Sequence[Unit] = UNITS) -> Ready:
    """Start a run: its settings and its plan stand there."""
    found = replace(ready_of(store, units), is_started=False) if on_existing == "replace" else ready_of(store, units)
    return freeze(settings_of(store, on_existing), store, found, DEVICES)


def commit(store: Store, run: Ready, unit: int, caption: str) -> None:
    """Do as a worker of a run does that has answered a unit."""
    places = range(UNITS[unit].start, UNITS[unit].stop)
    rows = [{"key": str(n), "shard": "s.tar", "index": n, "finish_reason": "stop", "caption": caption} for n in places]
    table = with_unit(pa.Table.from_pylist(rows, schema=SCHEMA), UNITS[unit].name, UNITS[unit].num_rows)
    commit_unit(table, store, ledger.units_folder(run.run))


def rounds(store: Store, run: Ready) -> Rounds:
    work = work_of(settings_of(store), ToyJob(), store, run, **DEVICES)
    return Rounds(plan_parts(run.units, 2), work, PLACEMENT, None, books_of(store, run))


def names(store: Store) -> list[str]:
    return [entry.path for entry in store.list()]


def captions(store: Store) -> list[str]:
    parts = [pq.read_table(io.BytesIO(store.read(path))) for path in ledger.part_paths(store)]
    return [caption for part in parts for caption in part["caption"].to_pylist()]


def test_answers_of_a_run_that_was_replaced_do_not_get_into_the_other_ones_parts(store: Store) -> None:
    old = begun(store)
    commit(store, old, 0, "old")
    new = begun(store)
    commit(store, old, 1, "old")  # its driver and its workers live on
    commit(store, new, 1, "new")
    commit(store, new, 0, "new")
    assert ledger.look(store).units == {"00000000", "00000001"}
    rounds(store, new).run()
    assert captions(store) == ["new"] * 4
    ledger.sweep(store)
    assert not [name for name in names(store) if "/units/" in name]


def test_a_run_that_was_replaced_hears_of_it_and_leaves_nothing(store: Store) -> None:
    old = begun(store)
    books = books_of(store, old)
    new = begun(store)
    for unit in (0, 1):
        commit(store, old, unit, "old")
    before = names(store)
    with pytest.raises(RunReplaced, match=r"another run has replaced this one in .*\(its _triptych/settings.json is"):
        rounds(store, old).run()
    with pytest.raises(RunReplaced):
        books.merge(store, plan_parts(UNITS, 2)[0], SCHEMA)
    store.delete([unit_path(UNITS[0].name, ledger.units_folder(old.run))])
    with pytest.raises(RunReplaced):  # and not that a unit is gone
        books.merge(store, plan_parts(UNITS, 2)[0], SCHEMA)
    with pytest.raises(RunReplaced):
        freeze(settings_of(store), store, replace(old, is_started=True), DEVICES)
    assert [name for name in before if "/units/" not in name] == [ledger.PLAN, ledger.SETTINGS]
    assert set(names(store)) < set(before), "no part, no attempt, no mark"
    ledger.sweep(store, ledger.units_folder(new.run))
    assert names(store) == [ledger.PLAN, ledger.SETTINGS]


def test_a_part_that_a_replaced_run_sent_off_before_it_could_know_is_written_over(store: Store) -> None:
    new = begun(store)
    commit(store, new, 0, "new")
    commit(store, new, 1, "new")
    (part, _) = plan_parts(UNITS, 2)
    store.publish(part.path, b"rows of another run")
    books_of(store, new).merge(store, part, SCHEMA)
    assert captions(store) == ["new"] * 2


def test_parts_that_a_replaced_run_sent_off_meanwhile_are_gone_before_the_first_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(store)
    publish = Store.publish

    def late(self: Store, path: str, data: bytes) -> bool:
        """Let the old run's part arrive just behind the new one's settings."""
        done = publish(self, path, data)
        return publish(self, "part-00000.parquet", b"old") and done if path == ledger.SETTINGS else done

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", late)
        begun(store)
    assert ledger.look(store).parts == frozenset()


def test_a_plan_that_another_starting_run_has_left_is_never_gone_on_with(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(store: Store, units: Sequence[Unit], warnings: Sequence[str]) -> list[Unit]:
        """Let the plan of a run that was replaced while it started arrive before ours."""
        freeze_plan(store, units_of(4, 1))
        return freeze_plan(store, units, warnings)

    monkeypatch.setattr("pipeline.run.freeze_plan", late)
    with pytest.raises(RunError, match=r"another run that was starting in .* has left its plan there"):
        begun(store)
    assert names(store) == [], "the next start begins anew"


def test_two_drivers_that_start_at_once_are_one_run(store: Store) -> None:
    found = ready_of(store)
    first, second = (freeze(settings_of(store), store, found, DEVICES) for _ in range(2))
    third = begun(store, "resume")
    assert first.run == second.run == third.run != "" and third.is_started
    commit(store, first, 0, "well")
    commit(store, third, 1, "well")
    rounds(store, second).run()
    rounds(store, first).run()
    assert captions(store) == ["well"] * 4
    with pytest.raises(ConfigError, match=r"model.path: was 'model', now 'another'"):
        freeze(settings_of(store, model={"path": "another"}), store, found, DEVICES)


def test_a_run_of_an_earlier_version_goes_on_where_its_units_stand(store: Store) -> None:
    begun(store)
    frozen = ledger.read_settings(store)
    del frozen["run"]
    store.replace(ledger.SETTINGS, json.dumps(frozen).encode())
    old = begun(store, "resume")
    assert old.is_started and ledger.units_folder(old.run) == "_triptych/units"
    commit(store, old, 0, "early")
    commit(store, old, 1, "late")
    ledger.sweep(store, ledger.units_folder(old.run))
    assert ledger.look(store).units == {"00000000", "00000001"}
    rounds(store, old).run()
    assert captions(store) == ["early"] * 2 + ["late"] * 2


def test_a_unit_that_is_merged_while_an_output_is_listed_is_not_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(store)
    commit(store, run, 0, "well")
    merge, lists, listed = books_of(store, run).merge, Store.list, list[str]()

    def meanwhile(self: Store, prefix: str = "") -> list[Entry]:
        found = lists(self, prefix)
        if not listed:
            listed.append(prefix)
            merge(store, plan_parts(UNITS, 2)[0], SCHEMA)
        return found

    monkeypatch.setattr(Store, "list", meanwhile)
    output = ledger.look(store)
    assert listed and output.parts == {0} and output.units == {UNITS[0].name}


def test_a_run_that_goes_on_with_other_packages_says_which(caplog: pytest.LogCaptureFixture) -> None:
    now = ledger.versions()
    ledger.warn_of_other_versions({"versions": now})
    assert not caplog.records
    ledger.warn_of_other_versions({"versions": {**now, "pyarrow": "1.0", "pillow": "2.0"}})
    (said,) = caplog.messages
    assert f"pillow (was 2.0, now {now['pillow']}), pyarrow (was 1.0, now {now['pyarrow']})" in said


def test_whatever_starts_clears_away_what_was_left_even_if_all_is_done(tmp_path: Path) -> None:
    checkpoint = tiny_mllama(tmp_path / "mllama")
    store = Store(str(tmp_path / "out"))
    read = {"uri": str(write_shards(tmp_path / "in", shards=1, rows=4))}
    settings = settings_of(store, read=read, model={"path": str(checkpoint), "device": "cpu"})
    job = ToyJob(has_text_only_rows=True, required=())
    done = freeze(settings, store, check(settings, job, store), DEVICES)
    for number, part in enumerate(plan_parts(done.units, 2)):
        commit(store, done, number, "well")
        books_of(store, done).merge(store, part, SCHEMA)
    store.publish(ledger.SUCCESS, b"")
    dead = subprocess.Popen(["true"])
    dead.wait()

    def leave() -> list[Path]:
        """What a killed driver left half written, and what workers committed that outlived it."""
        left = [tmp_path / "out" / f".part-00000.parquet.{machine()}-{dead.pid}-01234567.unfinished"]
        left += [tmp_path / "out" / unit_path("00000000", ledger.units_folder(name)) for name in (done.run, "old")]
        for path in left:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return left

    for start in (run, retry):
        left = leave()
        start(settings, job)
        assert not [path for path in left if path.exists()]
    assert store.exists(ledger.SUCCESS)


class Killed(BaseException):
    """The driver is no more."""


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_removal_that_is_killed_anywhere_leaves_no_part_that_another_plan_could_claim(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = Store.delete

    def fill() -> None:
        run = begun(store)
        commit(store, run, 0, "old")
        for path in ("part-00000.parquet", "_webdataset/part-00000.tar", "_report/report.html", ledger.SUCCESS):
            store.publish(path, b"")

    def killed_after(done: int) -> Callable[[Store, Sequence[str]], None]:
        left = [None] * done

        def delete_some(self: Store, paths: Sequence[str]) -> None:
            for path in paths:
                if not left:
                    raise Killed
                left.pop()
                delete(self, [path])

        return delete_some

    fill()
    num_files = len(names(store))
    for done in range(num_files):
        fill()
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Store, "delete", killed_after(done))
            ledger.clear(store, ledger.look(store))
        output = ledger.look(store)
        assert output.is_started and (done == 0 or not output.is_done)
        assert output.is_planned or not (output.parts or output.units)
    ledger.clear(store, ledger.look(store))
    assert names(store) == []
