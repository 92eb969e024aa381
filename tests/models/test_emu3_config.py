"""In whatever dialect they were written, Emu3's files are read as what they say, and refused where we do otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Emu3Config as TheirConfig
from transformers import Emu3TextConfig as TheirTextConfig

from models.config import DecoderConfig
from models.emu3.config import VqConfig, read_config, read_images
from models.emu3.vocabulary import NAMED, Vocabulary, visual_token
from models.types import CheckpointError, ImageSettings, ImageSettingsError
from tests.models.emu3_reference import SMALL_VQ, VQ_SIZES, vq_config

TEXT = {
    "vocab_size": 120, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    "rms_norm_eps": 1e-4, "max_position_embeddings": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
OURS = DecoderConfig(120, 24, 40, 3, 6, 2, 8, 5e5, 1e-4, 99)
NAMED_IDS = dict(zip(NAMED, (11, 7, 5, 23, 19, 13), strict=True))
IDS = NAMED_IDS | {visual_token(code): 40 + code for code in range(64)}
IMAGES = {"image_mean": [0.5, 0.5, 0.4], "image_std": [0.5, 0.6, 0.5]}


def write(folder: Path, name: str = "config.json", **content: Any) -> Path:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def whole(folder: Path, **changed: Any) -> Path:
    """Write a whole checkpoint's config.json; `text_config` and `vq_config` change single fields."""
    text = {name: value for name, value in (TEXT | changed.pop("text_config", {})).items() if value is not None}
    vq = SMALL_VQ | changed.pop("vq_config", {})
    fields = {"model_type": "emu3", "text_config": text, "vq_config": vq, "vocabulary_map": IDS} | changed
    return write(folder, **fields)


def test_what_a_file_leaves_out_is_as_released(tmp_path: Path) -> None:
    released = {"<image>": 151646, "<|extra_200|>": 151846, "<|extra_201|>": 151847, "<|image token|>": 151851,
                "<|image start|>": 151852, "<|image end|>": 151853}  # fmt: skip
    ids = released | {visual_token(code): 151854 + code for code in range(32768)} | {"the": 5}
    config = read_config(write(tmp_path, model_type="emu3", text_config={}, vq_config={}, vocabulary_map=ids))
    assert config.text == DecoderConfig(184622, 4096, 14336, 32, 32, 8, 128, 1e6, 1e-5, 9216)
    assert config.vision == VqConfig(32768, 4, 4, 3, 3, 4, 256, (1, 2, 2, 4), 2, (3,), 1024)
    assert config.vision.channels == (256, 512, 512, 1024)
    assert config.vision.spatial_factor == 8
    assert config.vocabulary == Vocabulary(
        first_visual=151854, num_visual=32768, end_of_line=151846, end_of_frame=151847, image_start=151852,
        image_token=151851, image_end=151853, image_placeholder=151646,
    )  # fmt: skip
    assert (config.bos_token_id, config.eos_token_ids, config.pad_token_id) == (151849, {151850}, 151643)
    assert config.dtype is None


@pytest.mark.parametrize("size", [name for name, vq in VQ_SIZES.items() if vq["in_channels"] == 3])
def test_what_the_reference_writes_is_read_as_it_was(tmp_path: Path, size: str) -> None:
    vq = VQ_SIZES[size]
    ids = NAMED_IDS | {visual_token(code): 40 + code for code in range(vq["codebook_size"])}
    text = TEXT | {"vocab_size": 40 + vq["codebook_size"]}
    TheirConfig(text_config=text, vq_config=vq, vocabulary_map=ids, dtype="float32").save_pretrained(tmp_path)
    config = read_config(tmp_path)
    assert config.vision == vq_config(vq)
    assert config.text.vocab_size == text["vocab_size"]
    assert (config.text.rope_theta, config.text.head_dim) == (5e5, 8)
    assert config.vocabulary == Vocabulary(40, vq["codebook_size"], 11, 7, 5, 23, 19, 13)
    assert (config.bos_token_id, config.eos_token_ids, config.pad_token_id) == (1, {2}, 3)
    assert config.dtype == "float32"


@pytest.mark.parametrize(
    "rope",
    [{"rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": {"rope_type": "default"}},
     {"rope_theta": 5e5, "rope_scaling": {"type": "default"}}],
)  # fmt: skip
def test_older_files_say_the_same(tmp_path: Path, rope: dict[str, Any]) -> None:
    older = {"rope_parameters": None, "tie_word_embeddings": True, "num_beams": 1} | rope
    config = read_config(whole(tmp_path, text_config=older, torch_dtype="float16"))
    assert config.text == OURS
    assert config.dtype == "float16"


