import traceback
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator

from models import ImageSettings
from pipeline.pipeline_settings import PipelineSettings
from pipeline.settings import ConfigError, Settings, check_settings, differences, dump_settings, load_settings, stand_in

GOOD: dict[str, Any] = {"read": {"uri": "shards"}, "model": {"path": "weights"}, "write": {"uri": "out"}}


class Circle(Settings):
    kind: Literal["circle"]
    radius: int


class Square(Settings):
    kind: Literal["square"]
    side: int


class Drawing(Settings):
    shape: Annotated[Circle | Square, Field(discriminator="kind")]


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def faults(values: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_settings(PipelineSettings, values)
    return caught.value.faults


def test_every_fault_is_listed_with_its_path_what_was_found_and_what_would_fit() -> None:
    found = faults(
        {
            "read": {"uri": "shards"},
            "model": {"path": "weights", "dtype": "bfloat"},
            "generate": {"slot": 8, "actors": 0, "sampling": {"top_p": 1.5, "max_new_tokens": "many"}},
            "colour": "blue",
        }
    )
    assert found[0] == (
        "model.dtype: found 'bfloat', expected 'auto', 'float32', 'bfloat16' or 'float16'; did you mean `bfloat16`?"
    )
    assert "generate.actors: found 0, expected a whole number of at least 1, or two of them: [min, max]" in found
    assert "generate.slot: unknown setting (found 8); did you mean `slots`?" in "\n".join(found)
    assert "generate.sampling.top_p: found 1.5, expected less than or equal to 1" in found
    assert any(
        fault.startswith("generate.sampling.max_new_tokens: found 'many', expected a valid int") for fault in found
    )
    assert "write: missing, expected write.uri" in found
    assert any(fault.startswith("colour: unknown setting (found 'blue'); known here: read, model") for fault in found)
    assert len(found) == 7


def test_a_fault_inside_one_of_several_kinds_is_named_by_the_path_that_stands_in_the_file() -> None:
    with pytest.raises(ConfigError, match=r"shape.radius: missing"):
        check_settings(Drawing, {"shape": {"kind": "circle"}})
    with pytest.raises(ConfigError, match=r"shape.sides: unknown setting \(found 2\); did you mean `side`\?"):
        check_settings(Drawing, {"shape": {"kind": "square", "side": 1, "sides": 2}})


class Drawings(Settings):
    named: dict[str, Square]

    @field_validator("named")
    @classmethod
    def _fit(cls, named: dict[str, Square]) -> dict[str, Square]:
        faults = [f"named.{name}.side: found {one.side}, expected less" for name, one in named.items() if one.side > 9]
        if faults:
            raise ValueError("; ".join(faults))
        return named


def test_a_fault_below_a_name_of_the_users_own_is_said_as_fully_as_any_other() -> None:
    with pytest.raises(ConfigError, match=r"\n  named.a.sides: unknown setting \(found 2\); did you mean `side`\?"):
        check_settings(Drawings, {"named": {"a": {"kind": "square", "side": 1, "sides": 2}}})
    with pytest.raises(ConfigError, match=r"named.a: found 'square', expected a section of `name: value`$"):
        check_settings(Drawings, {"named": {"a": "square"}})
    with pytest.raises(ConfigError, match=r"named: found \['a'\], expected a section of `name: value`$"):
        check_settings(Drawings, {"named": ["a"]})


def test_a_check_of_a_whole_section_names_a_setting_in_it_once() -> None:
    with pytest.raises(ConfigError, match=r"\n  named.a.side: found 10, expected less$"):
        check_settings(Drawings, {"named": {"a": {"kind": "square", "side": 10}}})


def test_an_unknown_kind_names_the_kinds_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"shape.kind: found 'sqare', expected 'circle', 'square'; did you mean `square`"
    ):
        check_settings(Drawing, {"shape": {"kind": "sqare"}})
    with pytest.raises(ConfigError, match=r"shape.kind: missing"):
        check_settings(Drawing, {"shape": {"side": 1}})


def test_overrides_lie_over_the_file_and_are_read_as_yaml(tmp_path: Path) -> None:
    path = config(tmp_path, "read: {uri: shards}\nmodel: {path: weights}\nwrite: {uri: out}\ngenerate:\n")
    overrides = ["generate.sampling.max_new_tokens=32", "read.limit=null", "generate.sampling.stop=[a, b]"]
    settings = load_settings(PipelineSettings, path, [*overrides, "write.uri=s3://bucket/a=b"])
    assert settings.generate.sampling.max_new_tokens == 32
    assert settings.generate.sampling.stop == ("a", "b")
    assert settings.write.uri == "s3://bucket/a=b"


