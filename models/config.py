"""What the config files of all families say alike: the decoder's numbers, token ids, the dtype. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path

from models.checkpoint import Fields, first, read_fields
from models.types import CheckpointError

# What models are computed in, and what weights may be saved in beside these: float64 is computed in float32.
COMPUTED = ("float32", "bfloat16", "float16")
DTYPES = (*COMPUTED, "float64")


@dataclass(frozen=True)
class DecoderConfig:
    """The numbers of a Llama-like decoder.

    Attributes:
        intermediate_size: The inner width of an MLP, or of one expert.
        qkv_bias: Whether queries, keys and values have a bias.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    max_position_embeddings: int
    qkv_bias: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class FamilyConfig:
    """What every family's configuration has.

    Attributes:
        text: The decoder's numbers.
        vision: The vision encoder's; None for a decoder alone and where only text is wanted.
        eos_token_ids: Ids that end an answer.
        dtype: What the weights were saved in, by torch's name; None where the files do not say.
        is_tied: Whether the embeddings are the head too, where only one of them is stored.
    """

    text: DecoderConfig
    vision: object | None
    eos_token_ids: frozenset[int]
    dtype: str | None
    is_tied: bool = field(default=False, kw_only=True)


class ConfigFiles:
    """config.json and generation_config.json of a checkpoint.

    Attributes:
        whole: config.json.
        text: The decoder's section of it, or all of it for a decoder alone.
        is_decoder: Whether the checkpoint is a decoder alone.
    """

    def __init__(self, folder: Path, decoder_types: tuple[str, ...]) -> None:
        """Read both; the second may be absent.

        Args:
            folder: The checkpoint.
            decoder_types: The `model_type` of a decoder alone, in each dialect.

        Raises:
            CheckpointError: config.json is not there, or has no section for the decoder.
        """
        whole = read_fields(folder, "config.json")
        if whole is None:
            raise CheckpointError(f"no checkpoint: {folder / 'config.json'} does not exist")
        self.whole = whole
        self.is_decoder = whole.get("model_type") in decoder_types
        self.text = whole if self.is_decoder else whole.section("text_config")
        name = "generation_config.json"
        self._generation = read_fields(folder, name) or Fields(folder / name, {})

    def token_id(self, name: str, default: int) -> int:
        """Return the id of a special token, such as `bos_token_id`."""
        return self._source(name).integer(name, default=default)

    def token_ids(self, name: str, default: int) -> frozenset[int]:
        """Return the ids of a special token that may have several, such as `eos_token_id`."""
        return self._source(name).ids(name, default=default)

    def dtype(self) -> str | None:
        """Return the type that the weights were saved in, by torch's name; None where config.json does not say.

        As the reference: `dtype` goes before the older `torch_dtype`, of several for parts of the model the one for the
        whole counts, and what a section says of itself does not. `auto` stands for what the weights are.

        Raises:
            CheckpointError: It is a type that no weights are computed in.
        """
        names = ("dtype", "torch_dtype")
        found = self.whole.get(*names)
        if isinstance(found, dict):
            found = found.get("", "float32")
        if found in (None, "auto"):
            return None
        name = found.removeprefix("torch.") if isinstance(found, str) else None
        if name not in DTYPES:
            raise self.whole.fault(*names, expected=f"one of {', '.join(DTYPES)}")
        return name

    def is_tied(self) -> bool:
        """Say whether the embeddings are the head too, where only one of them is stored.

        Older writers say so of the decoder, newer ones of the whole. Of Mllama the reference has not tied the two since
        5.0, and fills a head that is not stored with chance.
        """
        return any(part.flag("tie_word_embeddings", default=False) for part in (self.whole, self.text))

    def _source(self, name: str) -> Fields:
        return first(name, self._generation, self.whole, self.text)


def read_decoder(
    raw: Fields,
    *,
    vocab_size: int,
    rope_theta: float,
    max_position_embeddings: int,
    num_hidden_layers: int = 32,
    num_key_value_heads: int | None = None,
    rms_norm_eps: float = 1e-5,
    intermediate_size: int = 14336,
    intermediate_names: tuple[str, ...] = ("intermediate_size",),
) -> DecoderConfig:
    """Read the decoder's section of config.json; the arguments are the reference's defaults for missing fields."""
    raw.expect("hidden_act", "silu")
    heads = raw.integer("num_attention_heads", default=32, least=1)
    hidden = raw.integer("hidden_size", default=4096)
    return DecoderConfig(
        vocab_size=raw.integer("vocab_size", default=vocab_size),
        hidden_size=hidden,
        intermediate_size=raw.integer(*intermediate_names, default=intermediate_size),
        num_hidden_layers=raw.integer("num_hidden_layers", default=num_hidden_layers),
        num_attention_heads=heads,
        num_key_value_heads=raw.integer("num_key_value_heads", default=num_key_value_heads or heads, least=1),
        head_dim=raw.integer("head_dim", default=hidden // heads, least=1),
        rope_theta=first("rope_theta", rope_fields(raw), raw).number("rope_theta", default=rope_theta),
        rms_norm_eps=raw.number("rms_norm_eps", default=rms_norm_eps),
        max_position_embeddings=raw.integer("max_position_embeddings", default=max_position_embeddings),
    )


def rope_fields(raw: Fields) -> Fields:
    """Return the section of a decoder's rotary positions, which may be absent.

    Where both of its names are there, the older one goes first, as in the reference.
    """
    name = next((name for name in ("rope_scaling", "rope_parameters") if raw.get(name)), "rope_parameters")
    return raw.section(name, default={})


def check_plain_decoder(raw: Fields, family: str) -> None:
    """Refuse biases and stretched rotary positions, which the decoders of most families do not have."""
    raw.expect("attention_bias", False)
    raw.expect("mlp_bias", False)
    rope = rope_fields(raw)
    if rope.word("rope_type", "type", default="default") != "default":
        raise rope.fault("rope_type", "type", expected=f"`default`, the one rope type that {family} has")
