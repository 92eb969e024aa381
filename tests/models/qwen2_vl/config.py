"""Qwen2-VL's numbers, read from a checkpoint folder that transformers 5 has written. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import Fields, stored_images
from models.config import ConfigFiles, DecoderConfig, FamilyConfig, read_decoder, rope_fields
from models.types import ImageSettings

BICUBIC = 3  # Pillow's number


@dataclass(frozen=True)
class TextConfig(DecoderConfig):
    """The decoder; `sections` are the pairs of a head's numbers that turn with time, height and width."""

    sections: tuple[int, ...]


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower; `merge_size` patches a side become one row of text width."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    patch_size: int
    num_frames: int
    merge_size: int


@dataclass(frozen=True)
class Qwen2VLConfig(FamilyConfig):
    """A whole Qwen2-VL, or its decoder alone."""

    text: TextConfig
    vision: VisionConfig | None
    image_token_id: int


@dataclass(frozen=True)
class QwenImages:
    """How a picture becomes a tile (processor.py) and a tile becomes numbers (model.py)."""

    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_config(folder: Path, *, text_only: bool = False) -> Qwen2VLConfig:
    """Read a checkpoint's configuration; with `text_only` leave out what only images need."""
    files = ConfigFiles(folder, ("qwen2_vl_text",))
    return Qwen2VLConfig(
        text=_read_text(files.text),
        vision=None if files.is_decoder or text_only else _read_vision(files.whole.section("vision_config")),
        eos_token_ids=files.token_ids("eos_token_id", default=151645),
        dtype=files.dtype(),
        is_tied=files.is_tied(),
        image_token_id=files.whole.integer("image_token_id", default=151655),
    )


def read_images(folder: Path, settings: ImageSettings) -> QwenImages:
    """Read the image settings: the run's own before preprocessor_config.json."""
    stored = stored_images(folder, resample=BICUBIC)
    size = stored.section("size")
    return QwenImages(
        min_pixels=size.integer("shortest_edge") if settings.min_pixels is None else settings.min_pixels,
        max_pixels=size.integer("longest_edge") if settings.max_pixels is None else settings.max_pixels,
        mean=stored.channels("image_mean"),
        std=stored.channels("image_std"),
    )


def _read_text(raw: Fields) -> TextConfig:
    raw.expect("use_sliding_window", False)
    decoder = read_decoder(raw, vocab_size=152064, rope_theta=1e6, max_position_embeddings=32768)
    sections = tuple(rope_fields(raw).get("mrope_section"))
    return TextConfig(**vars(decoder) | {"qkv_bias": True}, sections=sections)


def _read_vision(raw: Fields) -> VisionConfig:
    raw.expect("hidden_act", "quick_gelu")
    width = raw.integer("embed_dim", default=1280)
    return VisionConfig(
        hidden_size=width,
        intermediate_size=width * raw.integer("mlp_ratio", default=4),
        num_hidden_layers=raw.integer("depth", default=32),
        num_attention_heads=raw.integer("num_heads", default=16, least=1),
        patch_size=raw.integer("patch_size", default=14, least=1),
        num_frames=raw.integer("temporal_patch_size", default=2, least=1),
        merge_size=raw.integer("spatial_merge_size", default=2, least=1),
    )
