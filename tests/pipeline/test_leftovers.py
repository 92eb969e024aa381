"""What killed drivers and killed removals leave is cleared away, and is never taken for results."""

import subprocess
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.preflight.check import check
from pipeline.retry import retry
from pipeline.run import commit_log_of, freeze, run
from pipeline.state import ledger
from pipeline.steps.write import plan_parts, unit_path
from pipeline.storage.local_disk import machine
from pipeline.storage.store import Store
from tests.end_to_end.shards import write_shards
from tests.pipeline.drivers import DEVICES, SCHEMA, begun, commit, settings_of
from tests.pipeline.inputs import names
from tests.pipeline.toys import ToyJob
from tests.tiny import tiny_mllama


def test_whatever_starts_clears_away_what_was_left_even_if_all_is_done(tmp_path: Path) -> None:
    checkpoint = tiny_mllama(tmp_path / "mllama")
    store = Store(str(tmp_path / "out"))
    read = {"uri": str(write_shards(tmp_path / "in", shards=1, rows=4))}
    settings = settings_of(store, read=read, model={"path": str(checkpoint), "device": "cpu"})
    job = ToyJob(has_text_only_rows=True, required=())
    done = freeze(settings, job, store, check(settings, job, store), DEVICES)
    for number, part in enumerate(plan_parts(done.plan.units, 2)):
        commit(store, done, number, "well")
        commit_log_of(store, done).merge(store, part, SCHEMA)
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


def test_what_replacing_removes_of_an_unfinished_run_is_said(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}")
    old = begun(store)
    assert not caplog.records
    commit(store, old, 1, "old")
    begun(store)
    assert caplog.messages == [f"removing 0 parts and 1 units of an unfinished run from {store.uri}"]


class Killed(BaseException):
    """The driver is no more."""


def test_a_removal_that_is_killed_anywhere_leaves_no_part_that_another_plan_could_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, delete = Store(f"memory://{uuid.uuid4().hex}"), Store.delete

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
            ledger.clear(store, ledger.read_output(store))
        output = ledger.read_output(store)
        assert output.is_started and (done == 0 or not output.is_done)
        assert output.is_planned or not (output.parts or output.units)
    ledger.clear(store, ledger.read_output(store))
    assert names(store) == []
