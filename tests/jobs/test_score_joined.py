"""Answers of a file are joined with the data that they are of, and scored."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from jobs.evaluation.file_answers import PredictionFile, answers_from_file
from jobs.report.results import ReportError
from pipeline.settings import ConfigError
from tests.jobs.benchmark_folders import write_mmbench_v11
from tests.jobs.stored import BULK, asked_of, report_of, rows_of, submission


def test_images_that_lie_in_other_rows_of_the_same_file_are_not_needed(tmp_path):
    write_mmbench_v11(tmp_path)
    lines = [json.dumps({"index": index, "response": "A"}) for index in (3, 4, 1_000_003, 1_000_004)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = ["--data", str(tmp_path / "MMBench" / "MMBench_DEV_EN_V11.tsv"), "--benchmark", "mmbench_dev_en_v11"]
    assert main(["score", str(tmp_path / "a.jsonl"), *data, "--to", str(tmp_path / "out")]) == 0
    assert report_of(tmp_path / "out")["scores"]["mmbench_dev_en_v11"]["n"] == 2


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


def test_rows_of_ones_own_without_gold_answers_cannot_be_scored(tmp_path, capsys):
    (tmp_path / "own.jsonl").write_text('{"question": "How many?", "answer": "10"}\n')
    (tmp_path / "a.csv").write_text("row,response\n0,ten\n")
    asked = ["score", str(tmp_path / "a.csv"), "--data", str(tmp_path / "own.jsonl"), "--to", str(tmp_path / "out")]
    assert main(asked) == 2
    said = "found no column `answers`, expected the gold answers; set read.columns.answers=answer"
    assert said in capsys.readouterr().err


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
