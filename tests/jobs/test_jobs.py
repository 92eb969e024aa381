"""What the jobs ask and what they keep, without a model."""

import pickle
from dataclasses import fields
from typing import get_args, get_type_hints

import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from jobs.caption import CaptionSettings
from jobs.config import JobSettings
from jobs.report.job import ReportedJob
from jobs.vqa import VqaSettings
from models.types import Answer, BadRequest, Sampling
from pipeline.input.columns import ERROR
from pipeline.job import Job, MissingColumns
from tests.jobs.summaries import summary_of

SAMPLING = Sampling(seed=7, max_new_tokens=9)
ROW = {"key": "a", "shard": "s", "index": 0, "images": (b"1", b"2"), "place": "Rome", "year": 1960}
QUESTION = {"key": "a", "shard": "s", "index": 0, "images": (b"1",), "question": "what shape?", "answers": ["circle"]}
TYPES = {"images": pa.list_(pa.large_binary()), "answers": pa.list_(pa.string()), "error": ERROR}


def answer(text, finish="stop"):
    return Answer(text, None, (1, 2), (-0.1, -0.2), finish, 10, 4)


def caption(**settings):
    return CaptionSettings(kind="caption", **settings).build()


def vqa(**settings):
    return VqaSettings(kind="vqa", **settings).build()


def taken(job, row):
    """Take a row as the job's steps get it from its reader."""
    columns = {**row, "error": None}
    table = pa.table({name: pa.array([value], TYPES.get(name)) for name, value in columns.items()})
    [adapted] = job.adapt("", table).to_pylist()
    return {**adapted, "images": row["images"]}


def only(job, row):
    [request] = job.requests(row, SAMPLING)
    return request


def asked(request):
    return request.messages[0]["content"][-1]["text"]


def test_a_caption_asks_the_prompt_after_the_rows_images():
    request = only(caption(prompt="What is this?"), ROW)
    assert [item["type"] for item in request.messages[0]["content"]] == ["image", "image", "text"]
    assert asked(request) == "What is this?"
    assert request.images == (b"1", b"2")
    assert request.key == "a"


def test_jobs_that_read_ask_once_with_the_sampling_they_are_given_and_draw_nothing():
    for job, row in ((caption(), ROW), (vqa(), taken(vqa(), QUESTION))):
        assert only(job, row).sampling == SAMPLING
        assert (job.sampling, job.picture, job.check) == (Sampling(), None, None)


def test_questions_say_what_their_prompts_begin_with_and_captions_do_not():
    row = {**QUESTION, "examples": "1 + 1? 2"}

    def shared(job):
        return only(job, taken(job, row)).shared

    assert shared(vqa(prompt="{examples}\n{question} Be brief.")) == "1 + 1? 2\n"
    assert shared(vqa(prompt="{question}")) == shared(vqa(prompt="What is it?")) == ""
    assert shared(caption(prompt="{examples}\n{question}")) is None


def test_columns_are_filled_into_the_prompt():
    job = caption(prompt="{place} in {year}, {place}: what is it?")
    assert asked(only(job, ROW)) == "Rome in 1960, Rome: what is it?"
    assert list(job.required) == ["place", "year"]


def test_a_filled_in_column_is_not_filled_in_again():
    assert asked(only(caption(prompt="{place}"), {**ROW, "place": "{key} {place}"})) == "{key} {place}"


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}, b"x"])
def test_a_column_without_text_is_an_error_of_its_row(value):
    with pytest.raises(BadRequest, match="column `place`, expected text"):
        only(caption(prompt="{place}"), {**ROW, "place": value})


@pytest.mark.parametrize("prompt", ["{place.upper}", "{place[0]}", "{place!r}", "{0:>9}", "{}", " "])
def test_only_plain_column_names_stand_in_braces(prompt):
    with pytest.raises(ValidationError, match=r"plain column name|the prompt is empty"):
        caption(prompt=prompt)


def test_a_caption_is_null_where_the_row_failed():
    assert caption().record(ROW, answer(" a red circle\n"), 0, SAMPLING) == {"caption": "a red circle"}
    assert caption().record(ROW, None, 0, SAMPLING) == {"caption": None}


def test_captions_are_scored_where_a_reference_is_known():
    results = pa.table(
        {
            "caption": ["a red circle", "a red circle", "a dog", None],
            "gold": ["A red circle.", None, "a cat", "a cat"],
            "finish_reason": ["stop", "stop", "length", "error"],
        }
    )
    score = summary_of(caption(reference="gold"), results)["scores"]["caption"]
    assert (score["n"], score["unscored"], score["failed"], score["truncated"]) == (3, 1, 1, 1)
    assert score["score"] == pytest.approx(1 / 3)
    assert summary_of(caption(), results) == {}


def test_a_question_is_asked_as_it_stands():
    assert asked(only(vqa(), taken(vqa(), QUESTION))) == "what shape?"


def test_a_question_without_an_image_is_asked_as_text():
    request = only(vqa(), taken(vqa(), {**QUESTION, "images": ()}))
    assert request.messages == [{"role": "user", "content": [{"type": "text", "text": "what shape?"}]}]


