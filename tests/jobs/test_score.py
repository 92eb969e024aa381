"""Stored answers are scored again without a model: a run's, or any file's with ids and responses."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from jobs.config import RunSettings
from jobs.start import run_and_report
from pipeline.settings import ConfigError, check_settings
from pipeline.storage.store import Store
from tests.jobs.stored import BULK, asked_of, report_of, rows_of, submission


def test_answers_of_another_tool_get_the_published_score(docvqa):
    expected = json.loads((BULK / "docvqa_val" / "expected.json").read_text())["expected"]
    score = report_of(docvqa)["scores"]["docvqa_val"]
    assert score["score"] == pytest.approx(expected["anls"], abs=1e-6)
    assert {name: cell["score"] for name, cell in score["by"].items()} == pytest.approx(
        expected["per_question_type"], abs=1e-6
    )
    assert [row["score"] for row in rows_of(docvqa)] == pytest.approx(expected["per_sample"], abs=1e-9)
    assert (score["n"], score["missing"], score["failed"]) == (24, 0, 0)


def test_other_headlines_than_means_come_out_as_published_too(tmp_path):
    for name, expected in (("mmbench_en_dev", 0.8), ("pope", 0.638889)):
        assert main(asked_of(name, tmp_path / name)) == 0
        assert report_of(tmp_path / name)["scores"][name]["score"] == pytest.approx(expected, abs=1e-6)


def test_scoring_an_output_by_the_same_rule_changes_nothing(docvqa, tmp_path):
    assert main(["score", str(docvqa), "--to", str(tmp_path / "again")]) == 0
    assert report_of(tmp_path / "again")["scores"] == report_of(docvqa)["scores"]
    (part,) = docvqa.glob("part-*.parquet")
    assert (tmp_path / "again" / part.name).read_bytes() == part.read_bytes()
    assert main(["compare", str(docvqa), str(tmp_path / "again"), "--threshold", "0"]) == 0


@pytest.mark.parametrize("rule", ["exact/official", "docvqa_val=exact/official"])
def test_scoring_an_output_by_another_rule_changes_scores_and_nothing_else(docvqa, tmp_path, rule):
    assert main(["score", str(docvqa), "--rule", rule, "--to", str(tmp_path / "exact")]) == 0
    before, after = rows_of(docvqa), rows_of(tmp_path / "exact")
    changed = {name for old, new in zip(before, after, strict=True) for name in old if old[name] != new[name]}
    assert {"score", "rule"} <= changed <= {"score", "rule", "parsed", "parse_status", "other_scores"}
    assert report_of(tmp_path / "exact")["scores"]["docvqa_val"]["rule"] == "exact/official"
    assert main(["compare", str(docvqa), str(tmp_path / "exact")]) == 1


def test_a_scored_output_can_be_reported_on_and_handed_in(docvqa, tmp_path):
    before = report_of(docvqa)
    assert main(["report", str(docvqa)]) == 0
    assert report_of(docvqa) == before
    assert main(["submit", str(docvqa), str(tmp_path / "file.json")]) == 0
    expected = json.loads((BULK / "docvqa_val" / "expected.json").read_text())["expected"]["submission"]
    assert json.loads((tmp_path / "file.json").read_text()) == expected


def test_an_output_is_not_scored_over_itself_by_whatever_path_it_is_reached(docvqa, tmp_path, capsys):
    (tmp_path / "link").symlink_to(docvqa)
    for to in (str(docvqa), str(tmp_path / "link"), f"{tmp_path}/./docvqa"):
        assert main(["score", str(docvqa), "--to", to]) == 1
        assert "expected a folder of its own for the scored rows" in capsys.readouterr().err
    assert len(rows_of(docvqa)) == 24


def test_scored_rows_stand_where_nothing_else_does(docvqa, tmp_path, capsys):
    assert main(["score", str(docvqa), "--to", str(docvqa)]) == 1
    assert "holds the results of a run" in capsys.readouterr().err
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    assert main(["score", str(docvqa), "--to", str(tmp_path / "taken")]) == 1
    assert "files of another origin (mine.txt)" in capsys.readouterr().err
    assert main(asked_of("docvqa_val", docvqa, "--rule", "exact/official")) == 0  # an earlier score is replaced
    assert report_of(docvqa)["scores"]["docvqa_val"]["rule"] == "exact/official"


def test_a_preset_that_goes_by_a_model_is_refused_where_there_is_none(tmp_path, capsys):
    assert main(asked_of("pope", tmp_path / "out", "--preset", "auto")) == 2
    assert "--preset auto: found no model to go by" in capsys.readouterr().err


def test_mathematics_can_be_compared_afterwards_by_what_it_means(tmp_path):
    row = {"problem": "?", "solution": r"\boxed{\frac{\sqrt2}{2}}", "type": "Algebra", "level": "Level 1"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "math.parquet")
    (tmp_path / "a.jsonl").write_text(json.dumps({"row": 0, "response": r"\boxed{\frac{1}{\sqrt2}}"}))
    data = ["--data", str(tmp_path / "math.parquet"), "--benchmark", "math"]
    for rule, expected in (("math/hendrycks", 0.0), ("math/math_verify", 1.0)):
        to = tmp_path / rule.replace("/", "_")
        assert main(["score", str(tmp_path / "a.jsonl"), *data, "--rule", rule, "--to", str(to)]) == 0
        assert report_of(to)["scores"]["math"]["score"] == expected


def test_a_rule_for_main_threads_is_refused_before_a_run():
    values = {"read": {"uri": "in"}, "model": {"path": "m"}, "write": {"uri": "out"}}
    job = {"kind": "vqa", "benchmarks": {"math": {"path": "math", "rule": "math/math_verify"}}}
    with pytest.raises(ConfigError, match=r"job\.benchmarks\.math\.rule: found math/math_verify.*`triptych score`"):
        run_and_report(check_settings(RunSettings, {**values, "job": job}))


WRONG = [
    (["--rule", "anls"], "found 'anls', expected a rule: exact/nocase_nopunct"),
    (["--rule", "anls/rrc", "--rule", "exact/official"], "found two rules for all benchmarks"),
    (["--rule", "gqa=exact/official"], "--rule gqa=exact/official: expected one of docvqa_val"),
    (["--benchmark", "gqa"], "found --benchmark without --data"),
    (["job.nonsense=1"], "job.nonsense"),
]


@pytest.mark.parametrize(("more", "said"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_asked_is_a_wrong_setting(docvqa, tmp_path, capsys, more, said):
    assert main(["score", str(docvqa), *more, "--to", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def mmlu(tmp_path):
    """The command that scores an answer to one question of MMLU."""
    row = {"question": "2 + 2?", "subject": "abstract_algebra", "choices": ["3", "4", "5", "6"], "answer": 1}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "mmlu.parquet")
    (tmp_path / "a.jsonl").write_text('{"row": 0, "response": "A"}\n')
    data = ["--data", str(tmp_path / "mmlu.parquet"), "--benchmark", "mmlu_without_examples"]
    return ["score", str(tmp_path / "a.jsonl"), *data, "--to", str(tmp_path / "out")]


def test_likelihoods_cannot_be_had_from_texts(mmlu, tmp_path, capsys):
    assert main([*mmlu, "--rule", "likelihood/sum"]) == 1
    assert "mmlu_without_examples: likelihood/sum needs choice_logprobs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_stored_likelihoods_are_read_again(mmlu, tmp_path):
    assert main([*mmlu, "--rule", "mcq/prefetch"]) == 0
    part = tmp_path / "out" / "part-00000.parquet"
    table = pq.read_table(part)
    logprobs = pa.array([[-2.0, -1.0, -3.0, -4.0]], pa.list_(pa.float64()))
    pq.write_table(table.set_column(table.column_names.index("choice_logprobs"), "choice_logprobs", logprobs), part)
    asked = ["score", str(tmp_path / "out"), "--rule", "likelihood/sum", "--to", str(tmp_path / "again")]
    assert main(asked) == 0
    (row,) = rows_of(tmp_path / "again")
    assert (row["parsed"], row["score"], row["rule"]) == ("B", 1.0, "likelihood/sum")
    assert row["choice_logprobs"] == [-2.0, -1.0, -3.0, -4.0]


def test_answers_of_another_job_are_refused(docvqa, tmp_path, capsys):
    path = docvqa / "_triptych" / "settings.json"
    frozen = json.loads(path.read_text())
    frozen["settings"]["job"] = {"kind": "caption"}
    path.write_text(json.dumps(frozen))
    assert main(["score", str(docvqa), "--to", str(tmp_path / "out")]) == 1
    assert "found answers of a caption job" in capsys.readouterr().err


def test_what_is_neither_an_output_nor_joined_with_data_is_refused(tmp_path, capsys):
    assert main(["score", str(tmp_path), "--to", str(tmp_path / "out")]) == 1
    assert "found no run in" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "a.jsonl"), "--to", str(tmp_path / "out")]) == 2
    assert "a.jsonl without --data, expected the data set's rows" in capsys.readouterr().err


def test_outputs_may_stand_on_s3(s3, tmp_path):
    there = s3.uri
    reached = f"write.storage.endpoint_url={s3.endpoint_url}"
    assert main(asked_of("docvqa_val", f"{there}/a", reached)) == 0
    assert main(["score", f"{there}/a", reached, "--rule", "anls/rrc", "--to", f"{there}/b"]) == 0
    assert main(["compare", f"{there}/a", f"{there}/b", reached, "--json", f"{there}/found.json"]) == 0
    assert main(["submit", f"{there}/b", f"{there}/file.json", reached]) == 0
    store = Store(there, s3.settings)
    assert json.loads(store.read("found.json"))["comparisons"][0]["ties"] == 24
    assert json.loads(store.read("file.json")) == submission()
