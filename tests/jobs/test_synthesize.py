"""What the job that draws asks for and keeps, without a model."""

import pickle
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from jobs.console_text import run_lines, score_lines
from jobs.report.writer import Report
from jobs.start import Outcome
from jobs.synthesize import NEGATIVE_PROMPT, QUALITY, SCHEMA, SynthesizeSettings
from models.images import encode_image
from models.types import Answer, BadRequest, PictureFormat, Sampling
from pipeline.rows import kept_columns, part_schema
from pipeline.run import RunResult
from tests.jobs.summaries import summary_of
from tests.pictures import plain

ROW = {"key": "a", "shard": "s", "index": 0, "images": (), "error": None, "text": "a fox"}
SAMPLING = Sampling(temperature=1.0, top_k=2048, guidance_scale=3.0, seed=2**63 - 2)


def synthesize(**settings):
    return SynthesizeSettings(kind="synthesize", **settings).build()


def asked(row=None, **settings):
    return synthesize(**settings).requests({**ROW, **(row or {})}, SAMPLING)


def picture(width=24, height=16, form="PNG"):
    return plain("red", (width, height), form)


def drawn(image):
    return Answer("", image, (1, 2), (0.0, 0.0), "stop", 10, 0)


def said(text):
    return Answer(text, None, (1, 2), (0.0, 0.0), "stop", 10, 4)


def test_a_text_is_asked_as_the_authors_ask_it():
    [request] = asked()
    assert request.prompt == "a fox" + QUALITY
    assert request.negative_prompt == NEGATIVE_PROMPT
    assert (request.key, request.grid, request.sampling) == ("a", (90, 90), SAMPLING)
    assert synthesize(guidance_scale=2).sampling == Sampling(temperature=1.0, top_k=2048, guidance_scale=2.0)


def test_a_text_is_taken_to_the_last_blank():
    assert asked({"text": " a fox\n"}, quality=", sharp")[0].prompt == " a fox\n, sharp"


def test_the_words_for_quality_can_be_left_out():
    assert asked(quality="")[0].prompt == "a fox"


def test_the_settings_hold_for_rows_that_say_nothing():
    row = {"ratio": None, "area": "", "negative_prompt": None, "guidance_scale": " ", "seed": None, "num_images": ""}
    requests = asked(row, ratio="16:9", negative_prompt="dull", guidance_scale=2, num_images=2)
    assert [request.grid for request in requests] == [(68, 120)] * 2
    assert requests[0].negative_prompt == "dull"
    assert requests[0].sampling.guidance_scale == 2.0


@pytest.mark.parametrize(
    "row",
    [
        {"ratio": "2:1", "area": 8192, "guidance_scale": 1.5, "seed": 5, "num_images": 1},
        {"ratio": "2:1", "area": 8192.0, "guidance_scale": Decimal("1.5"), "seed": 5.0, "num_images": 1.0},
        {"ratio": " 2:1 ", "area": "8192", "guidance_scale": "1.5", "seed": " 5", "num_images": "1"},
        {"ratio": "2:1", "area": "8192.0", "guidance_scale": "15e-1", "seed": "5", "num_images": "1.0"},
    ],
    ids=["numbers", "other numbers", "texts", "other texts"],
)
def test_a_row_says_its_own_in_whatever_way_its_format_allows(row):
    [request] = asked({**row, "negative_prompt": "dull"}, num_images=3)
    assert request.grid == (8, 16)
    assert request.negative_prompt == "dull"
    assert request.sampling == Sampling(temperature=1.0, top_k=2048, guidance_scale=1.5, seed=5)


def test_a_blank_negative_prompt_is_one():
    assert asked({"negative_prompt": ""})[0].negative_prompt == ""


def test_large_seeds_are_read_to_the_last_digit():
    assert asked({"seed": str(2**63 - 1)})[0].sampling.seed == 2**63 - 1
    assert asked({"seed": 2**53 + 1})[0].sampling.seed == 2**53 + 1


