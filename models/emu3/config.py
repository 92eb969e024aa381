"""Emu3's numbers, read from a checkpoint folder in any dialect of its files.

Sources: config.json of BAAI/Emu3-{Chat,Gen}-hf and what newer writers make of it; missing fields take the defaults of
the reference implementation, ids of tokens have none. Imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import Fields, stored_images
from models.config import ConfigFiles, FamilyConfig, check_plain_decoder, read_decoder
from models.emu3.vocabulary import Vocabulary, read_vocabulary
from models.types import ImageSettings, ImageSettingsError

BICUBIC = 3  # Pillow's number
DECODER_TYPES = ("emu3_text_model",)
# The reference refuses pictures whose longer side is more than so many times the shorter.
MAX_ASPECT = 200
# A group norm of the VQ-VAE splits its channels into so many.
NUM_GROUPS = 32


@dataclass(frozen=True)
class VqConfig:
    """The VQ-VAE between pictures and codes.

    Attributes:
        channel_multiplier: Channels of each level, in `base_channels`; level 0 is the full resolution.
        attn_resolutions: Levels (not resolutions) whose blocks are followed by attention.
        hidden_size: Width of every attention.
    """

    codebook_size: int
    embed_dim: int
    latent_channels: int
    in_channels: int
    out_channels: int
    temporal_downsample_factor: int
    base_channels: int
    channel_multiplier: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    hidden_size: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.base_channels * multiplier for multiplier in self.channel_multiplier)

    @property
    def spatial_factor(self) -> int:
        """Pixels along each side of a code."""
        return int(2 ** (len(self.channel_multiplier) - 1))


@dataclass(frozen=True)
class Emu3Config(FamilyConfig):
    """A whole Emu3, or its decoder alone, which has no picture tokens either.

    Attributes:
        vision: The VQ-VAE; None for a decoder alone and where only text is wanted.
        vocabulary: None for a decoder alone.
    """

    vision: VqConfig | None
    vocabulary: Vocabulary | None
    bos_token_id: int
    pad_token_id: int


@dataclass(frozen=True)
class Emu3Images:
    """How a picture becomes a tile (models/emu3/processor.py) and a tile becomes numbers (models/emu3/model.py).

    Attributes:
        spatial_factor: Both sides of a tile are multiples of it.
        pad_to_ratio: Pictures longer or higher than that, side to side, get black edges; None leaves them as they are.
    """

    min_pixels: int
    max_pixels: int
    spatial_factor: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad_to_ratio: int | None = None


def read_config(folder: Path, *, text_only: bool = False) -> Emu3Config:
    """Read a checkpoint's configuration; with `text_only` leave out what only pictures need.

    Raises:
        CheckpointError: A file, a token or a field that has no default is missing, or a field is of no use here.
    """
    files = ConfigFiles(folder, DECODER_TYPES)
    check_plain_decoder(files.text, "Emu3")
    text = read_decoder(
        files.text, vocab_size=184622, rope_theta=1e6, max_position_embeddings=9216, num_key_value_heads=8
    )
    vision = None if files.is_decoder or text_only else _read_vq(files.whole.section("vq_config"))
    codes = None if vision is None else vision.codebook_size
    return Emu3Config(
        text=text,
        vision=vision,
        eos_token_ids=files.token_ids("eos_token_id", default=151850),
        dtype=files.dtype(),
        is_tied=files.is_tied(),
        vocabulary=None if files.is_decoder else read_vocabulary(folder, files.whole, text.vocab_size, codes),
        bos_token_id=files.token_id("bos_token_id", default=151849),
        pad_token_id=files.token_id("pad_token_id", default=151643),
    )


def read_images(folder: Path, settings: ImageSettings) -> Emu3Images:
    """Read the image settings: the run's own before processor_config.json before preprocessor_config.json.

    Raises:
        CheckpointError: Neither file is there, or they ask for what Emu3 does not do.
        ImageSettingsError: The run's own are of no use.
    """
    stored = stored_images(folder, resample=BICUBIC)
    least, most = _read_area(stored, settings)
    return Emu3Images(
        min_pixels=least,
        max_pixels=most,
        spatial_factor=stored.integer("spatial_factor", default=8, least=1),
        # The released files hold BAAI's; the reference's defaults are another model's.
        mean=stored.channels("image_mean"),
        std=stored.channels("image_std"),
        pad_to_ratio=_checked_ratio(settings.pad_to_ratio),
    )


def _checked_ratio(ratio: int | None) -> int | None:
    if ratio is not None and not 1 <= ratio <= MAX_ASPECT:
        raise ImageSettingsError(f"pad_to_ratio: found {ratio}, expected 1 to {MAX_ASPECT}")
    return ratio


def _read_area(stored: Fields, settings: ImageSettings) -> tuple[int, int]:
    """Return the least and the most pixels of a picture, the run's before the checkpoint's."""
    least = stored.integer("min_pixels", default=512 * 512, least=1)
    most = stored.integer("max_pixels", default=1024 * 1024, least=1)
    if most < least:
        raise stored.fault("max_pixels", expected=f"at least min_pixels, {least}")
    areas = {"min_pixels": settings.min_pixels, "max_pixels": settings.max_pixels}
    faults = [
        f"{name}: found {area}, expected 1 or more" for name, area in areas.items() if area is not None and area < 1
    ]
    if faults:
        raise ImageSettingsError(*faults)
    low = least if settings.min_pixels is None else settings.min_pixels
    high = most if settings.max_pixels is None else settings.max_pixels
    if high < low and settings.max_pixels is None:
        raise ImageSettingsError(f"min_pixels: found {low}, expected at most max_pixels, {high}, the checkpoint's")
    if high < low:
        whose = ", the checkpoint's" if settings.min_pixels is None else ""
        raise ImageSettingsError(f"max_pixels: found {high}, expected at least min_pixels, {low}{whose}")
    return low, high


def _read_vq(raw: Fields) -> VqConfig:
    raw.expect("double_latent", False)
    raw.expect("num_attention_heads", 1)
    raw.expect("in_channels", 3)
    raw.expect("out_channels", 3)
    multiplier = _read_multiplier(raw)
    embed_dim = raw.integer("embed_dim", default=4, least=1)
    config = VqConfig(
        codebook_size=raw.integer("codebook_size", default=32768, least=1),
        embed_dim=embed_dim,
        latent_channels=raw.integer("latent_channels", default=4, least=1),
        in_channels=3,
        out_channels=3,
        temporal_downsample_factor=raw.integer("temporal_downsample_factor", default=4, least=1),
        base_channels=raw.integer("base_channels", default=256, least=1),
        channel_multiplier=multiplier,
        num_res_blocks=raw.integer("num_res_blocks", default=2, least=1),
        # A level that is not there has no attention; small checkpoints keep the default, 3, with fewer levels.
        attn_resolutions=tuple(
            sorted(level for level in raw.ids("attn_resolutions", default=3) if 0 <= level < len(multiplier))
        ),
        hidden_size=raw.integer("hidden_size", default=1024, least=1),
    )
    _check_vq(raw, config)
    return config


def _read_multiplier(raw: Fields) -> tuple[int, ...]:
    stored = raw.get("channel_multiplier")
    if stored is None:
        return (1, 2, 2, 4)
    if not isinstance(stored, list) or not stored or not all(type(one) is int and one > 0 for one in stored):
        raise raw.fault("channel_multiplier", expected="a list of whole numbers from 1 on")
    return tuple(stored)


def _check_vq(raw: Fields, config: VqConfig) -> None:
    """Refuse numbers that do not fit together."""
    if config.latent_channels != config.embed_dim:
        # The decoder runs both through the same temporal layers.
        raise raw.fault("latent_channels", expected=f"{config.embed_dim}, as embed_dim")
    factor = config.temporal_downsample_factor
    if factor & (factor - 1):
        raise raw.fault("temporal_downsample_factor", expected="a power of two")
    if config.base_channels % NUM_GROUPS:
        raise raw.fault("base_channels", expected=f"a multiple of {NUM_GROUPS}")
    attended = {config.channels[level] for level in (*config.attn_resolutions, -1)}
    if attended != {config.hidden_size}:
        found = ", ".join(map(str, sorted(attended)))
        raise raw.fault("hidden_size", expected=f"the channels of the levels with attention and of the last: {found}")
