"""What the command line says and returns before anything is started."""

import json
import logging
import re
import socket
import sys
import time
import urllib.request
from dataclasses import replace

import pytest

from jobs.__main__ import main
from jobs.config import RunSettings
from jobs.console_text import stopped_message, too_many_failed_message
from jobs.progress import describe, shown_progress
from jobs.report.writer import Report
from pipeline.execution.progress import FailureKind, Pace, Progress, TooManyFailed, progress_numbers
from pipeline.run import RunResult
from pipeline.settings import ConfigError, dump_settings, load_settings
from pipeline.state.ledger import freeze_settings
from pipeline.storage.store import Store

CONFIG = """
read: {uri: nowhere}
model: {path: nowhere}
write: {uri: out}
job: {kind: caption}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIG)
    return "run.yaml"


def test_a_missing_config_is_a_wrong_setting(tmp_path, capsys):
    assert main(["run", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml" in capsys.readouterr().err


def test_every_wrong_setting_is_said_at_once(config, capsys):
    assert main(["run", config, "generate.slots=none", "job.prompt={a.b}", "raed.limit=3"]) == 2
    said = capsys.readouterr().err
    assert "5 faults" in said
    for setting in ("generate.slots", "job.prompt", "raed", "model.path: no model at", "read: found no files at"):
        assert setting in said
    assert "Traceback" not in said


def test_a_missing_input_and_a_missing_model_are_said_together_and_nothing_is_written(config, tmp_path, capsys):
    assert main(["run", config]) == 2
    said = capsys.readouterr().err
    assert "model.path: no model at" in said
    assert "read: " in said
    assert [path.name for path in tmp_path.rglob("*")] == ["run.yaml"]


def test_a_report_on_no_run_fails_in_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "found no run in" in said
    assert said.count("\n") == 1


def test_a_report_takes_no_setting_that_says_something_else_than_where_its_stores_are(tmp_path, capsys):
    assert main(["report", str(tmp_path), "write.storage.patience_s=1", "job.prompt=Why?", "write.storages=1"]) == 2
    said = capsys.readouterr().err
    assert "2 faults" in said and "'job.prompt=Why?'" in said and "'write.storages=1'" in said


@pytest.fixture
def unfinished(config, tmp_path):
    """The output of a run that has written its settings down and nothing else."""
    settings = load_settings(RunSettings, config)
    freeze_settings(Store(str(tmp_path / "out")), {"settings": dump_settings(settings), "weights": ""})
    return str(tmp_path / "out")


def test_a_retry_of_no_run_or_of_one_that_goes_on_fails_in_one_line(unfinished, tmp_path, capsys):
    assert main(["retry", str(tmp_path)]) == 1
    assert "found no run in" in capsys.readouterr().err
    assert main(["retry", unfinished]) == 1
    said = capsys.readouterr().err
    assert "found no finished run in" in said and "`triptych run`" in said
    assert said.count("\n") == 1


def test_a_retry_takes_no_setting_that_would_change_answers(unfinished, capsys):
    assert main(["retry", unfinished, "generate.slots=2", "job.prompt=Why?", "read.limit=1", "generate.slot=1"]) == 2
    assert "generate.slot: unknown setting" in capsys.readouterr().err
    assert main(["retry", unfinished, "generate.slots=2", "job.prompt=Why?", "read.limit=1"]) == 2
    said = capsys.readouterr().err
    assert "job.prompt: was 'Describe" in said and "read.limit: was nothing, now 1" in said
    assert "generate.slots: " not in said
    assert "A retry may change only note, plan, limits, ray," in said
    assert main(["retry", unfinished, "job.kind=vqa", "read.limit=1"]) == 2
    said = capsys.readouterr().err
    assert "1 fault\n  job.kind: was 'caption', now 'vqa'; another job is a run of its own" in said
    assert main(["retry", unfinished, "slots"]) == 2
    assert "expected `dotted.key=value`" in capsys.readouterr().err
    assert main(["retry", unfinished, "write.storage.endpoint=x"]) == 2
    assert "write.storage: 1 fault" in capsys.readouterr().err


def failures_of(*kinds):
    return [FailureKind(stage, kind, count, f"{kind}/1", f"found {kind}\nagain") for stage, kind, count in kinds]


KINDS = (("fetch", "NotFound", 20), ("decode", "BadImage", 10), ("check", "X", 6), ("tokenise", "PromptTooLong", 4))


def test_too_many_failed_rows_are_said_with_examples_and_remedies():
    result = RunResult("s3://bucket/out", 50, 50, 40, 0, 0, 1.0, 50, 0)
    failures = [
        {"stage": kind.stage, "type": kind.type, "count": kind.count, "examples": [{"key": "1", "message": "lost"}]}
        for kind in failures_of(*KINDS)
    ]
    said = too_many_failed_message(result, Report({"failures": failures}, ""), 0.05).splitlines()
    assert said[0] == "80.0% of the rows failed, limits.max_failed_share is 5.0%"
    assert said[1] == "  fetch NotFound (20), such as row 1: lost"
    assert said[2].startswith("    see whether the paths are right")
    assert said[-2:] == [
        "  and 1 other kinds of failure",
        "  `triptych retry s3://bucket/out` runs them again once the cause is gone",
    ]


def test_a_run_that_was_stopped_says_why_and_how_it_goes_on():
    said = stopped_message(TooManyFailed("20 of 50 results failed", failures_of(*KINDS[:2]))).splitlines()
    assert said[:2] == [
        "20 of 50 results failed",
        "  fetch NotFound (20), such as row NotFound/1: found NotFound again",
    ]
    assert "limits.max_failed_share=1" in said[-1]


def test_overrides_may_stand_behind_options_and_unknown_options_nowhere(config, capsys):
    assert main(["run", config, "--verbose", "generate.slots=none"]) == 2
    assert "generate.slots" in capsys.readouterr().err
    for wrong in (["run", config, "--fast"], ["demo", "a", "--quick", "b"]):
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2
        assert f"unrecognized arguments: {wrong[-1]}" in capsys.readouterr().err


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("triptych ")


PACE = Pace(25.0, 900.0, 500.0, {"engine": 0.931, "decode": 0.8, "read": 0.2}, "decode")
RUNNING = Progress(
    rows=10_000, done=2_500, answered=1_500, failed=3, output_tokens=30_000, seconds=60.0, first_seconds=5.0, pace=PACE
)
LINES = [
    "2,500 of 10,000 rows (25%) · 25.0 rows/s · 3 failed · 5:00 left",
    "1:00 so far · 900 tokens/s read, 500 written · engine 93% busy · decode takes longest",
]


def test_the_live_lines_say_rows_rates_failures_the_time_left_and_what_takes_longest():
    assert describe(progress_numbers(RUNNING, 0.0)) == LINES
    later = describe(progress_numbers(RUNNING, 70.0))
    assert later[0].endswith("3:50 left") and later[1].startswith("2:10 so far"), "the clocks go on between two units"


def test_the_live_line_tells_start_up_apart():
    assert describe(progress_numbers(None, 12.0)) == ["looking at the settings, the model and the input, 0:12"]
    loading = describe(progress_numbers(Progress(rows=10, done=0), 130.0))
    assert loading == ["0 of 10 rows (0%) · loading the model, 2:10"]
    first = Progress(rows=10, done=2, answered=2, seconds=9.0)
    assert describe(progress_numbers(first, 1.0)) == ["2 of 10 rows (20%) · 0:10 so far · 0 failed"]


def test_a_step_that_is_done_leaves_a_line(capsys):
    with shown_progress("captions", "lines", leaves_line=True) as show:
        show(replace(RUNNING, answered=10_000, failed=0))
    assert re.fullmatch(r"captions: 10,000 rows in 0:00, [\d,]+ rows/s, 0 failed\n", capsys.readouterr().err)
    with shown_progress("captions", "lines", leaves_line=True):
        pass
    assert capsys.readouterr().err == "captions: nothing was left to do, 0:00\n"


def test_json_lines_say_the_same_to_programs(capsys):
    with shown_progress("vqa", "json", period_s=0.02) as show:
        time.sleep(0.1)
        show(RUNNING)
        time.sleep(0.1)
    first, *_, last = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first["name"], first["state"]) == ("vqa", "looking")
    assert (last["state"], last["done"], last["rows_per_s"], last["bottleneck"]) == ("answering", 2_500, 25.0, "decode")
    assert 299 < last["seconds_left"] <= 300


def test_json_lines_end_with_the_last_numbers_of_what_has_begun(capsys):
    with shown_progress("vqa", "json") as show:
        show(Progress(rows=10, done=5))
        show(Progress(rows=10, done=10, answered=5))
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["done"] == 10
    with pytest.raises(KeyError), shown_progress("vqa", "json"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_prometheus_reads_the_same_numbers(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with shown_progress("vqa", "lines", port) as show:
        show(replace(RUNNING, failures=failures_of(("fetch", "NotFound", 3))))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
            said = reply.read().decode().splitlines()
        taken = pytest.raises(ConfigError, match=f"--metrics-port {port}: Address already in use")
        with taken, shown_progress("another", "lines", port):
            pass
    assert "triptych_done 2500.0" in said
    assert 'triptych_busy{step="engine"} 0.931' in said
    assert 'triptych_failures{stage="fetch",type="NotFound"} 3.0' in said


def test_a_terminal_gets_a_bar_and_log_lines_stand_above_it(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    handler = logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    with shown_progress("vqa") as show:
        show(RUNNING)
        time.sleep(0.6)
        logging.getLogger("jobs").warning("a store is silent")
    assert handler.stream is sys.stderr
    written = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
    assert len(LINES[0]) < 80 and re.search(rf"vqa ━+╺?━+ *\n{re.escape(LINES[0])}", written)
    assert "\x1b[2Ka store is silent\n" in written
    assert "\x1b[?25h" in written.partition("vqa ")[0], "the cursor is there at once, whatever ends the process"


def test_a_plain_line_comes_again_and_again_even_if_nothing_moves(capsys):
    with shown_progress("vqa", period_s=0.02) as show:
        time.sleep(0.1)
        show(Progress(rows=10, done=5))
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "vqa: looking at the settings, the model and the input, 0:00"
    assert lines[-2:] == ["vqa: 5 of 10 rows (50%) · loading the model, 0:00"] * 2
