"""A run that a machine asks to end (SIGTERM) ends as one that a person interrupts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.shards import write_shards

ROOT = Path(__file__).resolve().parents[2]

STOPPING = """
import time
from jobs.process import interruptible

with interruptible():
    try:
        print("working", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("stopping", flush=True)
        time.sleep(600)
"""


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_sigterm_ends_a_run_cleanly_and_leaves_none_of_its_processes(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "out"
    settings = {
        "read": {"uri": str(write_shards(tmp_path / "in", shards=2, rows=40))},
        "model": {"path": str(checkpoint), "device": "cpu"},
        "generate": {"slots": 1, "sampling": {"max_new_tokens": 100}},
        "write": {"uri": str(out), "unit_rows": 8, "rows_per_part": 20},
        "ray": {"object_store_bytes": 200 * 2**20},
        "job": {"kind": "caption", "prompt": "Describe this image."},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "jobs", "run", str(tmp_path / "run.yaml")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.poll() is None and not list(out.glob("_triptych/units/*/*.parquet")):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "interrupted; what is committed stays" in errors
    (attempt,) = [json.loads(path.read_text()) for path in (out / "_triptych/attempts").iterdir()]
    assert attempt["outcome"] == "interrupted"
    assert wait_until_gone(process.pid), "Ray's processes live on"
    assert list(out.glob("_triptych/units/*/*.parquet"))


def wait_until_gone(session: int) -> bool:
    """Wait until no process of a session is at work; one that nobody has buried yet is not."""
    for _ in range(600):
        if not [path for path in Path("/proc").glob("[0-9]*/stat") if is_at_work(path, session)]:
            return True
        time.sleep(0.1)
    return False


def is_at_work(stat: Path, session: int) -> bool:
    """Say whether a process is one of a session's and alive, by the line that Linux has about it."""
    try:
        state, _, _, of, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:  # it has ended since it was listed
        return False
    return int(of) == session and state != "Z"


def test_a_second_signal_ends_the_process_at_once() -> None:
    for second in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen([sys.executable, "-c", STOPPING], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "working\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "stopping\n"
            process.send_signal(second)
            assert process.wait(timeout=60) == -second