def test_the_seeds_of_a_rows_pictures_count_up_and_around():
    assert [request.sampling.seed for request in asked(num_images=3)] == [2**63 - 2, 2**63 - 1, 0]
    assert [request.sampling.seed for request in asked({"seed": 7, "num_images": "3"})] == [7, 8, 9]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("text", None, "column `text`"),
        ("text", " ", "column `text`"),
        ("ratio", "wide", "found ratio 'wide', expected width to height"),
        ("ratio", "1:0", "found ratio '1:0'"),
        ("ratio", 1.5, "column `ratio`: found 1.5, expected text"),
        ("area", 0, "column `area`: found 0, expected a whole number from 1 to"),
        ("area", "-5", "column `area`: found '-5'"),
        ("area", 10**12, "column `area`: found 1000000000000"),
        ("area", "720x720", "column `area`: found '720x720'"),
        ("area", 0.5, "column `area`: found 0.5"),
        ("area", 1, "a picture of 0 x 0 codes"),
        ("num_images", 0, "column `num_images`: found 0, expected a whole number from 1 to 64"),
        ("num_images", 65, "column `num_images`: found 65"),
        ("num_images", 1.5, "column `num_images`: found 1.5"),
        ("num_images", True, "column `num_images`: found True"),
        ("num_images", [1], r"column `num_images`: found \[1\]"),
        ("num_images", "1_0", "column `num_images`: found '1_0'"),
        ("guidance_scale", float("nan"), "column `guidance_scale`: found nan, expected a number from -1000 to 1000"),
        ("guidance_scale", "inf", "column `guidance_scale`: found 'inf'"),
        ("guidance_scale", "1e999", "column `guidance_scale`: found '1e999'"),
        ("guidance_scale", "1000.5", "column `guidance_scale`: found '1000.5'"),
        ("guidance_scale", -1001, "column `guidance_scale`: found -1001"),
        ("guidance_scale", "strong", "column `guidance_scale`: found 'strong'"),
        ("seed", -1, "column `seed`: found -1, expected a whole number from 0 to 9223372036854775807"),
        ("seed", 2**63, "column `seed`: found 9223372036854775808"),
        ("seed", "1e999999999", "column `seed`: found '1e999999999'"),
        ("seed", "0.5", "column `seed`: found '0.5'"),
        ("negative_prompt", 3, "column `negative_prompt`: found 3, expected text"),
    ],
)
def test_what_a_row_cannot_mean_is_an_error_of_that_row(column, value, words):
    with pytest.raises(BadRequest, match=words):
        asked({column: value})


@pytest.mark.parametrize(("row", "found"), [({"guidance_scale": 1000}, 1000.0), ({"guidance_scale": "-1e3"}, -1000.0)])
def test_guidance_may_be_as_strong_as_numbers_bear(row, found):
    assert asked(row)[0].sampling.guidance_scale == found
    assert synthesize(guidance_scale=found).sampling.guidance_scale == found


@pytest.mark.parametrize(("image_format", "most"), [("webp", 16_383), ("jpeg", 65_500)], ids=["webp", "jpeg"])
def test_a_picture_longer_than_its_file_can_be_is_refused_before_it_is_drawn(image_format, most):
    most_codes = most // 8
    longest = {"ratio": f"{most_codes}:1", "area": most_codes * 64}
    longer = {"ratio": f"{most_codes + 1}:1", "area": (most_codes + 1) * 64}
    upright = {**longer, "ratio": f"1:{most_codes + 1}"}
    assert asked(longest, image_format=image_format)[0].grid == (1, most_codes)
    assert asked(longer, image_format="png")[0].grid == (1, most_codes + 1)
    wide = f"found a picture of {(most_codes + 1) * 8} x 8 pixels, expected at most {most} on a side in {image_format}"
    with pytest.raises(BadRequest, match=wide):
        asked(longer, image_format=image_format)
    with pytest.raises(BadRequest, match=f"found a picture of 8 x {(most_codes + 1) * 8} pixels"):
        asked(upright, image_format=image_format)
    # The limits are those of the encoders, no more and no less.
    encode_image(np.zeros((1, most, 3), np.uint8), PictureFormat(image_format))
    with pytest.raises((OSError, ValueError)):
        encode_image(np.zeros((1, most + 1, 3), np.uint8), PictureFormat(image_format))


