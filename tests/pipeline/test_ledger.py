"""One output, one run: what another has replaced writes nothing more there, and nothing of it is taken for its own."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.input.units import Unit
from pipeline.run import commit_log_of, freeze
from pipeline.settings import ConfigError
from pipeline.state import ledger
from pipeline.state.ledger import RunError, RunReplaced
from pipeline.state.plan import freeze_plan
from pipeline.steps.write import plan_parts, unit_path
from pipeline.storage.store import Entry, Store
from tests.pipeline.drivers import (
    DEVICES,
    SCHEMA,
    UNITS,
    attempt,
    begun,
    captions,
    commit,
    ready_of,
    settings_of,
)
from tests.pipeline.inputs import names
from tests.pipeline.toys import ToyJob, units_of
from tests.s3 import S3


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        return Store(s3.uri, s3.settings)
    name = uuid.uuid4().hex
    return Store(f"memory://{name}" if request.param == "memory" else str(request.getfixturevalue("tmp_path") / name))


def test_answers_of_a_run_that_was_replaced_do_not_get_into_the_other_ones_parts(store: Store) -> None:
    old = begun(store)
    commit(store, old, 0, "old")
    new = begun(store)
    commit(store, old, 1, "old")  # its driver and its workers live on
    commit(store, new, 1, "new")
    commit(store, new, 0, "new")
    assert ledger.read_output(store).units == {"00000000", "00000001"}
    attempt(store, new).run()
    assert captions(store) == ["new"] * 4
    ledger.sweep(store)
    assert not [name for name in names(store) if "/units/" in name]


def test_a_start_that_was_killed_is_written_down_by_the_next_one_and_once(store: Store) -> None:
    run = begun(store)
    commit(store, run, 0, "well")
    said = {"state": "answering", "attempt": "20260101T000000Z-a", "seconds": 9.5, "answered": 2, "series": [[1.0, 0]]}
    ledger.write_progress(store, said)
    commit(store, run, 1, "well")
    attempt(store, run).run()
    killed, own = ledger.read_attempts(store, ledger.read_output(store).paths)
    assert killed == {**said, "outcome": "killed"} and own["outcome"] == "done"
    progress = ledger.read_progress(store)
    assert progress is not None and progress["state"] == "done"
    assert f"{ledger.ATTEMPTS}/{progress['attempt']}.json" in names(store)
    assert ledger.unended_start(progress, ledger.read_output(store).paths) is None
    attempt(store, run).run()
    outcomes = [one["outcome"] for one in ledger.read_attempts(store, ledger.read_output(store).paths)]
    assert len(outcomes) == 3 and outcomes.count("killed") == 1


def test_a_run_that_was_replaced_hears_of_it_and_leaves_nothing(store: Store) -> None:
    old = begun(store)
    commit_log = commit_log_of(store, old)
    new = begun(store)
    for unit in (0, 1):
        commit(store, old, unit, "old")
    before = names(store)
    with pytest.raises(
        RunReplaced, match=r"another run has replaced this one in .*\(_triptych/settings.json is no longer"
    ):
        attempt(store, old).run()
    with pytest.raises(RunReplaced):
        commit_log.merge(store, plan_parts(UNITS, 2)[0], SCHEMA)
    store.delete([unit_path(UNITS[0].name, ledger.units_folder(old.run))])
    with pytest.raises(RunReplaced):  # and not that a unit is gone
        commit_log.merge(store, plan_parts(UNITS, 2)[0], SCHEMA)
    with pytest.raises(RunReplaced):
        freeze(settings_of(store), ToyJob(), store, replace(old, is_started=True), DEVICES)
    assert [name for name in before if "/units/" not in name] == [ledger.PLAN, ledger.SETTINGS]
    assert set(names(store)) < set(before), "no part, no attempt, no mark"
    ledger.sweep(store, ledger.units_folder(new.run))
    assert names(store) == [ledger.PLAN, ledger.SETTINGS]


def test_a_part_that_is_on_its_way_while_its_run_is_replaced_is_taken_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = begun(store)
    commit(store, old, 0, "old")
    (part, _) = plan_parts(UNITS, 2)
    publish, replacing = Store.publish, [part.path]

    def late(self: Store, path: str, data: bytes) -> bool:
        if path in replacing:
            replacing.clear()
            begun(self)
        return publish(self, path, data)

    monkeypatch.setattr(Store, "publish", late)
    with pytest.raises(RunReplaced):
        commit_log_of(store, old).merge(store, part, SCHEMA)
    assert not replacing and names(store) == [ledger.PLAN, ledger.SETTINGS]


def test_a_part_that_stands_is_left_alone_by_another_driver_that_answered_its_rows_again(store: Store) -> None:
    both = begun(store)
    (part, _) = plan_parts(UNITS, 2)
    for caption in ("first", "second"):
        commit(store, both, 0, caption)
        commit_log_of(store, both).merge(store, part, SCHEMA)
    assert captions(store) == ["first"] * 2 and not ledger.read_output(store).units


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
    assert ledger.read_output(store).parts == frozenset()


def test_a_plan_that_another_starting_run_has_left_is_never_gone_on_with(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(store: Store, units: Sequence[Unit], *more: Any) -> list[Unit]:
        """Let the plan of a run that was replaced while it started arrive before ours."""
        freeze_plan(store, units_of(4, 1))
        return freeze_plan(store, units, *more)

    monkeypatch.setattr("pipeline.run.freeze_plan", late)
    with pytest.raises(RunError, match=r"another run that started in .* at the same time left its plan there"):
        begun(store)
    assert names(store) == [], "the next start begins anew"


def test_two_drivers_that_start_at_once_are_one_run(store: Store) -> None:
    found = ready_of(store)
    first, second = (freeze(settings_of(store), ToyJob(), store, found, DEVICES) for _ in range(2))
    third = begun(store, "resume")
    assert first.run == second.run == third.run != "" and third.is_started
    commit(store, first, 0, "well")
    commit(store, third, 1, "well")
    attempt(store, second).run()
    attempt(store, first).run()
    assert captions(store) == ["well"] * 4
    with pytest.raises(ConfigError, match=r"model.path: was 'model', now 'another'"):
        freeze(settings_of(store, model={"path": "another"}), ToyJob(), store, found, DEVICES)


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
    assert ledger.read_output(store).units == {"00000000", "00000001"}
    attempt(store, old).run()
    assert captions(store) == ["early"] * 2 + ["late"] * 2


def test_a_unit_that_is_merged_while_an_output_is_listed_is_not_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(store)
    commit(store, run, 0, "well")
    merge, lists, listed = commit_log_of(store, run).merge, Store.list, list[str]()

    def meanwhile(self: Store, prefix: str = "") -> list[Entry]:
        found = lists(self, prefix)
        if not listed:
            listed.append(prefix)
            merge(store, plan_parts(UNITS, 2)[0], SCHEMA)
        return found

    monkeypatch.setattr(Store, "list", meanwhile)
    output = ledger.read_output(store)
    assert listed and output.parts == {0} and output.units == {UNITS[0].name}


def test_a_run_that_goes_on_with_other_packages_says_which(caplog: pytest.LogCaptureFixture) -> None:
    now = ledger.versions()
    ledger.warn_of_other_versions({"versions": now})
    assert not caplog.records
    ledger.warn_of_other_versions({"versions": {**now, "pyarrow": "1.0", "pillow": "2.0"}})
    (said,) = caplog.messages
    assert f"pillow (was 2.0, now {now['pillow']}), pyarrow (was 1.0, now {now['pyarrow']})" in said