def test_rows_without_a_column_of_answers_are_asked_and_have_no_score():
    row = {name: value for name, value in QUESTION.items() if name != "answers"}
    record = vqa().record(taken(vqa(), row), answer("a circle"), 0, SAMPLING)
    assert (record["answers"], record["score"], record["response"]) == (None, None, "a circle")
    assert vqa().record(taken(vqa(), row), None, 0, SAMPLING)["score"] is None


def test_a_question_under_another_name_is_proposed():
    rows = pa.table(
        {"key": ["a"], "shard": ["s"], "index": [0], "images": [[b"1"]], "error": [None], "query": ["what?"]}
    )
    with pytest.raises(MissingColumns) as caught:
        vqa().adapt("", rows)
    assert caught.value.faults == [
        "read.columns: job vqa needs a column `question`, but the input has key, query; set read.columns.question=query"
    ]


def test_a_benchmarks_wording_goes_around_the_question():
    job = vqa(prompt="{question}\nAnswer in one word.")
    assert asked(only(job, taken(job, QUESTION))) == "what shape?\nAnswer in one word."
    assert (list(job.required), list(job.optional)) == (["question"], ["answers", "job.messages"])


@pytest.mark.parametrize("question", [None, "", "  "])
def test_a_row_without_a_question_is_an_error_row(question):
    with pytest.raises(BadRequest, match="column `question`"):
        only(vqa(), taken(vqa(), {**QUESTION, "question": question}))


def test_a_vqa_record_keeps_every_step_of_reading_the_response():
    job = vqa(group_by="shard", cluster_by="shard")
    record = job.record(taken(job, QUESTION), answer("<think>round</think> Circle. "), 0, SAMPLING)
    hashes = {name: record.pop(name) for name in ("row_hash", "image_hash")}
    assert all(len(found) == 32 for found in hashes.values())
    assert record == {
        "benchmark": "vqa",
        "question": "what shape?",
        "context": "",
        "answers": ["circle"],
        "choices": [],
        "groups": [{"name": "shard", "value": "s"}],
        "cluster": "s",
        "facts": "{}",
        "preset": None,
        "response": "<think>round</think> Circle. ",
        "response_clean": "Circle.",
        "parsed": "circle",
        "parse_status": "ok",
        "score": 1.0,
        "rule": "exact/nocase_nopunct",
        "other_scores": [],
        "choice_logprobs": None,
    }


def test_equal_rows_have_equal_hashes_and_others_do_not():
    def hashes(**values):
        record = vqa().record(taken(vqa(), {**QUESTION, **values}), None, 0, SAMPLING)
        return record["row_hash"], record["image_hash"]

    row, images = hashes()
    assert hashes(key="b", shard="t") == (row, images)
    assert hashes(question="what size?") == (hashes(question="what size?")[0], images)
    assert hashes(question="what size?")[0] != row != hashes(answers=["cir", "cle"])[0]
    assert hashes(images=(b"2",)) != (row, images)
    assert hashes(images=(b"12",))[1] != hashes(images=(b"1", b"2"))[1]
    assert hashes(images=())[1] is None


def test_options_of_own_rows_are_read_and_scored_by_their_letter():
    job = vqa(rule="mcq/prefetch")
    numbered = job.record(taken(job, {**QUESTION, "choices": [3, 4.5], "answers": ["B"]}), answer("B"), 0, SAMPLING)
    assert (numbered["choices"], numbered["score"]) == (["3.0", "4.5"], 1.0)
    for choices in (["red", "blue"], '["red", "blue"]', "['red', 'blue']"):
        record = job.record(taken(job, {**QUESTION, "choices": choices, "answers": ["B"]}), answer("blue"), 0, SAMPLING)
        assert (record["choices"], record["parsed"], record["score"]) == (["red", "blue"], "B", 1.0)


def test_options_that_are_no_list_cost_their_row():
    row = taken(vqa(), {**QUESTION, "choices": "open('x').read()"})
    assert (row["error"]["stage"], row["error"]["type"]) == ("adapt", "BadRow")
    assert vqa().record(row, None, 0, SAMPLING)["benchmark"] == "vqa"


def test_an_answer_that_cannot_be_read_is_wrong_or_guessed_by_the_rows_own_seed():
    def record(**settings):
        job = vqa(rule="mcq/prefetch", **settings)
        rows = [{**QUESTION, "key": str(n), "choices": ["red", "blue"], "answers": ["B"]} for n in range(20)]
        return [job.record(taken(job, row), answer("no idea"), 0, Sampling(seed=n)) for n, row in enumerate(rows)]

    assert {one["score"] for one in record()} == {0.0}
    assert {one["score"] for one in record(fallback="random")} == {0.0, 1.0}
    assert record(fallback="random") == record(fallback="random")
    assert {one["parse_status"] for one in record(fallback="random")} == {"failed"}


def test_a_failed_row_scores_nought():
    record = vqa().record(taken(vqa(), QUESTION), None, 0, SAMPLING)
    assert record["score"] == 0.0
    assert record.get("response") is None


