"""Settings of whole runs, and the files in configs/."""

from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.arguments import command_parser
from jobs.caption import CaptionJob
from jobs.config import RunSettings
from jobs.console_text import first_steps
from jobs.start import load_run, run_and_report
from jobs.starters import find_config
from jobs.synthesize import SynthesizeJob
from jobs.vqa import VqaJob
from pipeline.execution.cluster.placement import place_actors
from pipeline.execution.cluster.start import foreseen_nodes
from pipeline.preflight.check import check
from pipeline.settings import ConfigError, check_settings, load_settings
from pipeline.storage.store import Store

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


PHOTOGRAPHS = ROOT / "jobs" / "demo" / "data" / "photographs"
TOYS = ROOT / "jobs" / "demo" / "checkpoints"


def faults_of(tmp_path, config, *overrides):
    """Give what a start says is wrong, on a machine without GPUs."""
    with pytest.raises(ConfigError) as caught:
        run_and_report(load_run(str(config), [f"write.uri={tmp_path / 'out'}", *overrides]))
    assert list(tmp_path.rglob("out")) == [], "nothing has started"
    return caught.value.faults


@pytest.fixture
def no_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def begins(faults, *heads):
    assert len(faults) == len(heads) and all(map(str.startswith, faults, heads)), faults


def test_faults_of_settings_output_model_input_and_machine_are_listed_in_one_go(tmp_path, no_gpus):
    (tmp_path / "file").write_text("")
    faults = faults_of(
        tmp_path,
        ROOT / "configs" / "caption_aria.yaml",
        "generate.slots=0",
        "raed.x=1",
        f"write.uri={tmp_path / 'file' / 'below'}",
        "model.path=./no-such-model",
        "read.uri=nowhere",
        "generate.gpus=2",
    )
    begins(
        faults,
        "generate.slots: found 0, expected",
        "raed: unknown setting",
        "write.uri: nothing can be written there (",
        "model.path: no model at",
        "read: found no files at",
        "generate: found 1 engine with 2 GPUs each, but Ray has 0 GPUs; set generate.gpus=null",
    )


def test_what_hangs_on_a_wrong_setting_is_not_judged(tmp_path, no_gpus):
    config = ROOT / "configs" / "vqa_aria.yaml"
    given = [f"model.path={TOYS / 'aria'}", f"read.uri={PHOTOGRAPHS}"]
    begins(faults_of(tmp_path, config, *given), "read.columns: job vqa needs a column")
    begins(faults_of(tmp_path, config, *given, "job.kind=captoin"), "job.kind: found 'captoin'")
    begins(faults_of(tmp_path, config, *given, "read.columns=3"), "read.columns: found 3")
    begins(faults_of(tmp_path, config, *given, "generate.gpus=-1", "read.limit=0"), "read.limit", "generate.gpus")
    begins(faults_of(tmp_path, config, *given, "job=3", "model.path=./none"), "job", "model.path: no model at")
    begins(
        faults_of(tmp_path, config, "read.uri=none", "job.prompt={a.b}", "job.rule=x"), "job.", "job.", "read: found"
    )


def test_a_model_whose_image_settings_are_wrong_is_looked_at_further(tmp_path, no_gpus):
    faults = faults_of(
        tmp_path,
        ROOT / "configs" / "caption_aria.yaml",
        f"model.path={TOYS / 'aria'}",
        f"read.uri={PHOTOGRAPHS}",
        "preprocess.max_image_size=980",
        "generate.max_length=9999",
        "generate.gpus=1",
    )
    begins(
        faults,
        "preprocess.max_image_size: found 980, which makes 4900 patches; expected 112 or 56, the sizes of",
        "generate.max_length: found 9999, expected at most 4096",
        "generate: found 1 engine with 1 GPU each",
    )


def test_a_wording_of_another_family_hides_no_other_fault(tmp_path, no_gpus):
    faults = faults_of(
        tmp_path,
        ROOT / "configs" / "vqa_docvqa.yaml",
        f"model.path={TOYS / 'mllama'}",
        f"read.uri={tmp_path}",
        "job.preset=emu3",
        "generate.max_length=9999",
    )
    begins(
        faults,
        "job.preset: found emu3",
        "generate.max_length: found 9999",
        *[f"read of {name}: found no files" for name in ("docvqa_val", "docvqa_test", "infovqa_val", "infovqa_test")],
    )


def test_a_remote_model_is_not_fetched_for_a_start_that_is_wrong_anyhow(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.preflight.models.local_copy", lambda *args, **more: pytest.fail("fetched"))
    config = ROOT / "configs" / "caption_aria.yaml"
    for path in ("rhymes-ai/Aria", "s3://bucket/aria"):
        faults = faults_of(tmp_path, config, f"model.path={path}", "read.uri=nowhere", "generate.slots=0")
        begins(faults, "generate.slots", "read: found no files")


@pytest.mark.parametrize(
    ("config", "toy"), [("caption_aria", "aria"), ("caption_mllama", "mllama"), ("caption_aria", "mllama")]
)
def test_pictures_of_ones_own_pass_the_checks_without_more_overrides(config, toy, tmp_path, no_gpus):
    overrides = [f"model.path={TOYS / toy}", f"read.uri={PHOTOGRAPHS}", f"write.uri={tmp_path / 'out'}"]
    settings = load_settings(RunSettings, ROOT / "configs" / f"{config}.yaml", overrides)
    job = settings.job.build()
    ready = check(settings, job, Store(settings.write.uri))
    placement = place_actors(foreseen_nodes(settings.ray), ready.answering.engine)
    assert (placement.generate.least, placement.generate.gpus) == (1, 0)


@pytest.mark.parametrize("place", ["checkout", "elsewhere"])
def test_what_the_demo_says_to_type_can_be_typed(place, tmp_path, monkeypatch, no_gpus):
    monkeypatch.chdir(ROOT if place == "checkout" else tmp_path)
    by_toy, by_aria = [line.split() for line in first_steps()[1:]]
    for words in (by_toy, by_aria):
        typed = [word.replace("FOLDER", str(PHOTOGRAPHS)) for word in words[1:]]
        asked = command_parser().parse_args(typed)
        settings = load_settings(RunSettings, find_config(asked.config), asked.overrides)
        assert settings.job.kind == "caption"
        if words is by_toy:
            assert (words[2:4] == ["caption", "model.path=jobs/demo/checkpoints/aria"]) == (place == "checkout")
            check(settings, settings.job.build(), Store(str(tmp_path / "out")))


def test_the_program_is_named_as_the_shell_finds_it(tmp_path, monkeypatch, capsys):
    programs = tmp_path / "venv" / "triptych"
    programs.parent.mkdir()
    programs.write_text("#!/bin/sh\n")
    programs.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(programs)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert first_steps()[1].startswith(f"  {programs} run caption ")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "caption"]) == 0
    assert f"next: {programs} run caption.yaml " in capsys.readouterr().out
    monkeypatch.setenv("PATH", str(programs.parent))
    assert first_steps()[1].startswith("  triptych run caption ")


def test_configs_of_ones_own_rows_ask_for_the_columns_that_the_readme_names():
    for name in ("aria", "mllama", "emu3"):
        settings = load_settings(RunSettings, ROOT / "configs" / f"vqa_{name}.yaml")
        job = settings.job.build()
        assert {"question"} == set(job.required) and "answers" in job.optional
        assert (settings.read.columns, settings.job.benchmark) == ({}, "vqa")
