"""Questions are put in the words of the harnesses and of the models' own numbers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs.benchmarks.benchmark import fill
from jobs.benchmarks.datasets import BENCHMARKS
from jobs.benchmarks.presets import PRESET_OF_FAMILY, PRESETS, find_template, presets_for
from jobs.benchmarks.row import BadRow, Row
from jobs.benchmarks.settings import BenchmarkSettings, dataset_of
from jobs.benchmarks.task import benchmark_task
from jobs.scoring.response import Reading
from models.types import ImageSettings, Sampling
from tests.jobs.benchmark_rows import ROWS

# What lmms-eval 75571cf and VLMEvalKit e8e78f0 themselves make of the rows of benchmark_rows.py: text and limit.
HARNESS = json.loads((Path(__file__).parents[1] / "data" / "harness_prompts.json").read_text(encoding="utf-8"))


class Asked(NamedTuple):
    text: str
    max_new_tokens: int
    marker: str | None
    images: ImageSettings | None


def asked(preset, key, **changes):
    _, template = find_template(preset, BENCHMARKS[key])
    text = template.render(BENCHMARKS[key].to_item(Row({**ROWS[key], **changes})))
    return Asked(text, template.max_new_tokens, template.marker, template.images)


@pytest.mark.parametrize(("key", "preset"), [(key, preset) for key, found in HARNESS.items() for preset in found])
def test_a_question_is_put_as_the_harness_puts_it(key, preset):
    said = asked(preset, key)
    assert [said.text, said.max_new_tokens] == HARNESS[key][preset]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("key", BENCHMARKS)
def test_every_preset_has_words_for_every_data_set(preset, key):
    said = asked(preset, key)
    assert said.text.strip()
    assert said.max_new_tokens > 0


@pytest.mark.parametrize(
    ("preset", "key", "used"),
    [
        ("llama", "docvqa_val", "llama"),
        ("llama", "pope", "vlmevalkit"),
        ("llama", "nocaps", "lmms"),
        ("aria", "mmlu", "lmms"),
        ("emu3", "longvideobench_val", "vlmevalkit"),
        ("lmms_solution", "mathvista_test", "lmms_solution"),
        ("lmms_solution", "mmmu_val", "lmms"),
    ],
)
def test_a_preset_without_words_for_a_data_set_names_the_one_that_stands_in(preset, key, used):
    assert find_template(preset, BENCHMARKS[key])[0] == used
    assert asked(preset, key) == asked(used, key)


def test_a_preset_or_data_set_that_is_unknown_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"found preset 'gpt', expected one of lmms, .*emu3"):
        find_template("gpt", BENCHMARKS["pope"])
    with pytest.raises(ValueError, match="pop: found no data set of this name; `dataset` can name one of vqav2_val, "):
        dataset_of("pop", BenchmarkSettings(path="pop"))


def test_a_data_set_that_nobody_has_words_for_is_refused_by_name() -> None:
    made_up = replace(BENCHMARKS["docvqa_val"], key="made_up", prompts={})
    with pytest.raises(ValueError, match="made_up: found no prompt template for aria and vlmevalkit and lmms"):
        find_template("aria", made_up)


def test_a_family_without_a_preset_is_offered_those_of_the_harnesses() -> None:
    assert presets_for("aria")[0] == "aria" and presets_for("another") == presets_for("aria")[1:]


def test_every_family_has_a_preset():
    assert {
        family: find_template(preset, BENCHMARKS["docvqa_val"])[0] for family, preset in PRESET_OF_FAMILY.items()
    } == {
        "aria": "aria",
        "mllama": "llama",
        "emu3": "emu3",
    }


def test_llama_is_told_to_name_its_answer_where_it_shall_reason():
    chart = asked("llama", "chartqa")
    assert (chart.marker, chart.max_new_tokens) == ("FINAL ANSWER:", 512)
    assert "The question is: How many food items are shown in the bar graph? Let's think step by step." in chart.text
    assert asked("llama", "docvqa_val").marker is None


def test_llamas_questions_on_photographs_are_answered_in_25_tokens():
    said = asked("llama", "vqav2_val")
    assert said.max_new_tokens == 25
    assert said.text.endswith("\n Respond with as few words as possible.\n Question: Where is he looking?")


def test_llama_sees_mmmus_images_before_the_text():
    said = asked("llama", "mmmu_val")
    assert "<image" not in said.text
    assert "Options: A. $6\nB. $7\nC. $8\nD. $9 Indicate the correct answer at the end." in said.text
    assert "Options" not in asked("llama", "mmmu_val", question_type="open", options="[]").text


@pytest.mark.parametrize(
    ("key", "images"),
    [
        ("docvqa_val", ImageSettings(split_image=True)),
        ("vqav2_val", ImageSettings(split_image=False)),
        ("longvideobench_val", ImageSettings(split_image=False, max_image_size=490)),
        ("mmlu", None),
    ],
)
def test_aria_cuts_up_pictures_of_text_and_looks_at_small_frames(key, images):
    assert asked("aria", key).images == images


def test_frames_are_looked_at_in_the_size_in_which_they_are_taken():
    entry = BenchmarkSettings(path="videos", frame_size=980)
    task = benchmark_task(BENCHMARKS["longvideobench_val"], entry, "aria", Reading(""), can_guess=False)
    assert task.prompt.images == ImageSettings(split_image=False, max_image_size=980)


def test_emu3_sees_images_before_the_text_and_may_answer_at_length():
    said = asked("emu3", "mmmu_val")
    assert said.text.startswith("Question: \n Baxter Company")
    assert said.max_new_tokens == 1024
    assert said.images == ImageSettings(pad_to_ratio=5)


def test_marks_are_marks_only_where_a_row_may_have_several_images():
    assert BENCHMARKS["mmmu_val"].has_image_marks
    assert BENCHMARKS["longvideobench_val"].has_image_marks
    assert not BENCHMARKS["mmstar"].has_image_marks
    item = BENCHMARKS["mmstar"].to_item(Row({**ROWS["mmstar"], "question": "What is <image 2>?"}))
    entry = BenchmarkSettings(path="mmstar", prompt="{question}")
    task = benchmark_task(BENCHMARKS["mmstar"], entry, "lmms", Reading("mmstar/official"), can_guess=False)
    [image, words] = task.request({"images": (b"1",)}, item, Sampling()).messages[0]["content"]
    assert (image["type"], words["text"]) == ("image", "What is <image 2>?")


@pytest.mark.parametrize(
    ("answer_type", "precision", "told"),
    [
        ("integer", None, "Answer the question using a single integer number."),
        ("float", 1.0, "Answer the question using a single floating-point number with one decimal place."),
        ("float", 2.0, "Answer the question using a single floating-point number with two decimal places."),
        ("list", None, "Answer the question using a Python list."),
    ],
)
def test_mathvista_tells_the_form_of_the_answer(answer_type, precision, told):
    said = asked("lmms", "mathvista_testmini", answer_type=answer_type, precision=precision)
    assert said.text.endswith(f" (Unit: years)\n{told}")


def test_a_template_of_ones_own_is_filled_with_the_question_its_options_and_its_facts():
    item = BENCHMARKS["mmbench_dev_en_v11"].to_item(Row(ROWS["mmbench_dev_en_v11"]))
    filled = fill("{context} {question}\n{options}\n({split})", item)
    assert filled == (
        "A street. Which is the main topic of the image?\nA. Drinking coffee\nB. Driving buses\nC. A man surfing\n(dev)"
    )
    words = BENCHMARKS["textvqa_val"].to_item(Row(ROWS["textvqa_val"]))
    assert fill("{ocr_tokens}", words) == "DIGITAL, dakota"


def test_a_template_that_names_what_a_question_does_not_have_is_refused():
    item = BENCHMARKS["chartqa"].to_item(Row(ROWS["chartqa"]))
    with pytest.raises(BadRow, match=r"found \{ocr\} in the template, expected one of question, context, options"):
        fill("{ocr} {question}", item)


def test_braces_in_a_question_are_not_filled_in():
    item = BENCHMARKS["chartqa"].to_item(Row({**ROWS["chartqa"], "question": "What is {context}?"}))
    assert fill("{question}", item) == "What is {context}?"
