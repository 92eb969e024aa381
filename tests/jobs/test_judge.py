"""A judge is asked about answers that no rule could read, once, and its verdict stands beside the rule's score."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from jobs.evaluation.answers import Piece
from jobs.evaluation.file_answers import PredictionFile, answers_from_file
from jobs.evaluation.judge import JUDGE_COLUMNS, JudgeError, add_verdicts, ask_judge, model_judge
from jobs.evaluation.score import score
from pipeline.storage.store import Store
from tests.jobs.scored import rows
from tests.jobs.stored import BULK, asked_of, report_of, rows_of

CHECKPOINT = str(Path(__file__).parents[2] / "jobs" / "demo" / "checkpoints" / "aria")


class Replies:
    """A judge with one reply to everything, or one that gives up after some prompts."""

    def __init__(self, reply, *, name="somebody@1", most=None):
        self.reply, self.name, self.most, self.asked = reply, name, most, []

    def __call__(self, prompts):
        if self.most is not None and len(self.asked) + len(prompts) > self.most:
            raise ConnectionError("gone")
        self.asked += prompts
        return [self.reply] * len(prompts)


def unread(response="It must be the second.", **columns):
    """Make one row that `mcq/prefetch` could not read; the right option is B."""
    least = {
        "benchmark": "mmbench_en_dev", "question": "Which colour?", "choices": ["red", "green"], "answers": ["B"],
        "rule": "mcq/prefetch", "response_clean": response, "parsed": None, "parse_status": "failed",
    }  # fmt: skip
    return rows([0.0], **{**least, **columns})[0]


@pytest.fixture
def output(tmp_path):
    return Store(str(tmp_path))


LETTERS = [("B", "B", 1.0), ("A.", "A", 0.0), ("Z", "Z", 0.0), ("green", "B", 1.0), ("<think>A?</think>B", "B", 1.0)]


@pytest.mark.parametrize(("reply", "verdict", "score"), LETTERS)
def test_a_judge_says_which_option_an_answer_means(output, reply, verdict, score):
    (ruling,) = ask_judge([unread()], Replies(reply), output)
    assert (ruling.judge, ruling.verdict, ruling.score) == ("somebody@1", verdict, score)


def test_a_reply_that_says_nothing_is_no_verdict_and_scores_nothing(output):
    (ruling,) = ask_judge([unread()], Replies("I would rather not say"), output)
    assert (ruling.verdict, ruling.score) == (None, 0.0)


def test_a_judge_sees_question_options_and_answer_as_they_are(output):
    judge = Replies("B")
    ask_judge([unread("the {second} one", question="Which {colour}?")], judge, output)
    (prompt,) = judge.asked
    assert prompt.endswith("Question: Which {colour}?\nOptions:\nA. red\nB. green\nAnswer: the {second} one\nLetter:")


@pytest.mark.parametrize("status", ["ok", "refused", "empty", "truncated", None])
def test_only_answers_that_could_not_be_read_are_asked_about(output, status):
    judge = Replies("B")
    assert ask_judge([unread(parse_status=status)], judge, output) == [None]
    assert judge.asked == []


def test_questions_that_a_judge_could_only_guess_at_are_left_out(output):
    judge = Replies("B")
    assert ask_judge([unread(choices=[], rule="math/hendrycks")], judge, output) == [None]
    assert judge.asked == []


MATHVISTA = {"question_type": "free_form", "answer_type": "float", "precision": 1.0}


@pytest.mark.parametrize(("reply", "score"), [("2.5", 1.0), ("2.46", 1.0), ("2.4", 0.0), ("about two", 0.0)])
def test_an_extracted_answer_goes_through_mathvistas_own_comparison(output, reply, score):
    row = unread(
        "Dividing, I get 2.46 metres.", rule="mathvista/official", choices=[], answers=["2.5"],
        facts=json.dumps(MATHVISTA),
    )  # fmt: skip
    judge = Replies(reply)
    (ruling,) = ask_judge([row], judge, output)
    assert (ruling.verdict, ruling.score) == (reply, score)
    assert "Reply with a number with its decimals and nothing else." in judge.asked[0]


def test_a_yes_or_no_is_asked_for_where_the_rule_wants_one(output):
    row = unread("I see several.", rule="pope/vlmevalkit", choices=[], answers=["yes"])
    assert ask_judge([row], Replies("Yes."), output)[0].score == 1.0
    assert ask_judge([row], Replies("unclear", name="another"), output)[0].verdict is None


def test_without_gold_answers_there_is_a_verdict_and_no_score(output):
    (ruling,) = ask_judge([unread(answers=None)], Replies("B"), output)
    assert (ruling.verdict, ruling.score) == ("B", None)


def test_nothing_is_asked_twice_neither_of_equal_rows_nor_in_a_later_start(output):
    first = Replies("B")
    rulings = ask_judge([unread(), unread()], first, output)
    assert len(first.asked) == 1 and rulings[0] == rulings[1]
    again = Replies("A")
    assert ask_judge([unread()], again, output) == rulings[:1]
    assert again.asked == []


def test_another_judge_is_asked_for_itself(output):
    ask_judge([unread()], Replies("B"), output)
    other = Replies("A", name="another@1")
    assert ask_judge([unread()], other, output)[0].verdict == "A"
    assert len(other.asked) == 1


def test_a_dead_judge_stops_everything_and_what_it_said_before_is_kept(output, monkeypatch):
    monkeypatch.setattr("jobs.evaluation.judge.BATCH", 2)
    asked = [unread(f"answer {number}") for number in range(5)]
    dying = Replies("B", most=4)
    with pytest.raises(JudgeError, match="somebody@1: ConnectionError: gone; 4 of 5 prompts were answered"):
        ask_judge(asked, dying, output)
    again = Replies("B")
    assert all(ruling.score == 1.0 for ruling in ask_judge(asked, again, output))
    assert len(again.asked) == 1


def test_a_judge_must_reply_to_each_prompt(output):
    class Short(Replies):
        def __call__(self, prompts):
            return super().__call__(prompts)[1:]

    with pytest.raises(JudgeError, match="found 0 replies to 1 prompts"):
        ask_judge([unread()], Short("B"), output)


def test_one_of_our_own_models_can_be_a_judge(output):
    judge = model_judge(CHECKPOINT)
    assert judge.name.startswith("aria@")
    (ruling,) = ask_judge([unread()], judge, output)
    assert ruling.judge == judge.name
    assert judge([""]) == judge([""])


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
