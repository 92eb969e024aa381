"""Aria's numbers, read from a checkpoint folder in any of the dialects its files were written in.

Sources: config.json of rhymes-ai/Aria (native layout) and of its older sisters (remote-code layout), whose
names differ; missing fields take the defaults of the reference implementation. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import Fields, config_fields, first, generation_fields, read_dtype, stored_images
from models.types import ImageSettings

BICUBIC = 3  # Pillow's number
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
    raw, generation = config_fields(folder), generation_fields(folder)
    is_decoder = raw.get("model_type") in TEXT_ONLY
    text = raw if is_decoder else raw.section("text_config")
    return AriaConfig(
        text=_read_text(text),
        vision=None if is_decoder or text_only else _read_vision(raw),
        patch_to_query=_read_queries(raw),
        # A decoder alone has no image token: its id is text like any other.
        image_token_index=-1 if is_decoder else raw.integer("image_token_index", "image_token_id", default=9),
        eos_token_ids=first("eos_token_id", generation, raw, text).ids("eos_token_id", default=2),
        dtype=read_dtype(raw, text),
    )


def read_images(folder: Path, settings: ImageSettings) -> AriaImages:
    """Read the image settings: the run's own before preprocessor_config.json before processor_config.json.

    Raises:
        CheckpointError: Neither file is there, or they ask for what Aria does not do.
    """
    stored = stored_images(folder, resample=BICUBIC)
    size = stored.integer("max_image_size", default=980, least=1)
    is_split = stored.flag("split_image", default=False)
    return AriaImages(
        max_image_size=size if settings.max_image_size is None else settings.max_image_size,
        min_image_size=stored.integer("min_image_size", default=336),
        split_image=is_split if settings.split_image is None else settings.split_image,
        mean=stored.channels("image_mean", default=(0.5, 0.5, 0.5)),
        std=stored.channels("image_std", default=(0.5, 0.5, 0.5)),
    )


def _read_text(raw: Fields) -> TextConfig:
    raw.expect("hidden_act", "silu")
    raw.expect("attention_bias", False)
    raw.expect("mlp_bias", False)
    heads = raw.integer("num_attention_heads", default=32, least=1)
    hidden = raw.integer("hidden_size", default=4096)
    return TextConfig(
        vocab_size=raw.integer("vocab_size", default=32000),
        hidden_size=hidden,
        num_hidden_layers=raw.integer("num_hidden_layers", default=32),
        num_attention_heads=heads,
        num_key_value_heads=raw.integer("num_key_value_heads", default=heads, least=1),
        head_dim=raw.integer("head_dim", default=hidden // heads, least=1),
        # The remote-code sisters carry an unused dense width in `intermediate_size`.
        intermediate_size=raw.integer("moe_intermediate_size", "intermediate_size", default=4096),
        moe_num_experts=raw.integer("moe_num_experts", default=8),
        moe_topk=raw.integer("moe_topk", default=2),
        moe_num_shared_experts=raw.integer("moe_num_shared_experts", default=2),
        rope_theta=_read_theta(raw),
        rms_norm_eps=raw.number("rms_norm_eps", default=1e-6),
        max_position_embeddings=raw.integer("max_position_embeddings", default=2048),
    )


def _read_theta(raw: Fields) -> float:
    scaling = raw.section("rope_parameters", "rope_scaling", default={})
    if scaling.word("rope_type", "type", default="default") != "default":
        raise scaling.fault("rope_type", "type", expected="`default`, the one rope type that Aria has")
    return first("rope_theta", scaling, raw).number("rope_theta", default=10000.0)


def _read_vision(raw: Fields) -> VisionConfig:
    vision = raw.section("vision_config")
    layer = raw.get("vision_feature_layer")
    if layer is not None and not isinstance(layer, int):
        raise raw.fault("vision_feature_layer", expected="one integer")
    vision.expect("hidden_act", "gelu_pytorch_tanh")
    return VisionConfig(
        hidden_size=vision.integer("hidden_size", default=1152),
        intermediate_size=vision.integer("intermediate_size", default=4304),
        num_hidden_layers=vision.integer("num_hidden_layers", default=27),
        num_attention_heads=vision.integer("num_attention_heads", "attention_heads", default=16, least=1),
        image_size=vision.integer("image_size", default=980, least=1),
        patch_size=vision.integer("patch_size", default=14, least=1),
        layer_norm_eps=vision.number("layer_norm_eps", default=1e-6),
        feature_layer=-1 if layer is None else layer,
    )


def _read_queries(raw: Fields) -> dict[int, int]:
    stored = raw.section("projector_patch_to_query_dict", default={"1225": 128, "4900": 256})
    if not all(patches.isdecimal() for patches in stored.names):
        raise raw.fault("projector_patch_to_query_dict", expected="numbers of patches as keys")
    return {int(patches): stored.integer(patches) for patches in stored.names}
