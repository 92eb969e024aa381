"""Settings of whole runs, and the files in configs/."""

from pathlib import Path

import pytest

from jobs.caption import CaptionJob
from jobs.config import RunSettings
from jobs.synthesize import SynthesizeJob
from jobs.vqa import VqaJob
from pipeline.settings import ConfigError, check_settings, load_settings

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LEAST = {"read": {"uri": "in"}, "model": {"path": "model"}, "write": {"uri": "out"}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_fits(path):
    settings = load_settings(RunSettings, path)
    assert settings.job.build().kind == settings.job.kind


def test_there_are_configs():
    named = {f"{job}_{family}.yaml" for job in ("caption", "vqa") for family in ("aria", "mllama")}
    assert {path.name for path in CONFIGS} >= {*named, "vqa_emu3.yaml", "synthesize_emu3.yaml", "smoke.yaml"}


def test_the_kind_chooses_the_job():
    caption = check_settings(RunSettings, {**LEAST, "job": {"kind": "caption"}})
    vqa = check_settings(RunSettings, {**LEAST, "job": {"kind": "vqa"}})
    assert isinstance(caption.job.build(), CaptionJob)
    synthesize = check_settings(RunSettings, {**LEAST, "job": {"kind": "synthesize"}})
    assert isinstance(vqa.job.build(), VqaJob)
    assert isinstance(synthesize.job.build(), SynthesizeJob)


def test_a_setting_of_another_job_is_unknown():
    with pytest.raises(ConfigError, match=r"job\.rule: unknown setting"):
        check_settings(RunSettings, {**LEAST, "job": {"kind": "caption", "rule": "exact/nocase_nopunct"}})


def test_all_faults_of_job_and_pipeline_are_listed_at_once():
    values = {**LEAST, "job": {"kind": "vqa", "rul": 1}, "generate": {"slots": 0}, "wirte": {}}
    with pytest.raises(ConfigError) as caught:
        check_settings(RunSettings, values)
    text = str(caught.value)
    assert "3 faults" in text
    for words in ("job.rul", "did you mean `rule`", "generate.slots: found 0", "wirte", "did you mean `write`"):
        assert words in text


def test_an_unknown_job_names_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"job\.kind: found 'captoin'.*'caption', 'vqa', 'synthesize'.*did you mean `caption`"
    ):
        check_settings(RunSettings, {**LEAST, "job": {"kind": "captoin"}})


def test_a_prompt_with_more_than_column_names_is_a_wrong_setting():
    with pytest.raises(ConfigError, match=r"job\.prompt.*plain column name"):
        check_settings(RunSettings, {**LEAST, "job": {"kind": "caption", "prompt": "{key.upper}"}})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rule": "likelihood/sum"}, r"job\.rule: found likelihood/sum, which needs more than rows of your own say"),
        ({"rule": "mmmu/official"}, r"job\.rule: found mmmu/official, which needs more"),
        (
            {"benchmarks": {"docvqa_val": {"path": "a", "rule": "mathvista/official"}}},
            r"job\.benchmarks\.docvqa_val\.rule: found mathvista/official, which cannot score .* such as anls/rrc",
        ),
        ({"benchmarks": {"nocaps": {"path": "a", "rule": "exact/official"}}}, r"nocaps, expected .* captions/coco"),
        ({"reasoning": ["", "</think>"]}, r"job\.reasoning\.0"),
        ({"benchmarks": {"pop": {"path": "a"}}}, r"\n  job\.benchmarks\.pop: found no .* did you mean `pope`\?"),
        ({"benchmarks": {"pope": {"path": "a", "rule": "pope/oficial"}}}, r"did you mean `pope/official`\?"),
    ],
)
def test_what_would_cost_every_row_its_score_is_a_wrong_setting(settings, words):
    with pytest.raises(ConfigError, match=words):
        check_settings(RunSettings, {**LEAST, "job": {"kind": "vqa", **settings}})


