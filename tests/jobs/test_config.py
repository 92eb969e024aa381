"""Settings of whole runs, and the files in configs/."""

from pathlib import Path

import pytest

from jobs.caption import CaptionJob
from jobs.config import RunSettings
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
    assert {path.name for path in CONFIGS} >= {*named, "smoke.yaml"}


def test_the_kind_chooses_the_job():
    caption = check_settings(RunSettings, {**LEAST, "job": {"kind": "caption"}})
    vqa = check_settings(RunSettings, {**LEAST, "job": {"kind": "vqa"}})
    assert isinstance(caption.job.build(), CaptionJob)
    assert isinstance(vqa.job.build(), VqaJob)


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
    with pytest.raises(ConfigError, match=r"job\.kind: found 'captoin'.*'caption', 'vqa'.*did you mean `caption`"):
        check_settings(RunSettings, {**LEAST, "job": {"kind": "captoin"}})


def test_a_prompt_with_more_than_column_names_is_a_wrong_setting():
    with pytest.raises(ConfigError, match=r"job\.prompt.*plain column name"):
        check_settings(RunSettings, {**LEAST, "job": {"kind": "caption", "prompt": "{key.upper}"}})
