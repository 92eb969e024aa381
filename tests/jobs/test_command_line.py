"""What the command line says and returns before anything is started."""

import logging
import re
import sys
import time

import pytest

from jobs.__main__ import main
from jobs.config import RunSettings
from jobs.console_text import too_many_failed_message
from jobs.progress import line_of, shown_progress
from jobs.report.writer import Report
from pipeline.execution.attempt import Progress
from pipeline.run import RunResult
from pipeline.settings import dump_settings, load_settings
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
    assert "3 faults" in said
    for setting in ("generate.slots", "job.prompt", "raed"):
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
    assert "A retry may change only note, limits, ray," in said
    assert main(["retry", unfinished, "slots"]) == 2
    assert "expected `dotted.key=value`" in capsys.readouterr().err
    assert main(["retry", unfinished, "write.storage.endpoint=x"]) == 2
    assert "write.storage: 1 fault" in capsys.readouterr().err


def test_too_many_failed_rows_are_said_with_their_kinds_and_the_remedy():
    result = RunResult("s3://bucket/out", 50, 50, 40, 0, 0, 1.0, 50, 0)
    kinds = [("fetch", "NotFound", 20), ("decode", "BadImage", 10), ("tokenise", "PromptTooLong", 6), ("check", "X", 4)]
    failures = [{"stage": stage, "type": kind, "count": count} for stage, kind, count in kinds]
    assert too_many_failed_message(result, Report({"failures": failures}, ""), 0.05).splitlines() == [
        "80.0% of the rows failed, limits.max_failed_share is 5.0%; "
        "fetch NotFound (20), decode BadImage (10), tokenise PromptTooLong (6) and 1 more",
        "  `triptych retry s3://bucket/out` runs them again once the cause is gone",
    ]


@pytest.mark.parametrize("command", ["plan", "status", "verify"])
def test_commands_of_later_days_are_absent(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command])
    assert stopped.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


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


def test_the_live_line_says_rows_rates_failures_and_the_time_left():
    progress = Progress(rows=10_000, done=2_500, answered=1_500, failed=3, output_tokens=30_000, seconds=60.0)
    assert line_of(progress) == "2,500 of 10,000 rows (25%) · 25.0 rows/s · 500 tokens/s · 3 failed · 5:00 left"


def test_the_live_line_knows_no_rate_before_the_first_unit():
    assert line_of(Progress(rows=10, done=0)) == "0 of 10 rows (0%)"


def test_a_terminal_gets_a_bar_and_log_lines_stand_above_it(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    handler = logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    with shown_progress("vqa") as show:
        show(Progress(rows=10_000, done=2_500, answered=1_500, failed=3, output_tokens=30_000, seconds=60.0))
        time.sleep(0.6)
        logging.getLogger("jobs").warning("a store is silent")
    assert handler.stream is sys.stderr
    written = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
    line = "2,500 of 10,000 rows (25%) · 25.0 rows/s · 500 tokens/s · 3 failed · 5:00 left"
    assert len(line) < 80 and re.search(rf"vqa ━+╺?━+ *\n{re.escape(line)}", written)
    assert "\x1b[2Ka store is silent\n" in written
    assert "\x1b[?25h" in written.partition("vqa ")[0], "the cursor is there at once, whatever ends the process"


def test_a_plain_line_comes_again_and_again_even_if_nothing_moves(capsys):
    with shown_progress("vqa", plain_period_s=0.02) as show:
        time.sleep(0.1)
        show(Progress(rows=10, done=5))
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "vqa: starting, loading the model"
    assert lines[-2:] == ["vqa: 5 of 10 rows (50%)"] * 2
