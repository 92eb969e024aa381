"""What the command line says of settings, and the files that it gives to start from."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from pydantic import BaseModel

from jobs.__main__ import main
from jobs.arguments import LISTED, command_parser
from jobs.benchmarks.datasets import BENCHMARKS
from jobs.benchmarks.presets import PRESETS
from jobs.completion import completion_script
from jobs.config import RunSettings
from jobs.scoring.rules import NAMES
from jobs.settings_help import all_settings, json_schema, settings_page
from jobs.starters import OF_JOBS, find_config, starters
from pipeline import FORMATS, check_settings
from pipeline.settings import ConfigError, load_settings

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def said(capsys, *words):
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_every_setting_says_what_it_is_and_stands_once():
    settings = all_settings()
    assert len(settings) > 110
    assert [one.path for one in settings if not one.text or not one.about] == []
    assert len({(one.path, one.kind) for one in settings}) == len(settings)


def fields(model, path=""):
    """Give the dotted names of a settings object, as the classes have them."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        yield from fields(value, f"{path}{name}.") if isinstance(value, BaseModel) else [f"{path}{name}"]


@pytest.mark.parametrize("kind", OF_JOBS)
def test_the_list_has_every_setting_of_a_run_with_its_default(kind):
    least = {"read": {"uri": "in"}, "model": {"path": "m"}, "write": {"uri": "out"}, "job": {"kind": kind}}
    run = check_settings(RunSettings, least)
    listed = {one.path: one for one in all_settings() if one.kind in ("", kind)}
    assert set(fields(run)) <= set(listed)
    values = run.model_dump(mode="json")
    for path in fields(run):
        value = values
        for name in path.split("."):
            value = value[name]
        if listed[path].default != "needed":
            assert yaml.safe_load(listed[path].default) == value, path


def test_the_page_of_settings_is_up_to_date():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "write it again: triptych settings --markdown > docs/settings.md"


def test_no_other_page_has_a_table_of_settings():
    names = {one.path for one in all_settings()} | {one.path.rpartition(".")[2] for one in all_settings()}
    pages = [path for path in (ROOT / "docs").glob("*.md") if path.name != "settings.md"]
    tables = {
        page.name: re.findall(r"^\| `([\w.]+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
        for page in [ROOT / "README.md", *pages]
    }
    found = {(page, cell) for page, cells in tables.items() for cell in cells if cell in names - set(FORMATS)}
    # Columns of a run's rows, which are called as what they came from.
    assert found <= {("evaluation.md", name) for name in ("preset", "question")}


@pytest.mark.parametrize(
    ("word", "words", "absent"),
    [
        (
            "generate.slots",
            ["generate.slots   auto or whole number from 1; unless set auto", "until its memory is full"],
            "gpus",
        ),
        ("job.check.generate.slots", ["job.check.generate.slots   auto or whole number from 1; unless set 8"], "gpus"),
        ("memory", ["generate.slots", "ray.object_store_bytes", "model.dtype"], "job.ratio"),
        ("job.prompt", ["job (caption)", "job (vqa)", '"Describe this image."', '"{question}"'], "template"),
        ("synthesize", ["job.ratio", "the same settings as generate; job.check.generate.slots is 8"], "job.rule"),
        ("model.path", ["model.path   text; needed"], "dtype"),
    ],
)
def test_a_word_finds_settings_by_name_job_or_text(word, words, absent, capsys):
    text = said(capsys, "settings", word)
    assert all(part in text for part in words), text
    assert absent not in text


def test_a_word_that_no_setting_has_is_a_wrong_one(capsys):
    assert main(["settings", "generate.slotz"]) == 2
    assert "did you mean `generate.slots`?" in capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_json_schema_takes_what_the_settings_take(path, capsys):
    schema = json.loads(said(capsys, "settings", "--json-schema"))
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8").replace("2024-07-26", "'2024-07-26'")), schema)


@pytest.mark.parametrize(
    "wrong", [{"generate": {"slots": 0}}, {"generate": {"slot": 1}}, {"job": {"kind": "captoin"}}, {"model": {}}]
)
def test_the_json_schema_refuses_what_the_settings_refuse(wrong):
    least = {"read": {"uri": "in"}, "model": {"path": "m"}, "write": {"uri": "out"}, "job": {"kind": "caption"}}
    jsonschema.validate(least, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**least, **wrong}, json_schema())


@pytest.mark.parametrize("name", [*OF_JOBS, *starters()])
def test_a_starter_is_written_once_fits_and_says_its_own_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert f"triptych run {name}.yaml" in said(capsys, "init", name)
    settings = load_settings(RunSettings, f"{name}.yaml")
    assert settings.job.kind == name.partition("_")[0] or name == "smoke"
    text = Path(f"{name}.yaml").read_text(encoding="utf-8")
    assert "configs/" not in text and (name == "smoke" or f"triptych run {name}.yaml" in text)
    assert main(["init", name]) == 2
    assert f"{name}.yaml is there already; --to FILE names another" in capsys.readouterr().err
    assert Path(f"{name}.yaml").read_text(encoding="utf-8") == text
    assert "wrote mine.yaml" in said(capsys, "init", name, "--to", "mine.yaml")


def test_a_config_is_a_file_or_one_of_ours_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("caption") == find_config("caption_aria") == str(ROOT / "configs" / "caption_aria.yaml")
    assert find_config("caption.yaml") == "caption.yaml"
    with pytest.raises(ConfigError, match=r"found no file captoin, and none .* did you mean `caption`"):
        find_config("captoin")
    Path("caption").write_text("")
    assert find_config("caption") == "caption"


def test_every_starter_is_in_the_wheel():
    builder = WheelBuilder(str(ROOT))
    files = {file.distribution_path for file in builder.recurse_included_files()}
    assert {f"jobs/configs/{path.name}" for path in CONFIGS} <= files


@pytest.mark.parametrize(
    ("what", "names"),
    [("benchmarks", BENCHMARKS), ("rules", NAMES), ("presets", PRESETS), ("formats", FORMATS), ("configs", starters())],
)
def test_names_are_listed_with_a_line_each(what, names, capsys):
    lines = said(capsys, "list", what).splitlines()
    assert [line.split()[0] for line in lines] == list(names)
    assert all(re.search(r"\S  +\S", line) for line in lines)
    assert what in LISTED


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("triptych se", "settings"),
        ("triptych list ru", "rules"),
        ("triptych init caption_v", "caption_video_aria"),
        ("triptych run a.yaml generate.sl", "generate.slots="),
        ("triptych run generate.sl", ""),
        ("triptych retry out limits.at", "limits.attempts="),
        ("triptych settings generate.sl", "generate.slots"),
        ("triptych run a.yaml read.uri = gen", ""),
        ("triptych score --allow", "--allow-missing"),
    ],
)
def test_a_shell_completes_commands_options_and_settings(typed, expected):
    script = completion_script(command_parser())
    ask = f'COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _triptych; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected, done.stderr
