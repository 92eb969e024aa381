"""A plan goes through the real steps on Ray, leaves nothing, and says what a run from Python then does."""

from pathlib import Path
from typing import Any

import pytest

from jobs import run
from jobs.demo.data import write_question_shards
from jobs.start import estimate_run, load_run
from tests.end_to_end.shards import write_shards
from tests.test_notebooks import NOTEBOOKS, ON_RAY, code_of

pytestmark = pytest.mark.ray


def test_a_plan_tells_what_the_run_then_does_and_writes_nothing(
    ray_session: None, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings: dict[str, Any] = {
        "read": {"uri": str(write_shards(tmp_path / "in", shards=2, rows=40))},
        "model": {"path": str(checkpoint), "device": "cpu"},
        "generate": {"slots": 4, "sampling": {"max_new_tokens": 4}},
        "write": {"uri": str(out), "unit_rows": 16},
        "job": {"kind": "caption", "prompt": "Describe this image."},
    }
    before = sorted(tmp_path.rglob("*"))
    estimate = estimate_run(load_run(settings, []), sample_seconds=300.0)
    assert sorted(tmp_path.rglob("*")) == before
    assert (estimate.rows, estimate.rows_left, estimate.shards, estimate.unit_rows) == (80, 80, 2, 16)
    assert estimate.sample_rows == 80, "all of it was sampled"
    outcome = run(settings)
    assert (outcome.result.rows, outcome.result.failed) == (80, round(80 * estimate.failed_share))
    assert outcome.report.numbers["prompt_tokens"] == pytest.approx(
        80 * (1 - estimate.failed_share) * estimate.tokens["prompt_tokens"].mean
    )
    assert 0 < estimate.seconds_least <= estimate.seconds <= estimate.seconds_most
    assert estimate.steps["generate"].seconds > 0 and not estimate.has_gpus
    again = run(settings, "generate.slots=2")
    assert again.result.answered == 0 and again.report.numbers["rows"] == 80


@pytest.mark.parametrize("name", ON_RAY)
def test_a_notebook_that_starts_a_run_runs(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_question_shards(tmp_path / "demo_output/shards/vqa", 60)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    said: dict[str, Any] = {}
    exec(compile(code_of(path), path.name, "exec"), said)
    assert (said["outcome"].result.rows, said["outcome"].result.failed) == (48, 0)
    assert Path(said["outcome"].report.page).is_file()
