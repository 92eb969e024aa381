"""A run works however it is started and however it is stopped. Each test has a process and a Ray of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.shards import results, write_shards
from tests.promise import parts_in

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, sys
from jobs.caption import CaptionSettings
from pipeline.pipeline_settings import PipelineSettings
from pipeline.run import run
from pipeline.settings import check_settings

settings = check_settings(PipelineSettings, json.loads(sys.argv[1]))
job = CaptionSettings(kind="caption", prompt="Describe this image.").build()
result = run(settings, job, progress=lambda progress: print(progress.done, flush=True))
import pipeline
print(json.dumps({"rows": result.rows, "answered": result.answered, "from": pipeline.__file__}))
"""

LOOK = """
import json, sys
from jobs.caption import CaptionSettings
from pipeline import ConfigError
from pipeline.pipeline_settings import PipelineSettings
from pipeline.run import run
from pipeline.settings import check_settings

def look(progress):
    import ray._private.state
    found["actors"] = sorted(actor["ActorClassName"] for actor in ray._private.state.actors().values())

found = {"faults": []}
settings = check_settings(PipelineSettings, json.loads(sys.argv[1]))
job = CaptionSettings(kind="caption", prompt="Describe this image.").build()
try:
    run(settings, job, progress=look, ends_ray=True)
except ConfigError as error:
    found["faults"] = error.faults
import ray
print(json.dumps({**found, "is_in_ray": ray.is_initialized()}))
"""


def start(
    folder: Path,
    python_path: Path,
    uri: Path,
    checkpoint: Path,
    out: Path,
    script: str = SCRIPT,
    **sections: dict[str, object],
) -> "subprocess.Popen[str]":
    """Start a run in a process whose working directory is `folder` and which finds the code in `python_path`."""
    folder.mkdir(exist_ok=True)
    settings = {
        "read": {"uri": str(uri)},
        "model": {"path": str(checkpoint), "device": "cpu"},
        "generate": {"slots": 4, "sampling": {"max_new_tokens": 4}},
        "write": {"uri": str(out), "unit_rows": 8, "rows_per_part": 20},
        "ray": {"object_store_bytes": 200 * 2**20},
        **sections,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(settings)],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(python_path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> dict[str, object]:
    """Wait for a run and return what it printed last."""
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert errors == "", "a run is quiet unless it has something to say"
    said = json.loads(output.splitlines()[-1])
    assert isinstance(said, dict)
    return said


def test_a_run_works_from_another_folder_and_says_nothing_of_ray(tmp_path: Path, checkpoint: Path) -> None:
    shards = write_shards(tmp_path / "in", shards=1, rows=8)
    said = finish(start(tmp_path / "elsewhere", ROOT, shards, checkpoint, tmp_path / "out"))
    assert (said["rows"], said["answered"]) == (8, 8)


def test_a_run_works_from_an_installed_wheel(tmp_path: Path, checkpoint: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "wheel"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    shards = write_shards(tmp_path / "in", shards=1, rows=8)
    said = finish(start(tmp_path / "elsewhere", site, shards, checkpoint, tmp_path / "out"))
    assert (said["rows"], said["answered"]) == (8, 8)
    assert str(said["from"]).startswith(str(site))


def test_a_ray_of_our_own_has_our_actors_alone_and_ends_with_the_run(tmp_path: Path, checkpoint: Path) -> None:
    shards = write_shards(tmp_path / "in", shards=1, rows=8)
    done = finish(start(tmp_path / "elsewhere", ROOT, shards, checkpoint, tmp_path / "out", LOOK))
    assert done["faults"] == [] and not done["is_in_ray"]
    names = [str(name).partition("(")[0] for name in done["actors"]]  # type: ignore[attr-defined]
    assert names == ["CrashLedger", "MapWorker", "MapWorker"]


def test_a_ray_that_was_begun_is_stopped_where_weights_do_not_fit(tmp_path: Path, checkpoint: Path) -> None:
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    config = (broken / "config.json").read_text()
    (broken / "config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 64'))
    shards = write_shards(tmp_path / "in", shards=1, rows=8)
    done = finish(start(tmp_path / "elsewhere", ROOT, shards, broken, tmp_path / "out", LOOK))
    assert [str(fault).split(":")[0] for fault in done["faults"]] == ["model.path"]  # type: ignore[attr-defined]
    assert not done["is_in_ray"] and not (tmp_path / "out").exists()


def test_an_interrupted_run_keeps_what_is_committed_and_goes_on_from_there(tmp_path: Path, checkpoint: Path) -> None:
    shards = write_shards(tmp_path / "in", shards=2, rows=40)
    slow = {"generate": {"slots": 1, "sampling": {"max_new_tokens": 100}}}
    process = start(tmp_path, ROOT, shards, checkpoint, tmp_path / "out", **slow)
    assert process.stdout is not None
    done = 0
    while done == 0:
        done = int(process.stdout.readline())
    # As a terminal does it: every process of the group hears of it, the workers too.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    attempts = [json.loads(path.read_text()) for path in (tmp_path / "out/_triptych/attempts").iterdir()]
    assert [attempt["outcome"] for attempt in attempts] == ["interrupted"]
    assert 0 < attempts[0]["done"] < 80
    time.sleep(2)
    said = finish(start(tmp_path, ROOT, shards, checkpoint, tmp_path / "out", **slow))
    assert said["rows"] == 80 and said["answered"] == 80 - already_done(attempts[0], said)
    assert results(tmp_path / "out").column("index").to_pylist() == list(range(40)) * 2
    assert len(parts_in(tmp_path / "out")) == 5


def already_done(attempt: dict[str, int], said: dict[str, object]) -> int:
    """Rows that the interrupted run left; units on their way when it was stopped may have been committed too."""
    left = 80 - int(str(said["answered"]))
    assert left >= attempt["done"] and left % 8 == 0
    return left
