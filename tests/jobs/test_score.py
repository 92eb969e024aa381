"""Stored answers are scored again without a model: a run's, or any file's with ids and responses."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from jobs.config import RunSettings
from jobs.evaluation.answers import Piece
from jobs.evaluation.file_answers import PredictionFile, answers_from_file
from jobs.evaluation.judge import JUDGE_COLUMNS, add_verdicts
from jobs.evaluation.predictions import read_predictions
from jobs.evaluation.score import score
from jobs.report.results import ReportError
from jobs.start import run_and_report
from pipeline.settings import ConfigError, check_settings
from pipeline.storage.store import StorageSettings, Store
from tests.jobs.benchmark_folders import write_mmbench_v11

BULK = Path(__file__).parents[1] / "data" / "vectors" / "bulk"
CHECKPOINT = str(Path(__file__).parents[2] / "jobs" / "demo" / "checkpoints" / "aria")


def asked_of(name, to, *more, rows="predictions.jsonl"):
    data = ["--data", str(BULK / name / "data.parquet"), "--benchmark", name, "--id", "row"]
    return ["score", str(BULK / name / rows), *data, "--to", str(to), *more]


def report_of(folder):
    return json.loads((Path(folder) / "_report" / "report.json").read_text())


def rows_of(folder):
    tables = [pq.read_table(path) for path in sorted(Path(folder).glob("part-*.parquet"))]
    return pa.concat_tables(tables).to_pylist()


@pytest.fixture
def docvqa(tmp_path):
    """The scored answers of the small DocVQA set."""
    assert main(asked_of("docvqa_val", tmp_path / "docvqa")) == 0
    return tmp_path / "docvqa"


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


FORMS = {
    "a.jsonl": '{"questionId": "1", "prediction": "yes"}\n\n{"questionId": 2, "prediction": "no\u2028"}\n',
    "a.json": '[{"id": "1", "answer": "yes"}, {"id": 2, "answer": "no\u2028"}]',
    "b.json": '{"1": "yes", "2": "no\u2028"}',
    "c.json": '{"1": {"response": "yes", "extraction": ""}, "2": {"response": "no\u2028"}}',
    "a.csv": 'key,response\n1,yes\n"2","no\u2028"\n',
    "a.tsv": "key\tresponse\n1\tyes\n2\tno\u2028\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_answers_may_come_in_any_usual_form(name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[name].encode())
    found = read_predictions(str(tmp_path / name), StorageSettings()).answers
    assert {one: answer.text for one, answer in found.items()} == {"1": "yes", "2": "no\u2028"}


def test_answers_may_come_as_parquet_files_with_anything_beside(tmp_path):
    image = pa.array([{"bytes": b"x"}])
    for number, text in ((1, "yes"), (2, None)):
        table = pa.table({"index": [number], "response": pa.array([text], pa.string()), "image": image})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    found = read_predictions(str(tmp_path), StorageSettings())
    assert (found.id_name, found.answers["1"].text, found.answers["2"]) == ("index", "yes", None)
    assert read_predictions(str(tmp_path / "1.parquet"), StorageSettings()).answers["1"].text == "yes"


def test_answers_may_come_as_the_harnesses_leave_them(tmp_path):
    import pandas as pd

    pd.DataFrame({"index": [1, 1_000_001], "A": ["x", "y"], "prediction": ["A", 7]}).to_excel(tmp_path / "a.xlsx")
    found = read_predictions(str(tmp_path / "a.xlsx"), StorageSettings())
    assert (found.id_name, [answer.text for answer in found.answers.values()]) == ("index", ["A", "7"])
    logged = [
        {"doc_id": 0, "filtered_resps": "yes", "target": "x"},
        {"doc_id": 1, "filtered_resps": "no", "resps": ["<think>?</think>no"]},
        {"doc_id": 2, "filtered_resps": ["maybe"]},
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
    found = read_predictions(str(tmp_path / "samples.jsonl"), StorageSettings())
    assert (found.id_name, [answer.text for answer in found.answers.values()]) == (
        "doc_id", ["yes", "<think>?</think>no", "maybe"],
    )  # fmt: skip


def test_an_answer_that_two_filters_have_read_is_one_answer(tmp_path):
    lines = [
        {"doc_id": doc_id, "resps": [[text]], "filtered_resps": [filtered], "filter": name}
        for name, filtered in (("strict-match", "[invalid]"), ("flexible-extract", "7"))
        for doc_id, text in ((0, "It is 7."), (1, "It is 7."))
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_predictions(str(tmp_path / "samples.jsonl"), StorageSettings()).answers
    assert {name: answer.text for name, answer in found.items()} == {"0": "It is 7.", "1": "It is 7."}


def test_objects_of_opencompass_are_named_by_their_place_in_the_data(tmp_path):
    prompt = [{"role": "HUMAN", "prompt": "?"}]
    objects = {str(place): {"origin_prompt": prompt, "prediction": f"a{place}", "gold": "x"} for place in range(2)}
    (tmp_path / "a.json").write_text(json.dumps(objects))
    found = read_predictions(str(tmp_path / "a.json"), StorageSettings())
    assert (found.id_name, found.answers["1"].text) == ("row", "a1")


def test_blank_lines_of_a_table_are_no_answers(tmp_path):
    from openpyxl import Workbook
    from openpyxl.styles import Font

    book = Workbook()
    for line in (["index", "prediction"], [1, "yes"], [None, None], [2, "no"]):
        book.active.append(line)
    book.active.cell(row=9, column=2).font = Font(bold=True)
    book.save(tmp_path / "a.xlsx")
    (tmp_path / "a.csv").write_text("index,prediction\n1,yes\n,\n2,no\n\n,\n")
    for name in ("a.xlsx", "a.csv"):
        found = read_predictions(str(tmp_path / name), StorageSettings()).answers
        assert {one: answer.text for one, answer in found.items()} == {"1": "yes", "2": "no"}


def test_ids_that_pandas_made_floats_of_are_the_whole_numbers_they_were(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"index": [1.0, 7.0], "prediction": pd.Categorical(["yes", "1.0"])})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    frame.to_json(tmp_path / "a.json", orient="records")
    (tmp_path / "a.jsonl").write_text('{"id": 1.0, "response": "yes"}\n{"id": 7.0, "response": "1.0"}\n')
    for extension in ("parquet", "csv", "xlsx", "json", "jsonl"):
        found = read_predictions(str(tmp_path / f"a.{extension}"), StorageSettings()).answers
        assert {one: answer.text for one, answer in found.items()} == {"1": "yes", "7": "1.0"}


def test_an_answer_that_was_cut_off_is_truncated_whatever_it_says(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "response": "yes", "finish_reason": "length"}\n')
    assert read_predictions(str(tmp_path / "a.jsonl"), StorageSettings()).answers["1"].is_truncated


BROKEN = [
    ('{"id": 1, "response": "a"}\n{"id": "1", "response": "b"}\n', r"1 ids more than once .*\(1\)"),
    ('{"id": 1.5, "response": "a"}\n', "found 1.5, expected an id"),
    ('{"id": 1e300, "response": "a"}\n', "found 1e[+]300, expected an id"),
    ('{"id": 1, "filtered_resps": ["b"], "resps": [["a", "b"]]}\n', "found 2 logged responses, expected one"),
    (
        '{"doc_id": 1, "resps": [["a"]], "filtered_resps": ["a"], "filter": "x"}\n' * 2,
        r"1 ids more than once .*\(1\)",
    ),
    ('{"id": true, "response": "a"}\n', "found True, expected an id"),
    ('{"id": 1, "response": 5}\n', "found 5, expected the text of an answer"),
    ('{"id": 1, "text": "a"}\n', "found columns id, text .* expected one of response, prediction"),
    ('{"name": 1, "response": "a"}\n', "for the id; `--id` can name it"),
    ("", "found no rows"),
    ('{"id": 1\n', "cannot read .* as JSONL"),
    ("[1]\n", "found other values, expected objects"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN, ids=range(len(BROKEN)))
def test_answers_that_are_none_are_refused(text, said, tmp_path):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ReportError, match=said):
        read_predictions(str(tmp_path / "a.jsonl"), StorageSettings())


def test_what_may_be_the_right_answer_is_not_taken_for_what_was_said(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question_id": 1, "answer": "gold", "output": "said"}\n')
    with pytest.raises(
        ReportError, match="expected one of response, prediction, caption for the response; `--response`"
    ):
        read_predictions(str(tmp_path / "a.jsonl"), StorageSettings())
    found = read_predictions(str(tmp_path / "a.jsonl"), StorageSettings(), response_name="output")
    assert found.answers["1"].text == "said"


def test_an_answer_that_a_delimiter_would_cut_short_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,response\n1,one, two\n")
    with pytest.raises(ReportError, match="found more cells than columns in row 0, expected quotes around a ','"):
        read_predictions(str(tmp_path / "a.csv"), StorageSettings())


def test_a_preset_that_goes_by_a_model_is_refused_where_there_is_none(tmp_path, capsys):
    assert main(asked_of("pope", tmp_path / "out", "--preset", "auto")) == 2
    assert "--preset auto: found no model to go by" in capsys.readouterr().err


def test_mathematics_can_be_compared_afterwards_by_what_it_means(tmp_path):
    pytest.importorskip("math_verify")
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


def test_images_that_lie_in_other_rows_of_the_same_file_are_not_needed(tmp_path):
    write_mmbench_v11(tmp_path)
    lines = [json.dumps({"index": index, "response": "A"}) for index in (3, 4, 1_000_003, 1_000_004)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = ["--data", str(tmp_path / "MMBench" / "MMBench_DEV_EN_V11.tsv"), "--benchmark", "mmbench_dev_en_v11"]
    assert main(["score", str(tmp_path / "a.jsonl"), *data, "--to", str(tmp_path / "out")]) == 0
    assert report_of(tmp_path / "out")["scores"]["mmbench_dev_en_v11"]["n"] == 2


def test_half_a_character_in_an_answer_costs_that_character_alone(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "response": "yes \\ud83d \\ud83d\\ude00"}\n')
    found = read_predictions(str(tmp_path / "a.jsonl"), StorageSettings())
    assert found.answers["1"].text == "yes \ufffd \U0001f600"


def test_an_id_twice_in_a_json_object_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"1": "a", "1": "b"}')
    with pytest.raises(ReportError, match="found '1' twice in one object"):
        read_predictions(str(tmp_path / "a.json"), StorageSettings())


@pytest.fixture
def joined_with(tmp_path):
    """Join answers with the small DocVQA set, score them, and return report and rows."""

    def join(answers, **asked):
        (tmp_path / "answers.json").write_text(json.dumps(answers))
        wanted = PredictionFile(
            str(tmp_path / "answers.json"), str(BULK / "docvqa_val" / "*.parquet"), "docvqa_val", **asked
        )
        score(answers_from_file(wanted, str(tmp_path / "out")), Store(str(tmp_path / "out")), "answers.json")
        return report_of(tmp_path / "out")["scores"]["docvqa_val"], rows_of(tmp_path / "out")

    return join


def submission():
    return json.loads((BULK / "docvqa_val" / "expected.json").read_text())["expected"]["submission"]


def test_a_submission_file_can_be_scored_by_its_ids(joined_with):
    found, rows = joined_with(submission()[::-1])
    assert found["score"] == pytest.approx(0.725027, abs=1e-6)
    assert [row["key"] for row in rows] == [str(one["questionId"]) for one in submission()]
    assert {(row["model"], row["preset"], row["finish_reason"]) for row in rows} == {
        ("answers.json", "unknown", "stop")
    }


def test_missing_answers_are_refused_or_counted_and_the_score_given_over_all_as_well(joined_with):
    some = submission()[:18]
    with pytest.raises(ReportError, match=r"answers to 18 of 24 rows \(49018, 49019, 49020 and 3 more have none\)"):
        joined_with(some)
    found, rows = joined_with(some, allow_missing=True)
    assert (len(rows), found["n"], found["missing"]) == (18, 18, 6)
    assert found["score_over_all"] == pytest.approx(found["score"] * 18 / 24)


def test_headlines_that_are_no_means_say_what_missing_rows_do_to_them(tmp_path):
    lines = (BULK / "mmbench_en_dev" / "predictions.jsonl").read_text().splitlines()
    (tmp_path / "some.jsonl").write_text("\n".join(lines[:-5]))
    asked = asked_of("mmbench_en_dev", tmp_path / "out", "--allow-missing")
    asked[1] = str(tmp_path / "some.jsonl")
    assert main(asked) == 0
    report = report_of(tmp_path / "out")
    assert report["scores"]["mmbench_en_dev"]["score_over_all"] is None
    assert any("5 of 34 rows are missing, and a question with missing rotations" in said for said in report["caveats"])


def test_what_was_scored_in_part_is_not_handed_in_as_the_whole(joined_with, tmp_path, capsys):
    joined_with(submission()[:18], allow_missing=True)
    asked = ["submit", str(tmp_path / "out"), str(tmp_path / "file.json")]
    for more in ([], ["--allow-missing"]):
        assert main([*asked, *more]) == 1
        assert "found 18 of 24 rows" in capsys.readouterr().err
    (tmp_path / "ids").write_text(" ".join(str(one["questionId"]) for one in submission()))
    assert main([*asked, "--ids", str(tmp_path / "ids"), "--allow-missing"]) == 0
    assert [one["answer"] for one in json.loads((tmp_path / "file.json").read_text())[18:]] == [""] * 6


def test_answers_to_rows_that_are_not_there_are_refused(joined_with):
    with pytest.raises(ReportError, match=r"1 answers to unknown rows \(7\), expected ids such as 49000"):
        joined_with([*submission(), {"questionId": 7, "answer": ""}])


def test_ids_of_several_rows_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image_id": 1, "response": "a"}\n')
    rows = [
        {"question_id": number, "image_id": 1, "question": "What?", "question_type": "what", "answer_type": "other",
         "multiple_choice_answer": "a", "answers": [{"answer": "a", "answer_confidence": "yes", "answer_id": 1}] * 10,
         "image": {"bytes": b"", "path": None}}
        for number in (1, 2)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    with pytest.raises(ReportError, match="expected `image_id` to tell rows apart"):
        answers_from_file(PredictionFile(str(tmp_path / "a.jsonl"), str(tmp_path / "data.parquet"), "vqav2_val"), "out")


def test_a_column_that_the_data_lack_is_named_and_can_be_renamed(tmp_path, joined_with):
    table = pq.read_table(BULK / "docvqa_val" / "data.parquet").rename_columns({"answers": "gold"})
    pq.write_table(table, tmp_path / "renamed.parquet")
    (tmp_path / "a.json").write_text(json.dumps(submission()))
    asked = {"uri": str(tmp_path / "a.json"), "data": str(tmp_path / "renamed.parquet")}
    with pytest.raises(ConfigError, match="unknown setting"):
        answers_from_file(
            PredictionFile(**asked, benchmark="docvqa_val", overrides=["job.benchmark.x=1", "read.x=1"]), "out"
        )
    without = answers_from_file(PredictionFile(**asked, benchmark="docvqa_test"), "out")
    assert all(row["score"] is None for piece in without.pieces() for row in piece.rows.to_pylist())
    renamed = PredictionFile(
        **asked, benchmark="docvqa_val", overrides=["job.benchmarks.docvqa_val.columns.answers=gold"]
    )
    (piece,) = answers_from_file(renamed, "out").pieces()
    assert sum(piece.rows["score"].to_pylist()) == pytest.approx(24 * 0.725027, abs=1e-4)


def test_rows_of_ones_own_can_be_scored_by_any_rule(tmp_path):
    own = [{"name": "x", "question": "How many?", "answers": ["10"]}, {"name": "y", "question": "?", "answers": ["a"]}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(one) + "\n" for one in own))
    (tmp_path / "a.csv").write_text("name,response\ny,b\nx,10.4<end>\n")
    data = ["--data", str(tmp_path / "own.jsonl"), "--id", "name", "--rule", "relaxed/pix2struct"]
    asked = ["score", str(tmp_path / "a.csv"), *data, "--to", str(tmp_path / "out"), "--end-token", "<end>"]
    assert main(asked) == 0
    found = rows_of(tmp_path / "out")
    assert [(row["key"], row["response_clean"], row["score"]) for row in found] == [("x", "10.4", 1.0), ("y", "b", 0.0)]


def test_ends_that_a_model_has_left_on_its_answers_are_named_unless_they_are_known(tmp_path, caplog):
    lines = (BULK / "pope" / "predictions.jsonl").read_text().splitlines()
    ended = [{**one, "prediction": f"{one['prediction']}<|eot_id|>"} for one in map(json.loads, lines)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ended))
    asked = asked_of("pope", tmp_path / "out", rows=tmp_path / "a.jsonl")
    assert main(asked) == 0
    assert "36 of 36 answers end in '<|eot_id|>'; `--end-token '<|eot_id|>'` cuts it off" in caplog.text
    caplog.clear()
    assert main([*asked, "--end-token", "<|eot_id|>"]) == 0
    assert "end in" not in caplog.text
    assert report_of(tmp_path / "out")["scores"]["pope"]["score"] == pytest.approx(0.638889, abs=1e-6)


GQA = {
    "id": "07", "imageId": "9", "question": "Is it?", "answer": "yes", "isBalanced": True,
    "types": {"structural": "verify", "semantic": "obj", "detailed": "exist"},
}  # fmt: skip
VIDEO = {
    "id": "v1_0", "video_id": "v1", "video_path": "v1.mp4", "subtitle_path": "v1.json", "question": "What?",
    "option0": "a", "option1": "b", "option2": "N/A", "option3": "N/A", "option4": "N/A", "correct_choice": 1,
    "duration_group": 15, "question_category": "S2E", "duration": 12.0, "starting_timestamp_for_subtitles": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(("benchmark", "row", "answer"), [("gqa", GQA, "Yes."), ("longvideobench_val", VIDEO, "B")])
def test_images_that_lie_apart_and_videos_are_not_needed(benchmark, row, answer, tmp_path):
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data.parquet")
    (tmp_path / "a.json").write_text(json.dumps({row["id"]: answer}))
    data = ["--data", str(tmp_path / "data.parquet"), "--benchmark", benchmark]
    assert main(["score", str(tmp_path / "a.json"), *data, "--to", str(tmp_path / "out")]) == 0
    assert [row["score"] for row in rows_of(tmp_path / "out")] == [1.0]


def test_a_row_that_cannot_be_read_stays_an_error_whatever_was_answered(tmp_path):
    table = pq.read_table(BULK / "pope" / "data.parquet").to_pylist()
    table[3]["question"] = None
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "data.parquet")
    asked = asked_of("pope", tmp_path / "out")
    asked[asked.index("--data") + 1] = str(tmp_path / "data.parquet")
    assert main(asked) == 0
    row = rows_of(tmp_path / "out")[3]
    assert (row["error"]["stage"], row["finish_reason"], row["response"]) == ("adapt", "error", None)
    assert report_of(tmp_path / "out")["failed"] == 1


def test_a_judges_score_stands_beside_the_rules_own(tmp_path, capsys):
    folder = tmp_path / "judged"
    lines = (BULK / "mmbench_en_dev" / "predictions.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    answers[0]["prediction"] = "I cannot decide between these."
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    asked = asked_of("mmbench_en_dev", folder, rows=str(tmp_path / "a.jsonl"))
    assert main(asked) == 0
    plain = report_of(folder)["scores"]["mmbench_en_dev"]["score"]
    assert main([*asked, "--judge", CHECKPOINT]) == 0
    assert "aria@" in capsys.readouterr().out
    found = rows_of(folder)
    assert [row["judge"] is not None for row in found] == [True] + [False] * 33
    assert all(row["judged_score"] == row["score"] for row in found[1:])
    assert found[0]["score"] == 0.0
    assert report_of(folder)["scores"]["mmbench_en_dev"]["score"] == plain
    assert report_of(folder)["scores"]["mmbench_en_dev"]["judge"]["rows"] == 1
    assert len(list((folder / "_judge").iterdir())) == 1


def test_a_judges_verdicts_make_questions_of_several_rows_right_too(tmp_path):
    lines = (BULK / "mmbench_en_dev" / "predictions.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    gold = pq.read_table(BULK / "mmbench_en_dev" / "data.parquet")["answer"][0].as_py()
    answers[0]["prediction"] = "I cannot decide between these."
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    wanted = PredictionFile(
        str(tmp_path / "a.jsonl"), str(BULK / "mmbench_en_dev" / "*.parquet"), "mmbench_en_dev", id_name="row"
    )

    class Knowing:
        name = "somebody"

        def __call__(self, prompts):
            return [gold] * len(prompts)

    to = str(tmp_path / "out")
    found = score(answers_from_file(wanted, to), Store(to), "a", Knowing()).numbers["scores"]["mmbench_en_dev"]
    assert (found["metric"], found["judge"]["rows"]) == ("every rotation right", 1)
    assert (found["score"], found["judge"]["score"]) == (pytest.approx(0.7), pytest.approx(0.8))


def test_a_verdict_replaces_the_score_only_in_a_column_of_its_own(docvqa, tmp_path):
    table = pq.read_table(docvqa / "part-00000.parquet").slice(0, 3)
    changed = {
        "parse_status": ["failed", "ok", "failed"], "score": [0.0, 0.5, 0.0], "choices": [["x", "y"]] * 3,
        "answers": [["A"], ["A"], ["B"]], "response_clean": ["?", "A", "!"],
    }  # fmt: skip
    for name, values in changed.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))

    class AlwaysA:
        name = "somebody"

        def __call__(self, prompts):
            return ["A"] * len(prompts)

    (piece,) = add_verdicts(lambda: iter([Piece("part", table)]), AlwaysA(), Store(str(tmp_path / "kept")))
    found = piece.rows.select(["score", *JUDGE_COLUMNS.names]).to_pylist()
    assert [(row["score"], row["judged_score"], row["judge_verdict"]) for row in found] == [
        (0.0, 1.0, "A"), (0.5, 0.5, None), (0.0, 0.0, "A"),
    ]  # fmt: skip
    assert [row["judge"] for row in found] == ["somebody", None, "somebody"]


def test_an_answer_that_was_cut_off_stays_so(tmp_path):
    answers = [{"id": one["questionId"], "response": one["answer"], "finish_reason": "length"} for one in submission()]
    (tmp_path / "a.json").write_text(json.dumps(answers))
    data = ["--data", str(BULK / "docvqa_val" / "data.parquet"), "--benchmark", "docvqa_val"]
    assert main(["score", str(tmp_path / "a.json"), *data, "--to", str(tmp_path / "cut")]) == 0
    assert main(["score", str(tmp_path / "cut"), "--to", str(tmp_path / "again")]) == 0
    for folder in ("cut", "again"):
        assert {row["parse_status"] for row in rows_of(tmp_path / folder)} == {"truncated"}
        assert report_of(tmp_path / folder)["scores"]["docvqa_val"]["truncated"] == 24


def test_an_output_that_lacks_rows_is_scored_only_if_that_is_asked_for(joined_with, tmp_path, capsys):
    joined_with(submission()[:18], allow_missing=True)
    asked = ["score", str(tmp_path / "out"), "--to", str(tmp_path / "again")]
    assert main(asked) == 1
    assert "found answers to 18 of 24 rows" in capsys.readouterr().err
    assert main([*asked, "--allow-missing"]) == 0
    assert "scored 18 of 24 rows" in capsys.readouterr().out
    assert report_of(tmp_path / "again")["scores"]["docvqa_val"]["missing"] == 6


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
