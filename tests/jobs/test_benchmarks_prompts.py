"""Questions are put in the words of the harnesses and of the models' own numbers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.benchmarks.ask import worded
from jobs.benchmarks.benchmark import BadRow
from jobs.benchmarks.prompts import PRESET_OF_FAMILY, PRESETS, fill, preset_of, presets_for, wording
from jobs.benchmarks.settings import BenchmarkSettings
from jobs.benchmarks.table import BENCHMARKS
from models.types import ImageSettings
from tests.jobs.benchmark_rows import ROWS

# What lmms-eval 75571cf and VLMEvalKit e8e78f0 themselves make of the rows of benchmark_rows.py: text and limit.
HARNESS = json.loads((Path(__file__).parents[1] / "data" / "harness_prompts.json").read_text(encoding="utf-8"))


def asked(preset, key, **changes):
    return wording(preset, key, BENCHMARKS[key].item({**ROWS[key], **changes}))


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
    assert preset_of(preset, key) == used
    assert asked(preset, key) == asked(used, key)


def test_a_preset_or_data_set_that_is_unknown_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"found preset 'gpt', expected one of lmms, .*emu3"):
        preset_of("gpt", "pope")
    with pytest.raises(ValueError, match="found benchmark 'pop', expected one of vqav2_val, "):
        preset_of("lmms", "pop")


def test_a_data_set_that_nobody_has_words_for_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "made_up", replace(BENCHMARKS["docvqa_val"], key="made_up", asked_as="nothing"))
    with pytest.raises(ValueError, match="made_up: found no wording for 'nothing' in aria and vlmevalkit and lmms"):
        preset_of("aria", "made_up")


def test_a_family_without_a_preset_is_offered_those_of_the_harnesses() -> None:
    assert presets_for("aria")[0] == "aria" and presets_for("another") == presets_for("aria")[1:]


def test_every_family_has_a_preset():
    assert {family: preset_of(preset, "docvqa_val") for family, preset in PRESET_OF_FAMILY.items()} == {
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
    benchmark = BENCHMARKS["longvideobench_val"]
    entry = BenchmarkSettings(path="videos", frame_size=980)
    said = worded(benchmark.item(ROWS["longvideobench_val"]), benchmark, entry, "aria")
    assert said.images == ImageSettings(split_image=False, max_image_size=980)


def test_emu3_sees_images_before_the_text_and_may_answer_at_length():
    said = asked("emu3", "mmmu_val")
    assert said.text.startswith("Question: \n Baxter Company")
    assert said.max_new_tokens == 1024
    assert said.images == ImageSettings(pad_to_ratio=5)


def test_marks_are_marks_only_where_a_row_may_have_several_images():
    assert asked("lmms", "mmmu_val").has_marks
    assert asked("lmms", "longvideobench_val").has_marks
    assert not asked("lmms", "mmstar").has_marks
    benchmark = BENCHMARKS["mmstar"]
    entry = BenchmarkSettings(path="mmstar", prompt="{question}")
    assert not worded(benchmark.item(ROWS["mmstar"]), benchmark, entry, "lmms").has_marks


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
    item = BENCHMARKS["mmbench_dev_en_v11"].item(ROWS["mmbench_dev_en_v11"])
    filled = fill("{context} {question}\n{options}\n({split})", item)
    assert filled == (
        "A street. Which is the main topic of the image?\nA. Drinking coffee\nB. Driving buses\nC. A man surfing\n(dev)"
    )
    words = BENCHMARKS["textvqa_val"].item(ROWS["textvqa_val"])
    assert fill("{ocr_tokens}", words) == "DIGITAL, dakota"


def test_a_template_that_names_what_a_question_does_not_have_is_refused():
    item = BENCHMARKS["chartqa"].item(ROWS["chartqa"])
    with pytest.raises(BadRow, match=r"found \{ocr\} in the template, expected one of question, context, options"):
        fill("{ocr} {question}", item)


def test_braces_in_a_question_are_not_filled_in():
    item = BENCHMARKS["chartqa"].item({**ROWS["chartqa"], "question": "What is {context}?"})
    assert fill("{question}", item) == "What is {context}?"