def test_generation_config_has_the_first_word_on_where_an_answer_ends(tmp_path: Path) -> None:
    write(whole(tmp_path), "generation_config.json", eos_token_id=[2, 9], bos_token_id=4)
    config = read_config(tmp_path)
    assert (config.bos_token_id, config.eos_token_ids, config.pad_token_id) == (4, {2, 9}, 3)


def test_tokens_that_config_json_leaves_out_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    kept = {token: id_ for token, id_ in IDS.items() if token not in ("<|image start|>", "<|image end|>")}
    added = [{"content": token, "id": id_} for token, id_ in IDS.items()]
    write(whole(tmp_path, vocabulary_map=kept), "tokenizer.json", added_tokens=added)
    assert read_config(tmp_path).vocabulary == Vocabulary(40, 64, 11, 7, 5, 23, 19, 13)
    write(whole(tmp_path, vocabulary_map=None), "tokenizer.json", added_tokens=added)
    assert read_config(tmp_path).vocabulary == Vocabulary(40, 64, 11, 7, 5, 23, 19, 13)


def test_a_decoder_alone_has_no_pictures(tmp_path: Path) -> None:
    TheirTextConfig(**TEXT).save_pretrained(tmp_path)
    config = read_config(tmp_path)
    assert config.text == OURS
    assert config.vision is None
    assert config.vocabulary is None


def test_for_text_alone_the_vq_vae_is_left_out(tmp_path: Path) -> None:
    config = read_config(whole(tmp_path, vq_config={"double_latent": True}), text_only=True)
    assert config.vision is None
    assert config.vocabulary == Vocabulary(40, 64, 11, 7, 5, 23, 19, 13)


@pytest.mark.parametrize(
    ("vq", "told"),
    [
        ({"double_latent": True}, r"vq_config\.double_latent is True, expected False"),
        ({"num_attention_heads": 2}, r"vq_config\.num_attention_heads is 2, expected 1"),
        ({"in_channels": 1}, r"vq_config\.in_channels is 1, expected 3"),
        ({"out_channels": 4}, r"vq_config\.out_channels is 4, expected 3"),
        ({"latent_channels": 5}, r"vq_config\.latent_channels is 5, expected 4, as embed_dim"),
        ({"temporal_downsample_factor": 3}, r"temporal_downsample_factor is 3, expected a power of two"),
        ({"base_channels": 48, "hidden_size": 96}, r"base_channels is 48, expected a multiple of 32"),
        ({"hidden_size": 32}, r"hidden_size is 32, expected the channels of .* attention and of the last: 64"),
        ({"attn_resolutions": [0, 1]}, r"hidden_size is 64, expected the channels .*: 32, 64"),
        ({"channel_multiplier": []}, r"channel_multiplier is \[\], expected a list of whole numbers from 1 on"),
        ({"channel_multiplier": [1, 0.5]}, r"channel_multiplier is \[1, 0\.5\], expected"),
        ({"codebook_size": 65}, r"has 64 visual tokens in .*; expected 65, vq_config\.codebook_size"),
    ],
)  # fmt: skip
def test_a_vq_vae_that_we_compute_otherwise_is_refused(tmp_path: Path, vq: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        read_config(whole(tmp_path, vq_config=vq))


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ({"<|visual token 000009|>": 8}, r"the 64 visual tokens have ids from 8 to 103, expected as many in a row"),
        ({"<|visual token 000009|>": 104}, r"visual tokens have ids from 40 to 104, expected as many in a row"),
        ({"<|visual token 000009|>": 50}, r"visual tokens have ids from 40 to 103, expected .* each once"),
        ({"<|extra_201|>": 120}, r"'<\|extra_201\|>' has id 120, expected less than text_config\.vocab_size, 120"),
        ({"<|extra_201|>": None}, r"no token '<\|extra_201\|>' in config\.json's vocabulary_map and tokenizer\.json's"),
        ({"<|visual token 000063|>": None, "<|visual token 000064|>": 103}, r"no token '<\|visual token 000063\|>' in"),
        ({"<image>": "13"}, r"vocabulary_map\.<image> is '13', expected a whole number"),
    ],
)  # fmt: skip
def test_picture_tokens_that_are_not_as_they_must_be_are_named(tmp_path: Path, ids: dict[str, Any], told: str) -> None:
    changed = {token: id_ for token, id_ in (IDS | ids).items() if id_ is not None}
    with pytest.raises(CheckpointError, match=told):
        read_config(whole(tmp_path, vocabulary_map=changed))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ({"hidden_act": "gelu"}, r"text_config\.hidden_act is 'gelu', expected 'silu'"),
        ({"attention_bias": True}, r"text_config\.attention_bias is True, expected False"),
        ({"rope_parameters": {"rope_type": "yarn"}}, r"rope_type is 'yarn', expected `default`, the one rope type"),
    ],
)
def test_a_decoder_that_we_compute_otherwise_is_refused(tmp_path: Path, text: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        read_config(whole(tmp_path, text_config=text))


def test_image_settings_are_read_from_either_file(tmp_path: Path) -> None:
    write(tmp_path, "preprocessor_config.json", **IMAGES)
    images = read_images(tmp_path, ImageSettings())
    assert (images.min_pixels, images.max_pixels, images.spatial_factor) == (512 * 512, 1024 * 1024, 8)
    assert (images.mean, images.std) == ((0.5, 0.5, 0.4), (0.5, 0.6, 0.5))
    (tmp_path / "preprocessor_config.json").unlink()
    sizes = {"min_pixels": 64, "max_pixels": 640, "spatial_factor": 4, "resample": 3}
    write(tmp_path, "processor_config.json", image_processor=IMAGES | sizes)
    images = read_images(tmp_path, ImageSettings())
    assert (images.min_pixels, images.max_pixels, images.spatial_factor) == (64, 640, 4)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ({"image_mean": None}, "has no image_mean"),
        ({"image_std": None}, "has no image_std"),
        ({"resample": 2}, "resample is 2, expected 3"),
        ({"min_pixels": 100, "max_pixels": 99}, "max_pixels is 99, expected at least min_pixels, 100"),
    ],
)
def test_image_settings_that_we_do_not_follow_are_refused(tmp_path: Path, stored: dict[str, Any], told: str) -> None:
    write(tmp_path, "preprocessor_config.json", **IMAGES | stored)
    with pytest.raises(CheckpointError, match=told):
        read_images(tmp_path, ImageSettings())


