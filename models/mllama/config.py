"""Mllama's numbers, read from a checkpoint folder in any of the dialects its files were written in.

Sources: config.json of meta-llama/Llama-3.2-{11B,90B}-Vision and what newer writers make of it; missing fields take
the defaults of the reference implementation. Imports no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoint import channels, first, read_json, section, stored_images, token_ids
from models.types import CheckpointError, ImageSettings

TEXT_ONLY = ("mllama_text_model",)
# Rows of the embedding table beyond the vocabulary, the image token's among them; the head has none for them.
EXTRA_EMBEDDINGS = 8


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3 stretches its rotary frequencies to longer sequences than it was first trained on."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class TextConfig:
    """The decoder. `num_hidden_layers` counts its cross-attention layers, which stand among the others."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    cross_attention_layers: tuple[int, ...]
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    rms_norm_eps: float
    max_position_embeddings: int


@dataclass(frozen=True)
class VisionConfig:
    """The vision encoder.

    Attributes:
        aspect_ratios: (rows, columns) of the tile grids it knows; a grid's id is its place here, plus 1.
        intermediate_layers: Local layers whose inputs are features beside the final output.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_global_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    norm_eps: float
    max_num_tiles: int
    aspect_ratios: tuple[tuple[int, int], ...]
    intermediate_layers: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of one tile: its patches and one for the whole."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def output_size(self) -> int:
        """Width of a feature: the final output and the intermediate ones side by side."""
        return self.hidden_size * (1 + len(self.intermediate_layers))


@dataclass(frozen=True)
class MllamaConfig:
    """A whole Mllama, or its decoder alone (`vision` is None), which then has no cross-attention layers either."""

    text: TextConfig
    vision: VisionConfig | None
    image_token_index: int
    bos_token_id: int
    eos_token_ids: frozenset[int]
    dtype: str


@dataclass(frozen=True)
class MllamaImages:
    """How a picture becomes tiles (models/mllama/processor.py) and tiles become numbers (models/mllama/model.py)."""

    tile_size: int
    max_image_tiles: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_config(folder: Path, *, text_only: bool = False) -> MllamaConfig:
    """Read config.json and generation_config.json.

    Args:
        folder: The checkpoint.
        text_only: Leave out what only images need, even if the checkpoint has it.

    Raises:
        CheckpointError: A file or a field that has no default is missing, or a field is of no use here.
    """
    raw = read_json(folder, "config.json")
    if raw is None:
        raise CheckpointError(f"no checkpoint: {folder / 'config.json'} does not exist")
    is_decoder = raw.get("model_type") in TEXT_ONLY
    text = raw if is_decoder else section(raw, "text_config", folder)
    generation = read_json(folder, "generation_config.json") or {}
    decoder = _read_text(text, folder)
    return MllamaConfig(
        text=decoder,
        vision=None if is_decoder or text_only else _read_vision(section(raw, "vision_config", folder), folder),
        image_token_index=int(raw.get("image_token_index", raw.get("image_token_id", decoder.vocab_size))),
        bos_token_id=int(first(generation, raw, text, name="bos_token_id", default=128000)),
        eos_token_ids=token_ids(first(generation, raw, text, name="eos_token_id", default=128001)),
        dtype=str(first(raw, text, name="torch_dtype", default=first(raw, text, name="dtype", default="bfloat16"))),
    )


def read_images(folder: Path, config: VisionConfig, settings: ImageSettings) -> MllamaImages:
    """Read the image settings: the run's own before preprocessor_config.json before processor_config.json.

    Raises:
        CheckpointError: Neither file is there, or they do not suit the vision encoder.
    """
    stored = stored_images(folder)
    size = stored.get("size") or {}
    sides = {int(size[name]) for name in ("height", "width") if name in size} or {config.image_size}
    if sides != {config.image_size}:
        raise CheckpointError(f"{folder}: tiles of {sorted(sides)} pixels for a vision encoder of {config.image_size}")
    asked = settings.max_image_tiles
    tiles = int(stored.get("max_image_tiles", config.max_num_tiles)) if asked is None else asked
    if not 1 <= tiles <= config.max_num_tiles:
        raise CheckpointError(
            f"max_image_tiles is {tiles}; expected 1 to {config.max_num_tiles}, the checkpoint's limit"
        )
    if stored.get("image_mean") is None or stored.get("image_std") is None:
        raise CheckpointError(f"{folder}: preprocessor_config.json has no image_mean and image_std")
    return MllamaImages(config.image_size, tiles, channels(stored["image_mean"]), channels(stored["image_std"]))


def _read_text(raw: Mapping[str, Any], folder: Path) -> TextConfig:
    if raw.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{folder}: hidden_act is {raw['hidden_act']!r}, expected `silu`")
    heads = int(raw.get("num_attention_heads", 32))
    hidden = int(raw.get("hidden_size", 4096))
    layers = int(raw.get("num_hidden_layers", 40))
    cross = raw.get("cross_attention_layers")
    theta, scaling = _read_rope(raw, folder)
    return TextConfig(
        vocab_size=int(raw.get("vocab_size", 128256)),
        hidden_size=hidden,
        intermediate_size=int(raw.get("intermediate_size", 14336)),
        num_hidden_layers=layers,
        cross_attention_layers=tuple(range(3, layers, 5) if cross is None else sorted(map(int, cross))),
        num_attention_heads=heads,
        num_key_value_heads=int(raw.get("num_key_value_heads") or heads),
        head_dim=int(raw.get("head_dim") or hidden // heads),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-5)),
        max_position_embeddings=int(raw.get("max_position_embeddings", 131072)),
    )


def _read_rope(raw: Mapping[str, Any], folder: Path) -> tuple[float, RopeScaling | None]:
    stored = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = float(stored.get("rope_theta", raw.get("rope_theta", 500000.0)))
    kind = stored.get("rope_type", stored.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise CheckpointError(
            f"{folder}: rope type `{kind}` is not one that Mllama has; expected `llama3` or `default`"
        )
    return theta, RopeScaling(
        factor=float(stored["factor"]),
        low_freq_factor=float(stored["low_freq_factor"]),
        high_freq_factor=float(stored["high_freq_factor"]),
        original_max_position_embeddings=int(stored["original_max_position_embeddings"]),
    )


def _read_vision(raw: Mapping[str, Any], folder: Path) -> VisionConfig:
    if raw.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"{folder}: vision hidden_act is {raw['hidden_act']!r}, expected `gelu`")
    tiles = int(raw.get("max_num_tiles", 4))
    stored = raw.get("supported_aspect_ratios")
    layers = raw.get("intermediate_layers_indices")
    config = VisionConfig(
        hidden_size=int(raw.get("hidden_size", 1280)),
        intermediate_size=int(raw.get("intermediate_size", 5120)),
        num_hidden_layers=int(raw.get("num_hidden_layers", 32)),
        num_global_layers=int(raw.get("num_global_layers", 8)),
        num_attention_heads=int(raw.get("num_attention_heads", raw.get("attention_heads", 16))),
        image_size=int(raw.get("image_size", 448)),
        patch_size=int(raw.get("patch_size", 14)),
        norm_eps=float(raw.get("norm_eps", 1e-5)),
        max_num_tiles=tiles,
        aspect_ratios=aspect_ratios(tiles) if stored is None else tuple((int(h), int(w)) for h, w in stored),
        intermediate_layers=tuple((3, 7, 15, 23, 30) if layers is None else map(int, layers)),
    )
    if max(map(math.prod, config.aspect_ratios)) > tiles:
        raise CheckpointError(f"{folder}: supported_aspect_ratios has grids of more than max_num_tiles, {tiles}")
    if int(raw.get("vision_output_dim", config.output_size)) != config.output_size:
        raise CheckpointError(
            f"{folder}: vision_output_dim is {raw['vision_output_dim']}; hidden_size and intermediate_layers_indices "
            f"make it {config.output_size}"
        )
    return config


def aspect_ratios(max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return the (rows, columns) of every grid of at most `max_tiles` tiles, in the order of their ids."""
    sides = range(1, max_tiles + 1)
    return tuple((rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles)
