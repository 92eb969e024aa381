"""Files for the servers that keep hidden answers: written from an output's rows, checked, and refused if not whole."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from jobs.evaluation.submission_files import decode
from jobs.evaluation.submission_formats import FORMATS, SubmissionError, format_of
from jobs.evaluation.submit import check, submit
from jobs.scoring.response import clean
from pipeline.storage.store import Store
from tests.jobs.scored import FAILED, rows, write_scored

BULK = Path(__file__).parents[1] / "data" / "vectors" / "bulk"


def answered(dataset, given, **columns):
    """Make a row for each (id, response), with the facts of the data set."""
    name = format_of(dataset).id_name
    made = rows([None] * len(given), benchmark=dataset, answers=None, **columns)
    for row, (identifier, response) in zip(made, given, strict=True):
        row.update(facts=json.dumps({name: identifier}), response_clean=response, parsed=response, key=f"k{identifier}")
    return made


@pytest.fixture
def written(tmp_path):
    """Write rows as an output, hand them in, and return what the file holds."""

    def write(made, name="out", **asked):
        output = Store(write_scored(tmp_path / name, made))
        return json.loads(Path(submit(output, str(tmp_path / "file.json"), **asked).uri).read_bytes())

    return write


def test_docvqa_is_a_list_of_whole_numbers_and_plain_texts(written):
    folder = BULK / "docvqa_val"
    ids = pq.read_table(folder / "data.parquet", columns=["questionId"])["questionId"].to_pylist()
    responses = [json.loads(line)["prediction"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    given = [(one, clean(response)) for one, response in zip(ids, responses, strict=True)]
    expected = json.loads((folder / "expected.json").read_text())["expected"]["submission"]
    assert written(answered("docvqa_val", given)) == expected


WORDED = [
    ("vqav2_test", [(7, "It's 1,000 dogs.")], [{"question_id": 7, "answer": "it 's 1000 dogs"}]),
    ("textvqa", [(7, "The Two")], [{"question_id": 7, "answer": "2"}]),
    ("infovqa_test", [("7", "Two, three")], [{"questionId": 7, "answer": "Two, three"}]),
    ("gqa", [("007", "Yes.")], [{"questionId": "007", "prediction": "yes"}]),
    ("longvideobench", [("a_1", "B. two")], {"a_1": "B. two"}),
    ("coco_caption", [(9, "A cat\u2028and\r\na dog.")], [{"image_id": 9, "caption": "A cat and a dog."}]),
    ("nocaps", [(9, "A cat.")], [{"image_id": 9, "caption": "A cat."}]),
]


@pytest.mark.parametrize(("dataset", "given", "expected"), WORDED, ids=[one[0] for one in WORDED])
def test_each_server_gets_its_ids_and_its_words(written, dataset, given, expected):
    assert written(answered(dataset, given)) == expected


def test_ids_are_texts_where_they_are_the_names_of_an_object():
    assert {one.id_type for one in FORMATS if one.shape in ("mapping", "problems")} == {str}


def test_mmmu_gets_letters_where_there_are_options_and_else_what_was_said(written):
    made = answered("mmmu_test", [("test_Art_1", "It is (B)."), ("test_Art_2", "Hm."), ("test_Art_3", "about 3")])
    made[0].update(choices=["one", "two"], parsed="B")
    made[1].update(choices=["one", "two"], parsed=None, parse_status="failed")
    assert written(made) == {"test_Art_1": "B", "test_Art_2": "", "test_Art_3": "about 3"}


def test_mathvista_gets_whole_problems_with_response_and_extraction(written):
    (row,) = answered("mathvista_test", [("12", "It is 3.")])
    facts = {"pid": "12", "question_type": "free_form", "answer_type": "integer", "precision": None}
    groups = {"question_type": "free_form", "language": "english", "skills": "arithmetic"}
    row.update(
        facts=json.dumps(facts), parsed=None, parse_status="failed", question="How many?",
        groups=[{"name": name, "value": value} for name, value in groups.items()],
    )  # fmt: skip
    assert written([row]) == {
        "12": {
            **facts, "question": "How many?", "choices": None, "extraction": "", "response": "It is 3.",
            "metadata": {"language": "english", "skills": ["arithmetic"]},
        }
    }  # fmt: skip


def mmbench(indices):
    made = answered("mmbench_en_test", [(index, "=A") for index in indices])
    for row in made:
        facts = {**json.loads(row["facts"]), "category": "ocr", "L2-category": "perception"}
        row.update(choices=["red", "green", "blue"], facts=json.dumps(facts), question="Which\x0b colour?")
    return made


def test_mmbench_gets_an_excel_table_of_all_rotations_equal_every_time(tmp_path):
    import pandas as pd

    outputs = [Store(write_scored(tmp_path / name, mmbench([5, 1_000_005]))) for name in "ab"]
    files = [Path(submit(output, str(tmp_path / f"{output.uri}.xlsx")).uri) for output in outputs]
    table = pd.read_excel(files[0])
    assert list(table.columns) == [
        "index", "question", "hint", "A", "B", "C", "D", "category", "L2-category", "prediction",
    ]  # fmt: skip
    assert table["index"].tolist() == [5, 1_000_005]
    assert table["prediction"].tolist() == ["=A", "=A"]  # a text, not a formula
    assert table["question"].tolist() == ["Which  colour?"] * 2
    assert table["D"].isna().all()
    assert files[0].read_bytes() == files[1].read_bytes()
    with zipfile.ZipFile(files[0]) as packed:
        assert {one.date_time[0] for one in packed.infolist()} == {1980}
        assert packed.read("docProps/core.xml").count(b">1980-01-01T00:00:00Z<") == 2


def test_a_file_is_called_what_it_is(tmp_path):
    tables, lists = write_scored(tmp_path / "a", mmbench([5, 1_000_005])), write_scored(tmp_path / "b", rows([1.0]))
    with pytest.raises(SubmissionError, match=r"a.json, .* ends in .xlsx: mmbench_en_test's server takes Excel"):
        submit(Store(tables), str(tmp_path / "a.json"))
    with pytest.raises(
        SubmissionError,
        match=r"a.xlsx, .* does not end in .xlsx: docvqa_val's server takes JSON",
    ):
        submit(Store(lists), str(tmp_path / "a.xlsx"))
    assert not list(tmp_path.glob("a.*"))


def test_mmbench_without_rotations_is_refused(tmp_path):
    output = Store(write_scored(tmp_path / "out", mmbench([5, 6])))
    with pytest.raises(SubmissionError, match="expected the rotations of each question"):
        submit(output, str(tmp_path / "file.xlsx"))


def test_a_text_that_no_cell_holds_is_refused(tmp_path):
    made = mmbench([5, 1_000_005])
    made[1]["response_clean"] = "x" * 40_000
    with pytest.raises(SubmissionError, match="index 1000005, prediction: found 40,000 characters"):
        submit(Store(write_scored(tmp_path / "out", made)), str(tmp_path / "file.xlsx"))


def test_the_manifest_says_what_was_handed_in_and_nothing_of_the_time(tmp_path):
    origin = {"settings": {"job": {"benchmarks": {"mine": {"dataset": "docvqa_test"}}}}, "weights": "sha256:abc"}
    made = answered("docvqa_test", [(1, "one"), (2, "")], model="aria")
    for row in made:
        row["benchmark"] = "mine"
    folder = write_scored(tmp_path / "out", made, origin)
    (tmp_path / "out" / "_SUCCESS").touch()
    submission = submit(Store(folder), str(tmp_path / "file.json"))
    manifest = json.loads((tmp_path / "file.json.manifest.json").read_text())
    assert manifest == dict(submission.manifest)
    assert manifest.pop("sha256") == hashlib.sha256((tmp_path / "file.json").read_bytes()).hexdigest()
    assert manifest == {
        "benchmark": "mine", "dataset": "docvqa_test", "rows": 2, "empty": 1, "failed": 0, "unread": 0,
        "added": 0,
        "normalisation": None, "rule": ["anls/rrc"], "preset": ["lmms"], "model": ["aria"], "weights": "sha256:abc",
    }  # fmt: skip


def test_a_run_over_a_part_of_the_set_is_refused_unless_a_list_of_ids_says_it_is_whole(tmp_path):
    folder = write_scored(
        tmp_path / "out", answered("docvqa_test", [(1, "one")]), {"settings": {"read": {"limit": 1}}, "weights": ""}
    )
    (tmp_path / "out" / "_SUCCESS").touch()
    with pytest.raises(SubmissionError, match="found a run over the first 1 rows"):
        submit(Store(folder), str(tmp_path / "file.json"))
    (tmp_path / "ids.json").write_text("[1]")
    assert submit(Store(folder), str(tmp_path / "file.json"), ids=str(tmp_path / "ids.json")).manifest["rows"] == 1


def test_failed_rows_are_refused_or_handed_in_empty(written, tmp_path):
    made = answered("docvqa_test", [(1, "one"), (2, "two")])
    made[1].update(FAILED)
    with pytest.raises(SubmissionError, match=r"1 rows without an answer \(k2\)"):
        written(made)
    assert written(made, "again", allow_missing=True) == [
        {"questionId": 1, "answer": "one"}, {"questionId": 2, "answer": ""},
    ]  # fmt: skip


def test_missing_and_unknown_ids_are_refused_and_missing_ones_may_be_handed_in_empty(written, tmp_path):
    made = answered("docvqa_test", [(1, "one"), (2, "two")])
    (tmp_path / "ids.txt").write_text("1\n3\n4\n")
    with pytest.raises(SubmissionError, match=r"2 ids are missing, expected all 3 \(3, 4\)[^u]+unknown") as refused:
        written(made, ids=str(tmp_path / "ids.txt"))
    assert "1 ids are unknown, expected only the data set's (2)" in str(refused.value)
    (tmp_path / "ids.txt").write_text("1\n2\n3\n")
    assert written(made, "again", ids=str(tmp_path / "ids.txt"), allow_missing=True)[2] == {
        "questionId": 3, "answer": "",
    }  # fmt: skip


def test_an_id_that_stands_for_two_rows_is_refused(written):
    made = answered("docvqa_test", [(1, "one"), (1, "two")])
    made[1]["key"] = "another"
    with pytest.raises(SubmissionError, match="1 ids occur more than once"):
        written(made)


def test_a_row_without_the_servers_id_is_refused(written):
    made = answered("docvqa_test", [("x1", "one")])
    with pytest.raises(SubmissionError, match="found questionId 'x1', expected a whole number"):
        written(made)


def test_a_row_that_could_not_be_read_is_known_by_its_key(written):
    made = answered("docvqa_test", [(1, "one"), (2, "two")])
    made[1].update(FAILED, facts=None, key="2", preset=None)
    assert written(made, allow_missing=True)[1] == {"questionId": 2, "answer": ""}


def test_a_benchmark_without_a_server_is_refused(written):
    made = rows([1.0], benchmark="pope")
    with pytest.raises(SubmissionError, match="expected one with a known submission file: vqav2, textvqa"):
        written(made)


def test_one_of_several_benchmarks_must_be_named(written):
    made = answered("docvqa_test", [(1, "one")]) + answered("gqa", [("1", "one")])
    with pytest.raises(SubmissionError, match=r"found docvqa_test, gqa in .* expected `--benchmark`"):
        written(made)
    assert written(made, "again", benchmark="gqa") == [{"questionId": "1", "prediction": "one"}]


WRONG = [
    ("docvqa_test", b'{"questionId": 1, "answer": "a"}\n{"questionId": 2, "answer": "b"}\n', "JSON lines are refused"),
    ("docvqa_test", b'{"1": "a"}', "found a JSON dict, expected a list of objects"),
    ("docvqa_test", b'[{"questionId": "1", "answer": "a"}]', "found questionId '1', expected a whole number"),
    ("docvqa_test", b'[{"questionId": true, "answer": "a"}]', "found questionId True, expected a whole number"),
    ("docvqa_test", b'[{"questionId": 1, "answer": 5}]', "found answer 5, expected a text"),
    ("docvqa_test", b'[{"questionId": 1, "answer": "a", "x": 1}]', "expected questionId and answer"),
    ("docvqa_test", b'["a"]', "found 'a', expected questionId and answer"),
    ("gqa", b'[{"questionId": 1, "prediction": "a"}]', "found questionId 1, expected a text"),
    ("mmmu_test", b'{"1": "A", "1": "B"}', "found '1' twice in one object"),
    ("mmmu_test", b'{"1": ["A"]}', r"found answer \['A'\], expected a text"),
    ("mmmu_test", b"[]", "found a JSON list, expected an object"),
    (
        "mathvista_test",
        b'{"1": {"response": "A"}}',
        "1: found no question_type, .* metadata, extraction",
    ),
    ("mmbench_en_test", b"not a zip", "found no Excel file"),
    ("docvqa_test", b"\xff", "found no JSON"),
]


@pytest.mark.parametrize(("dataset", "data", "said"), WRONG, ids=range(len(WRONG)))
def test_a_file_that_its_server_would_not_take_is_refused(dataset, data, said):
    ids = [1] if format_of(dataset).id_type is int else ["1"]
    with pytest.raises(SubmissionError, match=said):
        check(data, dataset, ids)


def test_an_excel_table_of_questions_in_place_of_rotations_is_refused():
    from openpyxl import Workbook

    book, data = Workbook(), io.BytesIO()
    book.active.append(["index", "question", "hit"])
    book.save(data)
    with pytest.raises(SubmissionError, match="question, hit, expected also A, B, C, D, prediction"):
        decode(data.getvalue(), format_of("mmbench_en_test"))


LISTS = ["1\n2\n", "[1, 2]", '["1", "2"]', '{"1": "A", "2": "B"}', '{"questions": [{"question_id": 1}, {"id": 2}]}']


@pytest.mark.parametrize("ids", LISTS)
def test_ids_may_come_as_they_are_published(ids, tmp_path, capsys):
    (tmp_path / "ids").write_text(ids)
    (tmp_path / "file").write_text('[{"question_id": 1, "answer": "a"}, {"question_id": 2, "answer": "b"}]')
    asked = ["submit", "--check", str(tmp_path / "file"), "--benchmark", "vqav2_test", "--ids", str(tmp_path / "ids")]
    assert main(asked) == 0
    assert "2 answers in the format of vqav2_test's server" in capsys.readouterr().out


@pytest.mark.parametrize("ids", [b"[1, 2", b"\xff\xfe1"])
def test_a_list_of_ids_that_is_none_is_refused(ids, tmp_path, capsys):
    (tmp_path / "ids").write_bytes(ids)
    asked = ["submit", "--check", str(tmp_path / "ids"), "--benchmark", "vqav2_test", "--ids", str(tmp_path / "ids")]
    assert main(asked) == 1
    assert "found no list of ids, expected JSON, or one id on each line" in capsys.readouterr().err


def test_the_command_writes_and_checks_and_says_what_it_lacks(tmp_path, capsys):
    folder = write_scored(tmp_path / "out", answered("docvqa_test", [(1, "one"), (2, "")]))
    file = str(tmp_path / "file.json")
    assert main(["submit", folder, "--benchmark", "docvqa_test", file]) == 0  # in any order
    said = capsys.readouterr().out
    assert f"2 answers of docvqa_test: {file}" in said and "1 of them are empty" in said
    (tmp_path / "ids").write_text("1 2 3")
    asked = ["submit", "--check", file, "--benchmark", "docvqa_test", "--ids", str(tmp_path / "ids")]
    assert main(asked) == 1
    assert "1 ids are missing" in capsys.readouterr().err
    assert main(["submit", "--check", file]) == 2
    assert main(["submit", folder]) == 2