@pytest.mark.parametrize(("name", "form"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_a_record_holds_the_picture_its_size_and_all_that_it_was_drawn_with(name, form):
    job = synthesize(image_format=name, image_quality=80)
    assert job.picture == PictureFormat(name, 80)
    row = {**ROW, "ratio": "3:2", "area": "384", "guidance_scale": "2", "num_images": 2.0, "negative_prompt": ""}
    image = picture(form=form)
    assert job.record(row, drawn(image), 1, SAMPLING) == {
        "caption_in": "a fox",
        "image": image,
        "width": 24,
        "height": 16,
        "image_format": name,
        "image_index": 1,
        "ratio": "3:2",
        "area": 384,
        "negative_prompt": "",
        "guidance_scale": 2.0,
        "num_images": 2,
        "temperature": 1.0,
        "top_k": 2048,
        "top_p": 1.0,
    }


def test_a_row_that_failed_keeps_what_can_be_read_of_it():
    record = synthesize().record({**ROW, "ratio": "wide", "area": "none"}, None, 0, SAMPLING)
    assert (record["caption_in"], record["ratio"], record["area"], record["num_images"]) == ("a fox", "wide", None, 1)
    assert "image" not in record
    assert synthesize().record({**ROW, "text": None}, None, 0, SAMPLING)["caption_in"] is None


def test_an_answer_without_a_picture_is_no_answer():
    with pytest.raises(ValueError, match="no picture"):
        synthesize().record(ROW, said("a fox"), 0, SAMPLING)


def test_records_fit_the_schema():
    job = synthesize()
    records = [job.record(ROW, drawn(picture()), 0, SAMPLING), job.record({**ROW, "seed": "x"}, None, 0, SAMPLING)]
    assert pa.Table.from_pylist(records, schema=job.schema).num_rows == 2


def test_what_a_row_says_stands_in_a_part_once():
    schema = pa.schema(
        [(name, pa.string()) for name in ("text", "ratio", "area", "seed", "num_images", "width", "tag")]
    )
    assert kept_columns(schema, synthesize()) == [("text", "text"), ("input_width", "width"), ("tag", "tag")]
    assert "input_seed" not in part_schema(schema, synthesize()).names


def test_the_job_travels():
    for job in (synthesize(), checked()):
        assert pickle.loads(pickle.dumps(job)) == job


# The check.


def checked(*questions, **settings):
    check = {"model": {"path": "looker"}, **({"questions": questions} if questions else {}), **settings}
    return synthesize(check=check)


COLOURS = (
    {"ask": "What colour is the {first}?", "expect": "{colour}"},
    {"ask": "Is there a {second}?"},
)
# A row of a part, as the check sees it.
PART = {
    "key": "a",
    "prompt": "<bos>a red fox",
    "caption_in": "a red fox",
    "image": b"picture",
    "seed": 4,
    "first": "fox",
    "colour": "red",
    "second": "dog",
    "ratio": "1:1",
    "check_answers": None,
    "keep": None,
}


def questions(job, row=None):
    requests = job.check.requests({**PART, **(row or {})}, Sampling(seed=4))
    return [request.messages[0]["content"][-1]["text"] for request in requests]


def verdict(job, *answers, row=None):
    return job.check.record({**PART, **(row or {})}, [said(answer) for answer in answers])


def test_without_a_question_of_its_own_a_check_asks_whether_the_picture_shows_the_text():
    [request] = checked().check.requests(PART, Sampling(seed=4))
    image, text = request.messages[0]["content"]
    assert (image, request.images) == ({"type": "image"}, (b"picture",))
    assert text["text"] == "Does this picture show a red fox? Answer yes or no."
    assert (request.key, request.sampling) == ("a", Sampling(seed=4))
    assert synthesize().check is None


def test_each_question_is_asked_with_the_rows_columns():
    assert questions(checked(*COLOURS)) == ["What colour is the fox?", "Is there a dog?"]


@pytest.mark.parametrize("nothing", [None, "", " "])
def test_a_question_about_nothing_is_not_asked(nothing):
    job = checked(*COLOURS)
    assert questions(job, {"second": nothing}) == ["What colour is the fox?"]
    assert questions(job, {"colour": nothing}) == ["Is there a dog?"]
    assert verdict(job, "Red.", row={"second": nothing}) == {"check_answers": ["Red."], "keep": True}


def test_a_picture_that_nothing_is_asked_about_has_no_verdict():
    nothing = {"first": None, "second": None}
    assert questions(checked(*COLOURS), nothing) == []
    assert verdict(checked(*COLOURS), row=nothing) == {"check_answers": None, "keep": None}


def test_a_picture_is_kept_if_every_answer_is_the_expected_one():
    job = checked(*COLOURS)
    assert verdict(job, " RED. ", "Yes") == {"check_answers": ["RED.", "Yes"], "keep": True}
    assert verdict(job, "red", "no")["keep"] is False
    assert verdict(job, "blue", "yes")["keep"] is False
    assert verdict(job, "dark red", "yes")["keep"] is False


FIRST_WORDS = [
    ("Yes, there is.", "yes", True), ("**Yes**", "yes", True), ("<think>no?</think> yes", "yes", True),
    ("Yesterday", "yes", False), ("no", "yes", False), ("", "yes", False), ("No.", "no", True),
    ("Not really", "no", False), ("red", "Red", True), ("red, I think", "red", False),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected", "keep"), FIRST_WORDS)
def test_the_first_word_decides_where_yes_or_no_is_expected(answer, expected, keep):
    assert verdict(checked({"ask": "What?", "expect": expected}), answer)["keep"] is keep


@pytest.mark.parametrize(("bare", "word"), [(True, "yes"), (False, "no")])
def test_a_bare_yes_or_no_of_yaml_is_the_word(bare, word):
    assert checked({"ask": "What?", "expect": bare}).settings.check.questions[0].expect == word


def test_columns_of_questions_that_are_not_the_jobs_own_must_be_there():
    assert list(synthesize().required) == ["text"]
    assert list(checked(*COLOURS).required) == ["text", "first", "colour", "second"]
    assert list(checked({"ask": "Is {text} {width} wide, {ratio}, {caption_in}?"}).required) == ["text"]
    assert list(checked({"ask": "Is it {prompt}, {model}?"}).required) == ["text", "prompt", "model"]


@pytest.mark.parametrize("name", ["image", "check_answers", "keep"])
def test_no_question_is_about_what_the_job_writes_itself(name):
    found = f"found {{{name}}}, which the job writes itself, expected another column of the input"
    for question in ({"ask": f"Is it {{{name}}}?"}, {"ask": "Is it?", "expect": f"{{{name}}}"}):
        with pytest.raises(ValueError, match=found):
            checked(question)


def test_a_column_of_the_input_that_had_to_be_renamed_goes_by_its_own_name():
    row = {"input_prompt": "mine", "input_model": "this", "input_first": "other"}
    job = checked({"ask": "{prompt} {model} {first}"})
    columns = pa.schema([("text", pa.string()), ("prompt", pa.string()), ("model", pa.string())])
    assert kept_columns(columns, job)[1:] == [("input_prompt", "prompt"), ("input_model", "model")]
    assert questions(job, row) == ["mine this fox"]


def test_a_column_without_text_cannot_be_asked_about():
    with pytest.raises(BadRequest, match="found list in column `first`"):
        questions(checked(*COLOURS), {"first": ["fox"]})


# What the report is told.

RESULTS = pa.table(
    {
        "width": [8, 8, 8, 8, None],
        "keep": [True, False, True, None, None],
        "error": pa.array([None, None, None, {"stage": "check"}, {"stage": "template"}]),
    }
)


def test_pictures_are_counted():
    assert summary_of(synthesize(), RESULTS) == {"pictures": 4}


def test_with_a_check_the_share_of_pictures_kept_is_given():
    summary = summary_of(checked(), RESULTS)
    kept = summary["scores"]["kept"]
    assert summary["pictures"] == 4
    assert kept["score"] == pytest.approx(2 / 3)
    assert (kept["n"], kept["unscored"], kept["failed"]) == (3, 2, 2)
    assert checked().verdicts(RESULTS) == [True, False, True, None, None]


def test_the_command_line_says_how_many_pictures_there_are_and_are_kept():
    assert score_lines(summary_of(checked(), RESULTS)) == ["kept: 66.7 % of 3 pictures (95 % interval 20.8–93.9)"]
    assert score_lines(summary_of(checked(), RESULTS.slice(3))) == ["kept: nothing was asked about any picture"]
    result = RunResult("out", 5, 8, 4, 9, 9, 2.0, 5, 0)
    report = Report({**summary_of(synthesize(), RESULTS), "scores": {}}, "page")
    assert run_lines(Outcome(result, report))[0] == "5 rows, 4 pictures, 4 of 8 results failed, 9 tokens in 2 s"
    done = run_lines(Outcome(replace(result, answered=0), report))
    assert done[0] == "finished before, nothing to do: 5 rows, 4 pictures, 4 of 8 results failed"


def test_keys_that_stand_twice_are_told_of_one_input_but_not_of_several_data_sets():
    result = RunResult("out", 5, 5, 0, 9, 9, 2.0, 5, 2)
    alone = {"scores": {}, "settings": {"job": {"kind": "caption"}}}
    several = {"scores": {}, "settings": {"job": {"kind": "vqa", "benchmarks": {"pope": {}, "gqa": {}}}}}
    said = [run_lines(Outcome(result, Report(numbers, "page")))[1:-2] for numbers in (alone, several)]
    assert said == [["2 rows have the same key as an earlier row"], []]


def test_the_page_shows_the_text_what_its_row_changed_and_what_the_check_said():
    row = {
        **synthesize().record({**ROW, "ratio": "3:2", "num_images": 2}, drawn(picture()), 0, SAMPLING),
        "first": "fox",
    }
    assert synthesize().card_lines(row) == [("", "a fox"), ("ratio", "3:2")]
    job = checked({"ask": "Is it a {first}?"}, {"ask": "A {second}?"})
    told = {**row, "check_answers": ["no"], "keep": False, "second": None, "error": None}
    assert job.card_lines(told) == [("", "a fox"), ("ratio", "3:2"), ("Is it a fox?", "no")]
    assert job.card_lines({**told, "check_answers": None}) == [("", "a fox"), ("ratio", "3:2")]
    failed = {**told, "check_answers": None, "error": {"stage": "check", "type": "TooLong", "message": "too long"}}
    assert job.card_lines(failed) == [("", "a fox"), ("ratio", "3:2"), ("not checked", "too long")]


def test_every_column_is_filled_by_the_job_or_its_check():
    recorded = {*synthesize().record(ROW, drawn(picture()), 0, SAMPLING), *verdict(checked(), "yes")}
    assert recorded == set(SCHEMA.names)