def test_prose_in_an_override_stays_prose(tmp_path: Path) -> None:
    path = config(tmp_path, "read: {uri: shards}\nmodel: {path: weights}\nwrite: {uri: out}\n")
    for prose in ("Look: what is it?", "'tis [odd", "- one", "2024-01-01"):
        assert load_settings(PipelineSettings, path, [f"model.path={prose}"]).model.path == prose


def test_faults_of_overrides_and_of_the_file_are_listed_together(tmp_path: Path) -> None:
    path = config(tmp_path, "read: {uri: shards}\nmodel: {path: weights}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(PipelineSettings, path, ["slots", "read.uri.deep=3"])
    assert caught.value.faults == [
        "override 'slots': expected `dotted.key=value`",
        "override 'read.uri.deep=3': `uri` is 'shards', not a section",
        "write: missing, expected write.uri",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("read: [", "is not YAML"),
        ("- a\n- b", r"found \['a', 'b'\], expected sections"),
        ("read: {uri: a}\nread: {uri: b}", "`read` appears twice"),
        ("", "found nothing, expected sections"),
    ],
)
def test_a_file_that_is_no_settings_file_says_so(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(PipelineSettings, config(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml: 1 fault\n  there is no such file; expected a YAML file"):
        load_settings(PipelineSettings, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match=r": 1 fault\n  is a folder, expected a YAML file"):
        load_settings(PipelineSettings, tmp_path)
    with pytest.raises(ConfigError, match=r": 1 fault\n  cannot be read: Not a directory"):
        load_settings(PipelineSettings, config(tmp_path, "{}") / "below.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"note: caf\xe9")
    with pytest.raises(ConfigError, match=r": 1 fault\n  is not UTF-8: .* at byte 9"):
        load_settings(PipelineSettings, tmp_path / "latin.yaml")


def test_written_settings_hold_no_secrets() -> None:
    # A link to the data's home page in the columns, say: what is no address of ours is not refused.
    values = GOOD | {"read": {"uri": "in", "columns": {"image": "ftp://me:hunter2@host/x?X-Amz-Signature=abcd&part=1"}}}
    dumped = dump_settings(check_settings(PipelineSettings, values))
    assert dumped["read"]["columns"]["image"] == "ftp://***@host/x?X-Amz-Signature=***&part=1"
    assert dumped["generate"]["sampling"]["max_new_tokens"] is None


@pytest.mark.parametrize("setting", ["read.uri", "write.uri", "model.path", "read.storage.endpoint_url"])
@pytest.mark.parametrize("address", ["https://me:hunter2@host/x", "https://host/x?X-Amz-Signature=hunter2"])
def test_credentials_in_an_address_are_refused_and_not_shown(setting: str, address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings(PipelineSettings, _with(GOOD, setting, address))
    assert caught.value.faults == [f"{setting}: found credentials in the address, expected them in the environment"]
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def _with(values: dict[str, Any], setting: str, value: Any) -> dict[str, Any]:
    first, _, rest = setting.partition(".")
    return values | {first: _with(values.get(first, {}), rest, value) if rest else value}


def test_a_secret_in_a_faulty_value_is_not_printed() -> None:
    assert "hunter2" not in "\n".join(faults(GOOD | {"wirte": "s3://key:hunter2@host/x"}))


def test_differences_name_each_setting_that_changed() -> None:
    before = dump_settings(check_settings(PipelineSettings, GOOD))
    after = dump_settings(check_settings(PipelineSettings, GOOD | {"generate": {"sampling": {"seed": 3}}}))
    assert differences(before, after) == ["generate.sampling.seed: was 0, now 3"]
    assert differences(before, before) == []


def test_a_difference_tells_a_setting_that_was_not_there_from_one_that_was_null() -> None:
    before, after = {"a": None, "old": 1}, {"a": 2, "new": None}
    assert differences({"x": before}, {"x": after}) == [
        "x.a: was nothing, now 2",
        "x.old: was 1, now there is no such setting (another version, or another job)",
        "x.new: was not set when the run began (an older version, or another job), now nothing",
    ]


def test_settings_do_not_change_once_checked() -> None:
    settings = check_settings(PipelineSettings, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        settings.write.uri = "elsewhere"


def test_an_empty_stop_string_is_refused() -> None:
    assert faults(GOOD | {"generate": {"sampling": {"stop": [""]}}}) == [
        "generate.sampling.stop: found ('',), expected several texts, none of them empty, which would end every answer "
        "at once"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1.0), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", 1e-40),
     ("top_p", 0.0), ("top_k", -1), ("max_new_tokens", 0), ("seed", -1), ("seed", 2**63)],
)  # fmt: skip
def test_sampling_that_cannot_be_is_refused_before_anything_starts(name: str, value: float) -> None:
    (fault,) = faults(GOOD | {"generate": {"sampling": {name: value}}})
    assert fault.startswith(f"generate.sampling.{name}: found {value!r}, expected ")


def test_the_most_tiles_of_a_picture_are_one_to_four() -> None:
    for tiles in (0, 5):
        (fault,) = faults(GOOD | {"preprocess": {"max_image_tiles": tiles}})
        assert fault.startswith(f"preprocess.max_image_tiles: found {tiles}, expected ")
    settings = check_settings(PipelineSettings, GOOD | {"preprocess": {"max_image_tiles": 2}})
    assert settings.preprocess.images == ImageSettings(max_image_tiles=2)


def test_the_day_of_the_templates_is_pinned_and_written_down(tmp_path: Path) -> None:
    assert dump_settings(check_settings(PipelineSettings, GOOD))["preprocess"]["today"] == "2024-07-26"
    path = config(tmp_path, "read: {uri: a}\nmodel: {path: b}\nwrite: {uri: c}\npreprocess: {today: 2031-03-02}\n")
    settings = load_settings(PipelineSettings, path)
    assert settings.preprocess.today == date(2031, 3, 2)
    assert load_settings(PipelineSettings, path, ["preprocess.today=2025-01-01"]).preprocess.today == date(2025, 1, 1)


@pytest.mark.parametrize("today", ["today", "26.07.2024", 0, 20240726, None])
def test_a_day_that_is_none_is_refused(today: object) -> None:
    (fault,) = faults(GOOD | {"preprocess": {"today": today}})
    assert fault == f"preprocess.today: found {today!r}, expected a day such as 2024-07-26"


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 2, 8])
def test_an_engine_has_part_of_a_gpu_or_whole_ones(gpus: float) -> None:
    assert check_settings(PipelineSettings, GOOD | {"generate": {"gpus": gpus}}).generate.gpus == gpus


def test_one_and_a_half_gpus_are_refused() -> None:
    assert faults(GOOD | {"generate": {"gpus": 1.5}}) == [
        "generate.gpus: found 1.5, expected a part of one GPU or a whole number of them"
    ]


@pytest.mark.parametrize(
    ("wrong", "doubtful"),
    [
        ({}, set()),
        (
            {"generate": {"slots": 0, "sampling": {"top_p": 2, "seed": 3}}},
            {"generate.slots", "generate.sampling.top_p"},
        ),
        ({"read": {"limit": 0}}, {"read.uri", "read.limit"}),
        ({"model": None, "raed": {"uri": "x"}}, {"model", "raed", "model.path"}),
        ({"preprocess": [1], "limits": "many"}, {"preprocess", "limits"}),
    ],
)
def test_settings_that_are_well_are_kept_beside_wrong_ones(wrong: dict[str, Any], doubtful: set[str]) -> None:
    found = stand_in(PipelineSettings, {**GOOD, **wrong})
    assert found is not None
    settings, named = found
    assert named >= doubtful and {name.partition(".")[0] for name in named} <= {*wrong}
    assert settings.write.uri == "out" and settings.generate.slots == "auto"
    assert settings.generate.sampling.seed == wrong.get("generate", {}).get("sampling", {}).get("seed", 0)


def test_settings_that_no_default_can_mend_have_no_stand_in() -> None:
    assert stand_in(Drawing, {"shape": {"kind": "triangle"}}) is None
    values: dict[str, Any] = {"shape": {"kind": "circle", "radius": "wide"}}
    assert stand_in(Drawing, values) is None
    assert values == {"shape": {"kind": "circle", "radius": "wide"}}, "what was given stays as it is"
