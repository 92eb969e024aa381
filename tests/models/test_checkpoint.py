"""A checkpoint's files that say what cannot be, or what is not done here, are refused by file and field."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from models import ImageSettings, Request, ask, load_processor
from models.aria import config as aria
from models.devices import find_devices, place_layers
from models.mllama import config as mllama
from models.types import CheckpointError, ImageSettingsError
from tests.tiny import (
    ARIA,
    ARIA_IMAGES,
    ARIA_TEXT,
    ARIA_VISION,
    MLLAMA,
    MLLAMA_IMAGES,
    MLLAMA_TEXT,
    MLLAMA_VISION,
    tiny_aria,
    tiny_mllama,
)

WHOLE: dict[str, dict[str, Any]] = {
    "aria": ARIA | {"text_config": ARIA_TEXT, "vision_config": ARIA_VISION},
    "mllama": MLLAMA | {"text_config": MLLAMA_TEXT, "vision_config": MLLAMA_VISION},
}
READ_CONFIG = {"aria": aria.read_config, "mllama": mllama.read_config}


def write(folder: Path, family: str, section: str | None = None, **change: Any) -> Path:
    """Write a configuration with changes in one of its sections."""
    whole = WHOLE[family]
    changed = whole | change if section is None else whole | {section: whole[section] | change}
    (folder / "config.json").write_text(json.dumps(changed))
    return folder


def images(folder: Path, family: str) -> Any:
    write(folder, family)
    if family == "aria":
        return aria.read_images(folder, ImageSettings())
    vision = mllama.read_config(folder).vision
    assert vision is not None
    return mllama.read_images(folder, vision, ImageSettings())


@pytest.mark.parametrize("family", WHOLE)
@pytest.mark.parametrize(("section", "change", "said"), [
    ("text_config", {"hidden_size": "64"}, "text_config.hidden_size is '64', expected a whole number from 0 on"),
    ("text_config", {"num_attention_heads": 0}, "text_config.num_attention_heads is 0, expected a whole number from 1"),
    ("text_config", {"num_hidden_layers": 2.5}, "text_config.num_hidden_layers is 2.5, expected a whole number"),
    ("text_config", {"rms_norm_eps": [1]}, r"text_config.rms_norm_eps is \[1\], expected a number"),
    ("text_config", {"hidden_act": "relu"}, "text_config.hidden_act is 'relu', expected 'silu'"),
    ("text_config", {"rope_scaling": 3}, "text_config.rope_scaling is 3, expected an object"),
    ("text_config", {"rope_scaling": {"rope_type": 4}}, "text_config.rope_scaling.rope_type is 4, expected a text"),
    ("vision_config", {"patch_size": None, "image_size": True}, "vision_config.image_size is True, expected a whole"),
    (None, {"image_token_index": "nine"}, "image_token_index is 'nine', expected a whole number"),
    (None, {"eos_token_id": [1, None]}, r"eos_token_id is \[1, None\], expected one whole number or a list"),
    (None, {"text_config": None}, "has no text_config; model_type is '"),
    (None, {"vision_config": []}, r"vision_config is \[\], expected an object"),
    (None, {"torch_dtype": 16}, "torch_dtype is 16, expected one of float32, bfloat16, float16, float64"),
])  # fmt: skip
def test_a_field_of_a_wrong_kind_is_named_with_its_file(
    tmp_path: Path, family: str, section: str | None, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json(: | ){said}"):
        READ_CONFIG[family](write(tmp_path, family, section, **change))


@pytest.mark.parametrize(("section", "change", "said"), [
    ("text_config", {"cross_attention_layers": [1, 4]}, r"\[1, 4\], expected whole numbers from 0 to 3"),
    ("text_config", {"cross_attention_layers": [1, 1]}, r"\[1, 1\], expected each number once"),
    ("vision_config", {"intermediate_layers_indices": [0, 3]}, r"\[0, 3\], expected whole numbers from 0 to 2"),
    ("vision_config", {"intermediate_layers_indices": [-1]}, r"\[-1\], expected whole numbers from 0 to 2"),
    ("vision_config", {"vision_output_dim": 99}, "vision_output_dim is 99, expected 48"),
    ("vision_config", {"supported_aspect_ratios": [[1, 1], [2, 3]]}, r"grids of at most max_num_tiles, 4"),
    ("vision_config", {"supported_aspect_ratios": 4}, "supported_aspect_ratios is 4, expected"),
    ("text_config", {"rope_scaling": {"rope_type": "llama3"}}, r"json has no text_config\.rope_scaling\.factor"),
    ("text_config", {"rope_scaling": {"rope_type": "yarn"}}, "rope_type is 'yarn', expected `llama3` or `default`"),
])  # fmt: skip
def test_what_a_mllama_cannot_be_is_refused(tmp_path: Path, section: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        mllama.read_config(write(tmp_path, "mllama", section, **change))


def test_a_field_that_is_null_is_absent(tmp_path: Path) -> None:
    nothing = {"image_token_index": None, "eos_token_id": None, "dtype": None}
    assert mllama.read_config(write(tmp_path, "mllama", **nothing)).image_token_index == 128256
    assert aria.read_config(write(tmp_path, "aria", **nothing)).image_token_index == 9


def test_an_older_name_of_a_field_counts_where_the_newer_is_null(tmp_path: Path) -> None:
    folder = write(tmp_path, "mllama", image_token_index=None, image_token_id=77)
    assert mllama.read_config(folder).image_token_index == 77


STORED = {"aria": ARIA_IMAGES, "mllama": MLLAMA_IMAGES}
SAME = {
    "do_convert_rgb": True, "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
    "rescale_factor": 0.00392156862745098,
}  # fmt: skip


@pytest.mark.parametrize(("family", "resample"), [("aria", 3), ("mllama", 2)])
def test_what_the_released_files_say_of_images_is_what_is_done(tmp_path: Path, family: str, resample: int) -> None:
    stored = STORED[family] | SAME | {"resample": resample}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored))
    said = images(tmp_path, family)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(STORED[family]))
    assert images(tmp_path, family) == said


@pytest.mark.parametrize(("family", "change", "said"), [
    ("mllama", {"resample": 3}, "resample is 3, expected 2"), ("aria", {"resample": 2}, "resample is 2, expected 3"),
    ("mllama", {"do_normalize": False}, "do_normalize is False, expected True"),
    ("aria", {"do_rescale": False}, "do_rescale is False, expected True"),
    ("mllama", {"do_pad": False}, "do_pad is False"), ("mllama", {"do_resize": False}, "do_resize is False"),
    ("aria", {"do_convert_rgb": False}, "do_convert_rgb is False"),
    ("aria", {"rescale_factor": 0.0078125}, r"rescale_factor is 0\.0078125, expected 0\.00392"),
    ("mllama", {"size": {"height": 28, "width": 56}}, r"size\.width is 56, expected 28"),
    ("mllama", {"image_mean": None}, "image_mean"),
    ("mllama", {"image_std": 0.5}, r"image_std is 0\.5, expected three numbers"),
    ("mllama", {"max_image_tiles": 5}, "max_image_tiles is 5, expected 1 to 4"),
    ("aria", {"split_image": "yes"}, "split_image is 'yes', expected true or false"),
])  # fmt: skip
@pytest.mark.parametrize("place", ["preprocessor_config.json", "processor_config.json"])
def test_other_steps_than_ours_are_refused_and_the_right_file_is_blamed(
    tmp_path: Path, family: str, change: dict[str, Any], said: str, place: str
) -> None:
    stored = STORED[family] | change
    is_nested = place == "processor_config.json"
    (tmp_path / place).write_text(json.dumps({"image_processor": stored} if is_nested else stored))
    prefix = r"image_processor\." if is_nested else ""
    with pytest.raises(CheckpointError, match=rf"/{place}(: | has no ){prefix}{said}"):
        images(tmp_path, family)


@pytest.mark.parametrize("write_tiny", [tiny_aria, tiny_mllama])
def test_without_an_eye_no_image_setting_does_anything(tmp_path: Path, write_tiny: Any) -> None:
    folder = str(write_tiny(tmp_path))
    settings = ImageSettings(split_image=False, max_image_size=28, max_image_tiles=2)
    with pytest.raises(ImageSettingsError) as caught:
        load_processor(folder, settings, text_only=True)
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "split_image",
        "max_image_size",
        "max_image_tiles",
    ]
    # Here nobody asked for a model without its vision encoder; there is only no image in these requests.
    assert len(ask(folder, [Request(prompt="yes")], device="cpu", preprocess=settings)) == 1


def test_requests_asked_in_this_process_may_have_a_day_of_their_own(tmp_path: Path) -> None:
    folder, day = str(tiny_mllama(tmp_path)), date(2031, 3, 2)
    chat = Request(messages=[{"role": "user", "content": "yes"}])
    prompt = load_processor(folder, today=day).prepare(chat).prompt
    assert "02 Mar 2031" in prompt
    assert ask(folder, [chat], device="cpu", today=day) == ask(folder, [Request(prompt=prompt)], device="cpu")


def test_metas_own_files_are_told_from_a_checkpoint(tmp_path: Path) -> None:
    for name in ("params.json", "consolidated.00.pth"):
        own = tmp_path / name.partition(".")[0]
        own.mkdir()
        (own / name).write_text("{}")
        with pytest.raises(CheckpointError, match=r"no config\.json but Meta's own .* expected the folder above"):
            load_processor(str(own))


@pytest.mark.parametrize("name", ["gpu", "cuda:x", ""])
def test_a_device_that_torch_does_not_know_is_named(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"device: found '{name}', expected `auto`, `cpu`, `cuda`"):
        find_devices(name)


def test_devices_may_be_of_several_kinds() -> None:
    assert find_devices(["cpu", "meta"]) == [torch.device("cpu"), torch.device("meta")]


def test_a_model_whose_layers_have_other_names_is_not_laid_on_one_device_in_silence() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    cpu, meta = find_devices(["cpu", "meta"])
    with pytest.raises(CheckpointError, match=r"Sequential has no layers named ….model\.layers\.0"):
        place_layers(model, [cpu, meta])
    assert place_layers(model, [meta])("0.weight") == meta
