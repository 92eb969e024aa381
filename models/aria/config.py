"""Aria's numbers, read from a checkpoint folder in any of the dialects its files were written in.

Sources: config.json of rhymes-ai/Aria (native layout) and of its older sisters (remote-code layout), whose
names differ; missing fields take the defaults of the reference implementation. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import Fields, stored_images
from models.config import ConfigFiles, DecoderConfig, FamilyConfig, check_plain_decoder, read_decoder
from models.types import ImageSettings

BICUBIC = 3  # Pillow's number
DECODER_TYPES = ("aria_text", "aria_moe_lm")


@dataclass(frozen=True)
class TextConfig(DecoderConfig):
    """The mixture-of-experts decoder."""

    moe_num_experts: int
    moe_topk: int
    moe_num_shared_experts: int


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
class AriaConfig(FamilyConfig):
    """A whole Aria, or its decoder alone."""

    text: TextConfig
    vision: VisionConfig | None
    patch_to_query: Mapping[int, int]
    image_token_index: int


@dataclass(frozen=True)
class AriaImages:
    """How a picture becomes tiles (models/aria/processor.py) and tiles become numbers (models/aria/model.py)."""

    max_image_size: int
    min_image_size: int
    split_image: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_config(folder: Path, *, text_only: bool = False) -> AriaConfig:
    """Read a checkpoint's configuration; with `text_only` leave out what only images need.

    Raises:
        CheckpointError: A file or a field that has no default is missing, or a field is of no use here.
    """
    files = ConfigFiles(folder, DECODER_TYPES)
    whole, is_decoder = files.whole, files.is_decoder
    return AriaConfig(
        text=_read_text(files.text),
        vision=None if is_decoder or text_only else _read_vision(whole),
        eos_token_ids=files.token_ids("eos_token_id", default=2),
        dtype=files.dtype(),
        is_tied=files.is_tied(),
        patch_to_query=_read_queries(whole),
        # A decoder alone has no image token: its id is text like any other.
        image_token_index=-1 if is_decoder else whole.integer("image_token_id", "image_token_index", default=9),
    )


def read_images(folder: Path, settings: ImageSettings) -> AriaImages:
    """Read the image settings: the run's own before processor_config.json before preprocessor_config.json.

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
    check_plain_decoder(raw, "Aria")
    decoder = read_decoder(
        raw,
        vocab_size=32000,
        rope_theta=10000.0,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        intermediate_size=4096,
        # The remote-code sisters carry an unused dense width in `intermediate_size`.
        intermediate_names=("moe_intermediate_size", "intermediate_size"),
    )
    return TextConfig(
        **vars(decoder),
        moe_num_experts=raw.integer("moe_num_experts", default=8),
        moe_topk=raw.integer("moe_topk", default=2),
        moe_num_shared_experts=raw.integer("moe_num_shared_experts", default=2),
    )


def _read_vision(raw: Fields) -> VisionConfig:
    vision = raw.section("vision_config")
    layer = raw.get("vision_feature_layer")
    if layer is not None and not isinstance(layer, int):
        raise raw.fault("vision_feature_layer", expected="one integer")
    vision.expect("hidden_act", "gelu_pytorch_tanh")
    return VisionConfig(
        hidden_size=vision.integer("hidden_size", default=1152),
        intermediate_size=vision.integer("intermediate_size", default=3072),
        num_hidden_layers=vision.integer("num_hidden_layers", default=12),
        num_attention_heads=vision.integer("num_attention_heads", "attention_heads", default=16, least=1),
        image_size=vision.integer("image_size", default=224, least=1),
        patch_size=vision.integer("patch_size", default=32, least=1),
        layer_norm_eps=vision.number("layer_norm_eps", default=1e-6),
        feature_layer=-1 if layer is None else layer,
    )


def _read_queries(raw: Fields) -> dict[int, int]:
    stored = raw.section("projector_patch_to_query_dict", default={"1225": 128, "4900": 256})
    if not all(patches.isdecimal() for patches in stored.names):
        raise raw.fault("projector_patch_to_query_dict", expected="numbers of patches as keys")
    return {int(patches): stored.integer(patches) for patches in stored.names}
