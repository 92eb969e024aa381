"""Aria's numbers, read from a checkpoint folder in any of the dialects its files were written in.

Sources: config.json of rhymes-ai/Aria (native layout) and of its older sisters (remote-code layout), whose
names differ; missing fields take the defaults of the reference implementation. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoint import channels, first, read_json, section, stored_images, token_ids
from models.types import CheckpointError, ImageSettings

TEXT_ONLY = ("aria_text", "aria_moe_lm")


@dataclass(frozen=True)
class TextConfig:
    """The mixture-of-experts decoder."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int  # of one routed expert
    moe_num_experts: int
    moe_topk: int
    moe_num_shared_experts: int
    rope_theta: float
    rms_norm_eps: float
    max_position_embeddings: int


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    layer_norm_eps: float
    feature_layer: int


@dataclass(frozen=True)
class AriaConfig:
    """A whole Aria, or its decoder alone (`vision` is None)."""

    text: TextConfig
    vision: VisionConfig | None
    patch_to_query: Mapping[int, int]
    image_token_index: int
    eos_token_ids: frozenset[int]
    dtype: str


@dataclass(frozen=True)
class AriaImages:
    """How a picture becomes tiles (models/aria/processor.py) and tiles become numbers (models/aria/model.py)."""

    max_image_size: int
    min_image_size: int
    split_image: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_config(folder: Path, *, text_only: bool = False) -> AriaConfig:
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
    return AriaConfig(
        text=_read_text(text, folder),
        vision=None if is_decoder or text_only else _read_vision(raw, folder),
        patch_to_query=_read_queries(raw),
        # A decoder alone has no image token: its id is text like any other.
        image_token_index=-1 if is_decoder else int(raw.get("image_token_index", raw.get("image_token_id", 9))),
        eos_token_ids=token_ids(first(generation, raw, text, name="eos_token_id", default=2)),
        dtype=str(first(raw, text, name="torch_dtype", default=raw.get("dtype", "bfloat16"))),
    )


def read_images(folder: Path, settings: ImageSettings) -> AriaImages:
    """Read the image settings: the run's own before preprocessor_config.json before processor_config.json.

    Raises:
        CheckpointError: Neither file is there.
    """
    stored = stored_images(folder)
    return AriaImages(
        max_image_size=settings.max_image_size or int(stored.get("max_image_size", 980)),
        min_image_size=int(stored.get("min_image_size", 336)),
        split_image=bool(stored.get("split_image", False) if settings.split_image is None else settings.split_image),
        mean=channels(stored.get("image_mean") or (0.5, 0.5, 0.5)),
        std=channels(stored.get("image_std") or (0.5, 0.5, 0.5)),
    )


def _read_text(raw: Mapping[str, Any], folder: Path) -> TextConfig:
    if raw.get("hidden_act", "silu") != "silu" or raw.get("attention_bias") or raw.get("mlp_bias"):
        raise CheckpointError(f"{folder}: Aria's decoder has silu and no biases; config.json says otherwise")
    heads = int(raw.get("num_attention_heads", 32))
    hidden = int(raw.get("hidden_size", 4096))
    return TextConfig(
        vocab_size=int(raw.get("vocab_size", 32000)),
        hidden_size=hidden,
        num_hidden_layers=int(raw.get("num_hidden_layers", 32)),
        num_attention_heads=heads,
        num_key_value_heads=int(raw.get("num_key_value_heads") or heads),
        head_dim=int(raw.get("head_dim") or hidden // heads),
        # The remote-code sisters carry an unused dense width in `intermediate_size`.
        intermediate_size=int(raw.get("moe_intermediate_size") or raw.get("intermediate_size", 4096)),
        moe_num_experts=int(raw.get("moe_num_experts", 8)),
        moe_topk=int(raw.get("moe_topk", 2)),
        moe_num_shared_experts=int(raw.get("moe_num_shared_experts", 2)),
        rope_theta=_read_theta(raw, folder),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        max_position_embeddings=int(raw.get("max_position_embeddings", 2048)),
    )


def _read_theta(raw: Mapping[str, Any], folder: Path) -> float:
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"{folder}: rope type `{kind}` is not one that Aria has; expected `default`")
    return float(scaling.get("rope_theta", raw.get("rope_theta", 10000.0)))


def _read_vision(raw: Mapping[str, Any], folder: Path) -> VisionConfig:
    vision = section(raw, "vision_config", folder)
    layer = raw.get("vision_feature_layer", -1)
    if not isinstance(layer, int):
        raise CheckpointError(f"{folder}: vision_feature_layer is {layer!r}, expected one integer")
    if vision.get("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise CheckpointError(f"{folder}: vision hidden_act is {vision['hidden_act']!r}, expected `gelu_pytorch_tanh`")
    return VisionConfig(
        hidden_size=int(vision.get("hidden_size", 1152)),
        intermediate_size=int(vision.get("intermediate_size", 4304)),
        num_hidden_layers=int(vision.get("num_hidden_layers", 27)),
        num_attention_heads=int(vision.get("num_attention_heads", vision.get("attention_heads", 16))),
        image_size=int(vision.get("image_size", 980)),
        patch_size=int(vision.get("patch_size", 14)),
        layer_norm_eps=float(vision.get("layer_norm_eps", 1e-6)),
        feature_layer=layer,
    )


def _read_queries(raw: Mapping[str, Any]) -> dict[int, int]:
    stored = raw.get("projector_patch_to_query_dict") or {1225: 128, 4900: 256}
    return {int(patches): int(queries) for patches, queries in stored.items()}
