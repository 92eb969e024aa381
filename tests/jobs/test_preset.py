"""A run's questions are worded by the model's family, and never as another family's, whose image settings it lacks."""

from dataclasses import replace

import pytest

from jobs.benchmarks.datasets import BENCHMARKS
from jobs.config import RunSettings
from jobs.preset import resolve_presets
from models import ImageSettings
from pipeline.settings import check_settings
from tests.tiny import tiny_aria, tiny_emu3, tiny_mllama

WRITERS = {"aria": tiny_aria, "mllama": tiny_mllama, "emu3": tiny_emu3}
HARNESSES = "lmms, lmms_solution, lmms_reason_first, vlmevalkit"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, write in WRITERS.items():
        write(root / name)
    return root


def run(model, preset, text_only=False, **benchmarks):
    values = {
        "read": {"uri": "in"},
        "model": {"path": str(model), "text_only": text_only},
        "write": {"uri": "out"},
        "job": {"kind": "vqa", "preset": preset, "benchmarks": benchmarks},
    }
    return check_settings(RunSettings, values)


def faults(*args, **benchmarks):
    return resolve_presets(run(*args, **benchmarks))[1]


def used(settings):
    entries = {name: entry.preset for name, entry in settings.job.benchmarks.items()}
    return settings.job.preset, entries


@pytest.mark.parametrize(("family", "preset"), [("aria", "aria"), ("mllama", "llama"), ("emu3", "emu3")])
def test_a_preset_that_is_left_to_the_model_is_its_familys(models, family, preset):
    settings = run(models / family, "auto", chartqa={"path": "a"}, pope={"path": "b", "preset": "auto"})
    assert used(resolve_presets(settings)[0]) == (preset, {"chartqa": None, "pope": preset})


@pytest.mark.parametrize(
    ("preset", "family", "told"),
    [
        ("aria", "mllama", f"mllama does not have (split_image), expected a preset for mllama: llama, {HARNESSES}"),
        ("aria", "emu3", f"emu3 does not have (split_image), expected a preset for emu3: emu3, {HARNESSES}"),
        ("emu3", "aria", f"aria does not have (pad_to_ratio), expected a preset for aria: aria, {HARNESSES}"),
    ],
)
def test_a_preset_with_another_familys_image_settings_is_refused_before_a_run(models, preset, family, told):
    benchmarks = {"chartqa": {"path": "a"}, "pope": {"path": "b"}}
    wants = "whose wording wants image settings that"
    assert faults(models / family, preset, **benchmarks) == [f"job.preset: found {preset}, {wants} {told}"]


def test_each_entry_that_names_such_a_preset_is_told_and_all_at_once(models):
    found = faults(
        models / "mllama", "aria",
        longvideobench_val={"path": "a"}, chartqa={"path": "b"}, pope={"path": "c", "preset": "emu3"},
        mine={"path": "d", "dataset": "vqav2_val", "preset": "aria"}, docvqa_val={"path": "e", "preset": "llama"},
    )  # fmt: skip
    lacks = "whose wording wants image settings that mllama does not have"
    assert [fault.partition(", expected")[0] for fault in found] == [
        f"job.preset: found aria, {lacks} (split_image, max_image_size)",
        f"job.benchmarks.pope.preset: found emu3, {lacks} (pad_to_ratio)",
        f"job.benchmarks.mine.preset: found aria, {lacks} (split_image)",
    ]


def test_a_harness_that_prepares_images_is_refused_where_the_family_lacks_the_settings(models, monkeypatch):
    pope = BENCHMARKS["pope"]
    words = pope.prompts["vlmevalkit"]._replace(images=ImageSettings(min_pixels=64, max_pixels=256))
    monkeypatch.setitem(BENCHMARKS, "pope", replace(pope, prompts=pope.prompts | {"vlmevalkit": words}))
    [fault] = faults(models / "aria", "vlmevalkit", pope={"path": "a"})
    assert "image settings that aria does not have (min_pixels, max_pixels), expected a preset for aria: " in fault
    fitting = run(models / "emu3", "vlmevalkit", pope={"path": "a"})
    assert resolve_presets(fitting) == (fitting, [])


def test_a_prompt_of_ones_own_keeps_the_presets_image_settings_and_is_told_too(models):
    [fault] = faults(models / "mllama", "aria", pope={"path": "a", "prompt": "{question}"})
    assert fault.startswith("job.preset: found aria")


@pytest.mark.parametrize(
    ("preset", "family", "entry"),
    [
        ("llama", "aria", {"chartqa": {"path": "a"}}),  # wants nothing of images
        ("vlmevalkit", "emu3", {"chartqa": {"path": "a"}}),
        ("aria", "mllama", {"mmlu": {"path": "a"}}),  # lmms's words stand in, and there are no images
        ("aria", "mllama", {"pope": {"path": "a", "preset": "lmms"}}),
        ("emu3", "aria", {"longvideobench_val": {"path": "a"}}),  # VLMEvalKit's stand in
        ("emu3", "emu3", {"chartqa": {"path": "a"}}),
        ("aria", "nothing", {"chartqa": {"path": "a"}}),  # the run will say so itself
    ],
)
def test_any_other_preset_may_be_asked_of_any_model(models, preset, family, entry):
    settings = run(models / family, preset, **entry)
    assert resolve_presets(settings) == (settings, [])


def test_a_model_that_is_shown_no_images_may_be_asked_in_any_words(models):
    settings = run(models / "mllama", "aria", True, chartqa={"path": "a"})
    assert resolve_presets(settings) == (settings, [])
