"""`triptych retry` on real runs, and what `triptych run` says about failed rows and finished runs."""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from jobs.__main__ import main
from jobs.start import retry_settings
from pipeline.execution.attempt import Progress
from pipeline.retry import retry
from tests.end_to_end.shards import png, results
from tests.promise import part_faults, parts_in

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ROOT = Path(__file__).resolve().parents[2]

ROWS = 24
LATE, BROKEN = (1, 2, 13), 20  # pictures that come later, and one that never gets better


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A manifest of 24 pictures; three of them are not there, and one is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(ROWS):
        if number not in LATE:
            (folder / f"{number}.png").write_bytes(b"<html>" if number == BROKEN else png(number))
    lines = [json.dumps({"key": f"row {number}", "image": f"{number}.png"}) for number in range(ROWS)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder


def config(pictures: Path, checkpoint: Path, out: Path) -> str:
    values = {
        "read": {"uri": str(pictures / "rows.jsonl"), "columns": {"key": "key"}},
        "model": {"path": str(checkpoint), "device": "cpu"},
        "generate": {"slots": 4, "gpus": 0, "sampling": {"max_new_tokens": 4, "temperature": 1.0, "seed": 11}},
        "write": {"uri": str(out), "unit_rows": 3, "rows_per_part": 9},
        "job": {"kind": "caption", "prompt": "Describe this image."},
    }
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return str(path)


def said(capsys: pytest.CaptureFixture[str], command: Sequence[str], code: int) -> str:
    """Run a command in this process and return what it said."""
    capsys.readouterr()
    assert main(command) == code
    told = capsys.readouterr()
    return told.out + told.err


def failed(out: Path) -> list[int]:
    return [row["index"] for row in results(out).to_pylist() if row["error"] is not None]


def before(out: Path, number: int) -> list[dict[str, Any]]:
    """What a retry wrote down of the rows that it ran again."""
    plan = pq.read_table(io.BytesIO((out / f"_triptych/retries/{number:04d}/plan.parquet").read_bytes()))
    return [row for rows in plan["before"].to_pylist() for row in rows]


def outcomes(out: Path) -> list[tuple[str, int | None]]:
    attempts = [json.loads(path.read_text()) for path in sorted((out / "_triptych/attempts").iterdir())]
    attempts.sort(key=lambda attempt: attempt["started"])
    return [(attempt["outcome"], attempt.get("retry")) for attempt in attempts]


def stop(progress: Progress) -> None:
    """Do as Ctrl-C does, when the first unit has come."""
    if progress.answered:
        raise KeyboardInterrupt


@pytest.mark.timeout(900)
def test_failed_rows_are_run_again_until_the_parts_are_those_of_an_input_that_was_whole(
    tmp_path: Path, pictures: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run = ["run", config(pictures, checkpoint, out)]
    words = said(capsys, run, 3)
    assert "16.7% of the rows failed, limits.max_failed_share is 5.0%" in words
    assert "fetch NotFound (3), such as row" in words and "decode BadImage (1), such as row" in words
    assert f"triptych retry {out}" in words
    assert (out / "_TOO_MANY_FAILED").exists() and not (out / "_SUCCESS").exists()
    assert failed(out) == [*LATE, BROKEN]
    first = parts_in(out)

    words = said(capsys, ["retry", str(out)], 3)
    assert "4 failed rows were run again: 0 succeeded, 4 failed again" in words
    assert "fetch NotFound: 3" in words
    assert parts_in(out) == first, "what fails again for the same reason gives the same bytes"

    for number in LATE:
        (pictures / f"{number}.png").write_bytes(png(number))
    words = said(capsys, ["retry", str(out), "generate.sampling.seed=3", "read.limit=5"], 2)
    assert "generate.sampling.seed: was 11, now 3" in words and "read.limit: was nothing, now 5" in words
    settings = retry_settings(str(out), ["generate.slots=2"])
    with pytest.raises(KeyboardInterrupt):
        retry(settings, settings.job.build(), progress=stop)
    words = said(capsys, ["retry", str(out), "generate.slots=3"], 0)
    assert "4 failed rows were run again: 3 succeeded, 1 failed again" in words
    assert (out / "_SUCCESS").exists() and not (out / "_TOO_MANY_FAILED").exists()
    assert failed(out) == [BROKEN]

    whole = tmp_path / "whole"
    assert said(capsys, ["run", config(pictures, checkpoint, whole)], 0)
    assert part_faults(parts_in(out), parts_in(whole)) == []
    assert [row["index"] for row in before(out, 2)] == [*LATE, BROKEN]
    assert {row["error"]["type"] for row in before(out, 2)} == {"NotFound", "BadImage"}
    assert outcomes(out) == [("done", None), ("done", 1), ("interrupted", 2), ("done", 2)]
    left = sorted(path.relative_to(out).as_posix() for path in out.glob("_triptych/[ur]*/**/*.*"))
    expected = [f"_triptych/retries/{n:04d}/part-{part:05d}.json" for n in (1, 2) for part in (0, 1, 2)]
    assert [name for name in left if not name.endswith("plan.parquet")] == expected
    assert json.loads((out / "_report/report.json").read_text())["failed"] == 1

    (pictures / "rows.jsonl").write_text("another")
    words = said(capsys, ["retry", str(out)], 2)
    assert "rows.jsonl is not what it was when the run was planned" in words and "put the shards back" in words
    assert part_faults(parts_in(out), parts_in(whole)) == []


def test_a_finished_run_starts_no_ray_and_one_without_failures_has_nothing_to_retry(
    tmp_path: Path, pictures: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (*LATE, BROKEN):
        (pictures / f"{number}.png").write_bytes(png(number))
    out = tmp_path / "out"
    path = config(pictures, checkpoint, out)
    assert said(capsys, ["run", path, "read.limit=6"], 0)
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if "_report" not in path.parts}
    script = f"import sys\nfrom jobs.__main__ import main\nprint(main({['run', path, 'read.limit=6']}))\n"
    script += f"print(main({['retry', str(out)]}), 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "finished before, nothing to do: 6 rows, 0 failed"
    assert "no row failed, nothing to do: 6 rows" in lines
    assert "0" in lines and lines[-1] == "0 False"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if "_report" not in path.parts} == written
