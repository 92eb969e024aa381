"""Files of answers are read in the forms that other tools leave them in, and refused where they are none."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.evaluation.predictions import read_predictions
from jobs.report.results import ReportError
from pipeline.storage.store import StorageSettings

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


def test_half_a_character_in_an_answer_costs_that_character_alone(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "response": "yes \\ud83d \\ud83d\\ude00"}\n')
    found = read_predictions(str(tmp_path / "a.jsonl"), StorageSettings())
    assert found.answers["1"].text == "yes \ufffd \U0001f600"


def test_an_id_twice_in_a_json_object_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"1": "a", "1": "b"}')
    with pytest.raises(ReportError, match="found '1' twice in one object"):
        read_predictions(str(tmp_path / "a.json"), StorageSettings())
