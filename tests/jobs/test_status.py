"""How a run stands is said from its output alone, while it runs and after it has ended."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.report.results import ReportError
from jobs.status import read_status, status_lines, watch
from pipeline.execution.progress import Tracker, progress_numbers
from pipeline.rows import STEP_SECONDS
from pipeline.state import ledger
from pipeline.steps.write import commit_unit
from pipeline.storage.store import Store
from tests.pipeline.test_results import FOLDER, planned_store
from tests.pipeline.test_write import answered


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return planned_store(tmp_path)


def written(store: Store, ago_s: float = 1.0, **state: str) -> None:
    """Write a progress down as a run does."""
    failures = [{"stage": "fetch", "type": "NotFound", "count": 2, "key": "a", "message": "gone"}]
    unit = {"rows": 3, "answers": 3, "failed": 2, "prompt_tokens": 9, "output_tokens": 6, "failures": failures}
    tracker = Tracker(10, 1)
    for seconds in (1.0, 11.0):
        progress = tracker.add({**unit, STEP_SECONDS: {"decode": 9.0, "idle": 1.0}}, seconds)
    more = {"started": moment(100), "written": moment(ago_s), "period_s": 15.0, "host": "node-1", **state}
    ledger.write_progress(store, {**progress_numbers(progress, 0.0), **more})


def moment(ago_s: float) -> str:
    return time.strftime(ledger.UTC, time.gmtime(time.time() - ago_s))


def attempt(store: Store, outcome: str, number: int) -> None:
    numbers = {"outcome": outcome, "started": moment(500 - number), "seconds": 61.0, "answered": 3, "failed": 1}
    ledger.write_attempt(store, f"{number}", {**numbers, "host": "node-1"})


def said(store: Store) -> str:
    return "\n".join(status_lines(read_status(store)))


def test_a_run_that_runs_says_how_far_how_fast_and_what_fails(store: Store) -> None:
    commit_unit(answered(0), store, FOLDER)
    attempt(store, "interrupted", 1)
    written(store)
    status = read_status(store)
    assert (status["state"], status["done"], status["rows"], status["parts"], status["planned_parts"]) == (
        "answering", 3, 10, 0, 2
    )  # fmt: skip
    words = said(store)
    assert f"{store.uri} is running: 3 of 10 rows are committed, 0 of 2 parts made" in words
    assert "on node-1 since" in words and "decode takes longest" in words and "engine 90% busy" in words
    assert "fetch NotFound (4), such as row a: gone" in words
    assert "interrupted after 1:01, 3 rows, 1 failed" in words


def test_a_run_that_has_written_nothing_for_a_minute_was_killed(store: Store) -> None:
    written(store, ago_s=50)
    assert read_status(store)["state"] == "answering"
    written(store, ago_s=200)
    assert read_status(store)["state"] == "silent"
    assert "most likely killed; the same command continues it" in said(store)


@pytest.mark.parametrize("state", ["interrupted", "failed", "too many failed"])
def test_a_run_that_has_ended_says_how(store: Store, state: str) -> None:
    written(store, ago_s=10_000, state=state)
    assert read_status(store)["state"] == state


def test_the_mark_in_the_output_says_whether_a_finished_run_is_well(store: Store) -> None:
    written(store, ago_s=10_000)  # its last words did not get through
    ledger.mark_finished(store, None)
    assert read_status(store)["state"] == "done"
    ledger.mark_finished(store, "too many")
    assert read_status(store)["state"] == "too many failed"
    written(store)  # a retry
    assert read_status(store)["state"] == "answering"


def test_runs_that_write_no_progress_are_said_to(store: Store) -> None:
    assert "has not said how it stands: 0 of 10 rows" in said(store)


def test_a_look_reads_the_plan_once_and_lists_the_output_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store)
    commit_unit(answered(0), store, FOLDER)
    asked: Counter[str] = Counter()
    read, listed = Store.read, Store.list

    def counted_read(self: Store, path: str, *more: int) -> bytes:
        asked[path] += 1
        return read(self, path, *more)

    def counted_list(self: Store, folder: str = "") -> Any:
        asked[f"list {folder}"] += 1
        return listed(self, folder)

    monkeypatch.setattr(Store, "read", counted_read)
    monkeypatch.setattr(Store, "list", counted_list)
    assert read_status(store)["done"] == 3
    assert (asked[ledger.PLAN], asked["list "]) == (1, 1)


def test_watching_ends_with_the_run(store: Store) -> None:
    written(store)
    shown: list[Any] = []

    def show(status: Any) -> None:
        shown.append(status["state"])
        written(store, state="done")
        ledger.mark_finished(store, None)

    assert watch(store, show, every_s=0.0)["state"] == "done"
    assert shown == ["answering", "done"]


def test_the_command_says_it_in_words_and_in_json(
    store: Store,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    written(store)
    assert main(["status", store.uri]) == 0
    assert "is running" in capsys.readouterr().out
    assert main(["status", store.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bottleneck"] == "decode"
    assert main(["status", str(tmp_path / "nothing")]) == 1
    assert "found no run in" in capsys.readouterr().err
    with pytest.raises(ReportError):
        read_status(Store(str(tmp_path / "nothing")))