def test_a_row_without_gold_answers_has_no_score():
    assert vqa().record(taken(vqa(), {**QUESTION, "answers": None}), answer("circle"), 0, SAMPLING)["score"] is None
    assert vqa().record(taken(vqa(), {**QUESTION, "answers": []}), None, 0, SAMPLING)["score"] is None
    assert vqa().record(taken(vqa(), {**QUESTION, "answers": [""]}), answer(""), 0, SAMPLING)["score"] is None


@pytest.mark.parametrize(
    ("text", "finish", "status"), [("yes", "stop", "ok"), (" ", "stop", "empty"), ("yes", "length", "truncated")]
)
def test_the_parse_status_says_how_the_answer_ended(text, finish, status):
    assert vqa().record(taken(vqa(), QUESTION), answer(text, finish), 0, SAMPLING)["parse_status"] == status


def test_records_fit_the_jobs_schema():
    for job, row in ((caption(), ROW), (vqa(), taken(vqa(), QUESTION))):
        records = [job.record(row, answer("circle"), 0, SAMPLING), job.record(row, None, 0, SAMPLING)]
        assert pa.Table.from_pylist(records, schema=job.schema).num_rows == 2


def test_accuracy_is_also_given_by_group():
    job = vqa(benchmark="easy-vqa", group_by="kind")
    rows = [taken(job, {**QUESTION, "kind": kind, "shard": str(n)}) for n, kind in enumerate("aab")]
    answers = [answer("circle"), None, answer("circle")]
    records = [job.record(row, given, 0, SAMPLING) for row, given in zip(rows, answers, strict=True)]
    results = pa.Table.from_pylist(records, schema=job.schema)
    results = results.append_column("error", pa.array([None, {"stage": "decode"}, None], ERROR))
    results = results.append_column("finish_reason", pa.array(["stop", "error", "stop"]))
    results = results.append_column("key", pa.array(["x", "y", "z"]))
    score = summary_of(job, results)["scores"]["easy-vqa"]
    assert (score["n"], score["failed"], score["rule"]) == (3, 1, "exact/nocase_nopunct")
    assert score["by"]["a"]["score"] == 0.5
    assert "kind" in job.required


@pytest.mark.parametrize("settings", get_args(get_args(JobSettings)[0]), ids=lambda settings: settings.__name__)
def test_a_job_has_all_that_the_pipeline_and_the_report_ask_for(settings):
    job = get_type_hints(settings.build)["return"]
    asked = {name for protocol in (Job, ReportedJob) for name in vars(protocol) if not name.startswith("_")}
    assert asked - {*dir(job), *(field.name for field in fields(job))} == set()


def test_jobs_travel():
    for job in (caption(prompt="{place}"), vqa()):
        assert pickle.loads(pickle.dumps(job)) == job


def test_an_unknown_rule_names_the_known_ones():
    with pytest.raises(ValidationError, match="exact/nocase_nopunct"):
        TypeAdapter(VqaSettings).validate_python({"kind": "vqa", "rule": "exact"})


def test_the_page_shows_a_caption_beside_its_reference():
    row = {"caption": "a dog", "gold": "a cat"}
    assert caption(reference="gold").card_lines(row) == [("", "a dog"), ("gold", "a cat")]
    assert caption(reference="gold").card_lines({**row, "gold": None}) == [("", "a dog")]
    several = {**row, "gold": ["a cat", "a tom"]}
    assert caption(reference="gold").card_lines(several) == [("", "a dog"), ("gold", "a cat / a tom")]
    assert caption().card_lines({"caption": ""}) == [("", "(nothing)")]


def test_the_page_shows_a_question_its_answer_and_all_gold_answers():
    row = {"question": "what?", "response": "a dog", "parsed": "a dog", "choices": [], "answers": ["dog", "puppy"]}
    row["context"] = ""
    assert vqa().card_lines({**row, "context": "user: hi"})[:2] == [("before", "user: hi"), ("question", "what?")]
    assert vqa().card_lines(row) == [("question", "what?"), ("answer", "a dog"), ("gold", "dog / puppy")]
    chosen = {**row, "response": "It is B.", "parsed": "B", "choices": ["a cat", "a dog"], "answers": ["B"]}
    assert vqa().card_lines(chosen) == [
        ("question", "what?"),
        ("options", "A. a cat, B. a dog"),
        ("answer", "It is B."),
        ("read as", "B"),
        ("gold", "B"),
    ]


def test_rows_without_gold_are_neither_right_nor_wrong():
    assert vqa().verdicts(pa.table({"score": [1.0, 0.0, None]})) == [True, False, None]
    results = pa.table({"caption": ["a dog", None, "x"], "gold": ["A dog!", "a cat", None]})
    assert caption(reference="gold").verdicts(results) == [True, False, None]
    several = results.set_column(1, "gold", pa.array([["a cat", "A dog!"], ["a cat"], None]))
    assert caption(reference="gold").verdicts(several) == [True, False, None]
    assert caption().verdicts(results) == [None, None, None]