@pytest.mark.parametrize(
    ("settings", "area"),
    [
        ({}, (64, 640)), ({"min_pixels": 640}, (640, 640)), ({"max_pixels": 64}, (64, 64)),
        ({"min_pixels": 1, "max_pixels": 1}, (1, 1)), ({"min_pixels": 9999, "max_pixels": 99999}, (9999, 99999)),
    ],
)  # fmt: skip
def test_the_runs_own_areas_go_before_the_files(
    tmp_path: Path, settings: dict[str, int], area: tuple[int, int]
) -> None:
    write(tmp_path, "preprocessor_config.json", **IMAGES, min_pixels=64, max_pixels=640)
    images = read_images(tmp_path, ImageSettings(**settings))
    assert (images.min_pixels, images.max_pixels) == area


@pytest.mark.parametrize(
    ("settings", "faults"),
    [
        ({"min_pixels": 641}, ["min_pixels: found 641, expected at most max_pixels, 640, the checkpoint's"]),
        ({"max_pixels": 63}, ["max_pixels: found 63, expected at least min_pixels, 64, the checkpoint's"]),
        ({"min_pixels": 9, "max_pixels": 8}, ["max_pixels: found 8, expected at least min_pixels, 9"]),
        ({"max_pixels": 0}, ["max_pixels: found 0, expected 1 or more"]),
        ({"pad_to_ratio": 0}, ["pad_to_ratio: found 0, expected 1 to 200"]),
        ({"pad_to_ratio": 201}, ["pad_to_ratio: found 201, expected 1 to 200"]),
        ({"min_pixels": 0, "max_pixels": -1}, [f"{name}: found {area}, expected 1 or more" for name, area in
                                               (("min_pixels", 0), ("max_pixels", -1))]),
    ],
)  # fmt: skip
def test_image_settings_of_a_run_that_are_of_no_use_are_named(
    tmp_path: Path, settings: dict[str, int], faults: list[str]
) -> None:
    write(tmp_path, "preprocessor_config.json", **IMAGES, min_pixels=64, max_pixels=640)
    with pytest.raises(ImageSettingsError) as found:
        read_images(tmp_path, ImageSettings(**settings))
    assert list(found.value.faults) == faults