@pytest.mark.parametrize(
    ("read", "entry", "words"),
    [
        ({"format": "tsv"}, {}, r"read\.format: found 'tsv', expected none beside job\.benchmarks"),
        ({"num_frames": 8}, {}, r"read\.num_frames: found 8, expected none"),
        ({"join": {"key": "k"}}, {}, r"read\.join: .*set job\.benchmarks\.<name>\.images"),
        ({}, {"num_frames": 8}, r"docvqa_val\.num_frames: found 8, but rows of docvqa_val name no videos"),
        ({}, {"videos": "v"}, r"docvqa_val\.videos: found 'v', but rows of docvqa_val name no videos"),
        ({}, {"meteor": True}, r"docvqa_val\.meteor: found true, but answers to docvqa_val are no captions"),
    ],
)
def test_a_setting_that_would_do_nothing_is_a_wrong_setting(read, entry, words):
    job = {"kind": "vqa", "benchmarks": {"docvqa_val": {"path": "docvqa", **entry}}}
    with pytest.raises(ConfigError, match=words):
        check_settings(RunSettings, {**LEAST, "read": {**LEAST["read"], **read}, "job": job})


def test_rules_that_look_at_no_more_than_answers_and_options_can_score_any_benchmark():
    benchmarks = {
        name: {"path": name, "rule": rule}
        for name, rule in (("mmmu_val", "mmmu/lmms"), ("mmstar", "ai2d/letter"), ("pope", "exact/official"))
    }
    check_settings(RunSettings, {**LEAST, "job": {"kind": "vqa", "benchmarks": benchmarks}})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ratio": "wide"}, r"job: found ratio 'wide', expected width to height"),
        ({"ratio": "100:1", "area": 64}, r"job: a picture of 0 x 10 codes"),
        ({"area": 0}, r"job\.area: found 0"),
        ({"num_images": 0}, r"job\.num_images: found 0"),
        ({"guidance_scale": float("nan")}, r"job\.guidance_scale: found nan"),
        ({"guidance_scale": 1000.5}, r"job\.guidance_scale: found 1000.5"),
        ({"guidance_scale": -1e300}, r"job\.guidance_scale: found -1e\+300"),
        ({"num_images": 65}, r"job\.num_images: found 65"),
        (
            {"image_format": "webp", "ratio": "2048:1", "area": 2048 * 64},
            r"job: found a picture of 16384 x 8 pixels, expected at most 16383 on a side in webp",
        ),
        ({"image_format": "gif"}, r"job\.image_format: found 'gif', expected 'png', 'jpeg' or 'webp'"),
        ({"image_quality": 101}, r"job\.image_quality: found 101"),
        ({"check": {}}, r"job\.check\.model: missing"),
        ({"check": {"model": {"path": "m"}, "questions": []}}, r"job\.check\.questions: found \[\]"),
        (
            {"check": {"model": {"path": "m"}, "questions": [{"ask": "{a.b}?"}]}},
            r"job\.check\.questions\.0\.ask.*plain column name",
        ),
    ],
)
def test_a_picture_that_cannot_be_is_a_wrong_setting(settings, words):
    with pytest.raises(ConfigError, match=words):
        check_settings(RunSettings, {**LEAST, "job": {"kind": "synthesize", **settings}})


def test_what_is_drawn_with_the_released_weights_fits_the_gpu_that_its_config_names():
    generate = load_settings(RunSettings, ROOT / "configs" / "synthesize_emu3.yaml").generate
    # Keys and values: 32 layers of 8 heads of 128 numbers of 2 bytes, each twice.
    cache_gib = generate.slots * generate.max_length * 2 * 32 * 8 * 128 * 2 / 2**30
    others_gib = 17e9 / 2**30 + 1 + 11 + 1
    assert 0.9 * 139 < cache_gib + others_gib < 0.95 * 139
    assert generate.slots % 2 == 0
    assert 90 * 91 + 3 + 500 < generate.max_length <= 9216  # 720 x 720 and a long text


def test_a_ratio_needs_no_quotes_and_a_commented_check_is_one(tmp_path):
    text = (ROOT / "configs" / "synthesize_emu3.yaml").read_text()
    start = text.index("  # check:")
    path = tmp_path / "checked.yaml"
    path.write_text(text[:start] + text[start:].replace("  # ", "  "))
    settings = load_settings(RunSettings, path, ["job.ratio=16:9", "job.check.questions=[{ask: 'Red?', expect: no}]"])
    assert settings.job.ratio == "16:9"
    assert [(one.ask, one.expect) for one in settings.job.check.questions] == [("Red?", "no")]
    assert len(load_settings(RunSettings, path).job.check.questions) == 2
