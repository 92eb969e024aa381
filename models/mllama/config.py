"""Mllama's numbers, read from a checkpoint folder in any of the dialects its files were written in.

Sources: config.json of meta-llama/Llama-3.2-{11B,90B}-Vision and what newer writers make of it; missing fields take
the defaults of the reference implementation. Imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import Fields, stored_images
from models.config import ConfigFiles, DecoderConfig, FamilyConfig, read_decoder, rope_fields
from models.types import ImageSettings, ImageSettingsError

BILINEAR = 2  # Pillow's number
DECODER_TYPES = ("mllama_text_model",)
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
class TextConfig(DecoderConfig):
    """The decoder. `num_hidden_layers` counts its cross-attention layers, which stand among the others."""

    cross_attention_layers: tuple[int, ...]
    rope_scaling: RopeScaling | None


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
class MllamaConfig(FamilyConfig):
    """A whole Mllama, or its decoder alone (`vision` is None), which then has no cross-attention layers either."""

    text: TextConfig
    vision: VisionConfig | None
    image_token_index: int
    bos_token_id: int


@dataclass(frozen=True)
class MllamaImages:
    """How a picture becomes tiles (models/mllama/processor.py) and tiles become numbers (models/mllama/model.py)."""

    tile_size: int
    max_image_tiles: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_config(folder: Path, *, text_only: bool = False) -> MllamaConfig:
    """Read a checkpoint's configuration; with `text_only` leave out what only images need.

    Raises:
        CheckpointError: A file or a field that has no default is missing, or a field is of no use here.
    """
    files = ConfigFiles(folder, DECODER_TYPES)
    text = _read_text(files.text)
    return MllamaConfig(
        text=text,
        vision=None if files.is_decoder or text_only else _read_vision(files.whole.section("vision_config")),
        eos_token_ids=files.token_ids("eos_token_id", default=128001),
        dtype=files.dtype(),
        is_tied=files.is_tied(),
        image_token_index=files.whole.integer("image_token_id", "image_token_index", default=128256),
        bos_token_id=files.token_id("bos_token_id", default=128000),
    )


def read_images(folder: Path, config: VisionConfig, settings: ImageSettings) -> MllamaImages:
    """Read the image settings: the run's own before processor_config.json before preprocessor_config.json.

    Raises:
        CheckpointError: Neither file is there, or they do not suit the vision encoder.
        ImageSettingsError: The run's do not suit it.
    """
    stored = stored_images(folder, resample=BILINEAR)
    size = stored.section("size", default={})
    for side in ("height", "width"):
        size.expect(side, config.image_size)
    tiles, limit = stored.integer("max_image_tiles", default=config.max_num_tiles, least=1), config.max_num_tiles
    if tiles > limit:
        raise stored.fault("max_image_tiles", expected=f"1 to {limit}, the vision encoder's limit")
    own = settings.max_image_tiles
    if own is not None and not 1 <= own <= limit:
        raise ImageSettingsError(f"max_image_tiles: found {own}, expected 1 to {limit}, the checkpoint's limit")
    return MllamaImages(
        tile_size=config.image_size,
        max_image_tiles=tiles if own is None else own,
        mean=stored.channels("image_mean"),
        std=stored.channels("image_std"),
    )


def _read_text(raw: Fields) -> TextConfig:
    decoder = read_decoder(
        raw,
        vocab_size=128256,
        rope_theta=5e5,
        max_position_embeddings=131072,
        num_hidden_layers=40,
        num_key_value_heads=8,
    )
    layers = decoder.num_hidden_layers
    cross = raw.places("cross_attention_layers", default=tuple(range(3, min(layers, 40), 5)), count=layers)
    return TextConfig(
        **vars(decoder),
        cross_attention_layers=tuple(sorted(cross)),
        rope_scaling=_read_scaling(rope_fields(raw), decoder.max_position_embeddings),
    )


def _read_scaling(rope: Fields, max_position_embeddings: int) -> RopeScaling | None:
    kind = rope.word("rope_type", "type", default="default")
    if kind == "default":
        return None
    if kind != "llama3":
        raise rope.fault("rope_type", "type", expected="`llama3` or `default`, the rope types that Mllama has")
    return RopeScaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_max_position_embeddings=rope.integer(
            "original_max_position_embeddings", default=max_position_embeddings, least=1
        ),
    )


def _read_vision(raw: Fields) -> VisionConfig:
    raw.expect("hidden_act", "gelu")
    tiles = raw.integer("max_num_tiles", default=4, least=1)
    layers = raw.integer("num_hidden_layers", default=32)
    config = VisionConfig(
        hidden_size=raw.integer("hidden_size", default=1280),
        intermediate_size=raw.integer("intermediate_size", default=5120),
        num_hidden_layers=layers,
        num_global_layers=raw.integer("num_global_layers", default=8),
        num_attention_heads=raw.integer("num_attention_heads", "attention_heads", default=16, least=1),
        image_size=raw.integer("image_size", default=448, least=1),
        patch_size=raw.integer("patch_size", default=14, least=1),
        norm_eps=raw.number("norm_eps", default=1e-5),
        max_num_tiles=tiles,
        aspect_ratios=_read_grids(raw, tiles),
        intermediate_layers=raw.places("intermediate_layers_indices", default=(3, 7, 15, 23, 30), count=layers),
    )
    if raw.integer("vision_output_dim", default=config.output_size) != config.output_size:
        made = f"{config.output_size}, which hidden_size and intermediate_layers_indices make it"
        raise raw.fault("vision_output_dim", expected=made)
    return config


def _read_grids(raw: Fields, max_tiles: int) -> tuple[tuple[int, int], ...]:
    known = aspect_ratios(max_tiles)
    stored = raw.get("supported_aspect_ratios")
    if stored is None:
        return known
    listed = [grid for one in stored for grid in known if list(grid) == one] if isinstance(stored, list) else []
    if not listed or len(listed) != len(stored):
        expected = f"[rows, columns] of grids of at most max_num_tiles, {max_tiles}"
        raise raw.fault("supported_aspect_ratios", expected=expected)
    return tuple(listed)


def aspect_ratios(max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return the (rows, columns) of every grid of at most `max_tiles` tiles, in the order of their ids."""
    sides = range(1, max_tiles + 1)
    return tuple((rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles)
