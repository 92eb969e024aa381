"""The decoder that all families build on: a Llama's layers, run through the engine's cache.

A family chooses what its layers' second half is (a SwiGLU, a mixture of experts) and may put layers of its own between
them. Layers may lie on several devices; what passes from one to the next moves along.

Shapes: B sequences, T tokens, A axes of positions, D model width, H query heads, K key heads, C head width,
V vocabulary.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.batch_invariant import Joined, Linear, Product, product
from models.cache.slots import CacheShape, CacheView
from models.config import DecoderConfig, FamilyConfig
from models.layers import RMSNorm, Rotation, attend, gated
from models.types import BadRequest, ImageSettings, ModelInput
from models.weights import ParameterSlice, Tables


class Projections(nn.Module):
    """The four matrices of an attention with grouped key heads; `index` is the layer's own in what it attends to."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        D, C = config.hidden_size, config.head_dim
        self.head_dim = C
        self.index = index
        self.q_proj = Linear(D, config.num_attention_heads * C, bias=config.qkv_bias, few_rows=True)
        self.k_proj = Linear(D, config.num_key_value_heads * C, bias=config.qkv_bias, few_rows=True)
        self.v_proj = Linear(D, config.num_key_value_heads * C, bias=config.qkv_bias, few_rows=True)
        self.o_proj = Linear(config.num_attention_heads * C, D, bias=False, few_rows=True)


class Attention(Projections):
    """Causal self-attention with rotary positions and grouped key heads."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__(config, index)
        self._num_keys = config.num_key_value_heads
        self._qkv = Joined(self.q_proj, self.k_proj, self.v_proj)

    def repack_weights(self) -> None:
        """Lay the three matrices that see the input out as one."""
        self._qkv.repack_weights()

    def forward(self, x: Tensor, rotate: Rotation, cache_view: CacheView | None) -> Tensor:
        """Return (B, T, D); without a view the tokens see each other alone, causally."""
        new, K = _heads(self._qkv(x), self.head_dim), self._num_keys  # (B, H + 2 * K, T, C)
        if cache_view is not None:
            return self.o_proj(cache_view.attend_new(self.index, new, K, rotate))
        rotated = rotate(new[:, :-K])
        return self.o_proj(attend(rotated[:, :-K], rotated[:, -K:], new[:, -K:], None))


class SwiGLU(nn.Module):
    """Two matrices up, one of them a gate, and one down."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, inner, bias=False)
        self.up_proj = Linear(width, inner, bias=False)
        self.down_proj = Linear(inner, width, bias=False, few_rows=True)
        self._gate_up = Joined(self.gate_proj, self.up_proj)

    def repack_weights(self) -> None:
        """Lay both matrices up out as one."""
        self._gate_up.repack_weights()

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, D)."""
        return self.down_proj(gated(self._gate_up(x)))

    def add_to(self, x: Tensor, normed: Tensor) -> Tensor:
        """See SecondHalf."""
        out: Tensor = x + self(normed)
        return out


class SecondHalf(Protocol):
    """A module that a layer has behind its attention."""

    def add_to(self, x: Tensor, normed: Tensor) -> Tensor:
        """Return x (B, T, D) with what it makes of x's norm added."""


class DecoderLayer(nn.Module):
    """Pre-norm attention, then whatever the family has as `mlp`."""

    def __init__(self, config: DecoderConfig, index: int, mlp: SecondHalf) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = mlp

    def forward(self, x: Tensor, rotate: Rotation, cache_view: CacheView | None) -> Tensor:
        """Return (B, T, D)."""
        seen = self.self_attn(self.input_layernorm(x), rotate, cache_view)
        x, normed = self.post_attention_layernorm.after(x, seen)
        return self.mlp.add_to(x, normed)


class TextModel(nn.Module):
    """Embeddings, layers, norm. Layers are named by their place among all, which may have gaps."""

    def __init__(self, config: DecoderConfig, layers: Mapping[int, nn.Module], num_embeddings: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(num_embeddings, config.hidden_size)
        self.layers = nn.ModuleDict({str(place): layer for place, layer in layers.items()})
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """The decoder and its head, which has its own weights even where they are equal to the embeddings."""

    def __init__(
        self, config: DecoderConfig, layers: Mapping[int, nn.Module], frequencies: Tensor, num_embeddings: int
    ) -> None:
        """Put a decoder together.

        Args:
            config: Its numbers.
            layers: By place; each is called with (x, rotate, cache_view), begins with an `input_layernorm` and lies on
                one device.
            frequencies: Of the rotary positions, float32 (C/2,), or (A, C/2); see Rotation.
            num_embeddings: Rows of the embedding table; some families have more than their vocabulary.
        """
        super().__init__()
        self._config = config
        self._frequencies = frequencies
        self.model = TextModel(config, layers, num_embeddings)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False, few_rows=True)

    @property
    def cache_shape(self) -> CacheShape:
        """What one token leaves in the cache: nothing for layers that do not attend to their own sequence."""
        config = self._config
        devices = [_device(layer) for layer in self.model.layers.values() if isinstance(layer, DecoderLayer)]
        dtype = self.model.embed_tokens.weight.dtype
        return CacheShape(tuple(devices), config.num_key_value_heads, config.head_dim, dtype)

    def forward(self, embeddings: Tensor, cache_view: CacheView | None) -> Tensor:
        """Run (B, T, D) through the layers; return hidden states (B, T, D).

        Without a view nothing is cached and the tokens see each other alone, causally (as in training).
        """
        B, T, _ = embeddings.shape
        positions = (
            torch.arange(T, device=embeddings.device)[:, None].expand(B, T, 1)
            if cache_view is None
            else cache_view.positions
        )
        # Brought to the device once: a copy in each step would make the host wait, and could be captured in no graph.
        self._frequencies = self._frequencies.to(positions.device)
        rotate = Rotation(positions, self._frequencies, embeddings.dtype)
        x = embeddings
        for layer in self.model.layers.values():
            device = _device(layer)
            if device != x.device:
                x, rotate, cache_view = (
                    x.to(device),
                    rotate.to(device),
                    None if cache_view is None else cache_view.to(device),
                )
            x = layer(x, rotate, cache_view)
        out: Tensor = self.model.norm(x.to(self.model.norm.weight.device))
        return out


class FamilyModel(nn.Module):
    """What every family's model shares: where stored tensors belong, and what the engine asks of the decoder.

    See models.engine.Decoder for the latter.

    Attributes:
        DECODER: What the checkpoint's files call the decoder.
        VISION: What they call the parts that only images need.
        ALIASES: What other writers call parts of a family's own, as patterns, and what the original files call them.
            They apply in order.
        UNUSED: The pattern of stored names that nothing here needs.
        FLOAT32: Names of parts that are computed in float32 whatever the rest is.
        config: The family's numbers.
    """

    DECODER: ClassVar[str] = "language_model"
    VISION: ClassVar[tuple[str, ...]] = ()
    ALIASES: ClassVar[tuple[tuple[str, str], ...]] = ()
    UNUSED: ClassVar[str] = r"\.inv_freq$"
    FLOAT32: ClassVar[tuple[str, ...]] = ()
    config: FamilyConfig

    def __init__(self) -> None:
        super().__init__()
        self._head_rows: dict[range, Product] = {}

    def parameter_slice(self, stored: str) -> ParameterSlice | None:
        """Return where a stored tensor belongs; None for one that is not used."""
        decoder, vision = self.DECODER, "|".join(self.VISION)
        aliases = (
            (rf"^model\.{decoder}\.", f"{decoder}.model."),
            (r"^lm_head\.", f"{decoder}.lm_head."),
            (rf"^model\.({vision})\.", r"\1."),
            (r"^model\.(embed_tokens|layers|norm)\.", rf"{decoder}.model.\1."),
            *self.ALIASES,
        )
        name = stored
        for pattern, written in aliases:
            name = re.sub(pattern, written, name)
        is_absent = self.config.vision is None and name.split(".")[0] in self.VISION
        return None if is_absent or re.search(self.UNUSED, name) else ParameterSlice(name)

    @property
    def tables(self) -> Tables:
        """Which of its parameters have a row for each token."""
        text, decoder = self.config.text, self.DECODER
        names = f"{decoder}.model.embed_tokens.weight", f"{decoder}.lm_head.weight"
        return Tables(*names, least=text.vocab_size, is_tied=self.config.is_tied)

    @property
    def decoder(self) -> LanguageModel:
        """The decoder with its embeddings and head."""
        found = self.get_submodule(self.DECODER)
        assert isinstance(found, LanguageModel)
        return found

    @property
    def device(self) -> torch.device:
        """Where its input goes; further layers may lie elsewhere."""
        return self.decoder.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.decoder.model.embed_tokens.weight.dtype

    @property
    def cache_shape(self) -> CacheShape:
        """What one token leaves in the cache."""
        return self.decoder.cache_shape

    @property
    def max_position_embeddings(self) -> int:
        """The longest sequence the model was made for."""
        return self.config.text.max_position_embeddings

    def memory_values(self, folder: Path, images: ImageSettings) -> int:
        """Return how many values cross-attention layers keep of an image at most; none where it stands in the text.

        Args:
            folder: The checkpoint.
            images: Image settings that go before its own.
        """
        return 0

    def rehearse(self, max_length: int, *, is_drawing: bool) -> Sequence[Tensor]:
        """Do the most with pictures that is ever done at once; return what a sequence keeps of one beside the cache.

        Args:
            max_length: The longest sequence.
            is_drawing: Whether pictures are drawn, and none are looked at.
        """
        return ()

    def check_ids(self, inputs: Sequence[ModelInput]) -> None:
        """Check that every token has its rows in the tables: on a GPU a missing one ends the process.

        With this a family's `prompt` begins.

        Raises:
            BadRequest: One has not; its id and how many rows there are are named.
        """
        decoder = self.decoder
        read, written = len(decoder.model.embed_tokens.weight), decoder.lm_head.shape[0]
        for one in inputs:
            prompts = [one.token_ids] if one.negative is None else [one.token_ids, one.negative]
            _check_ids(prompts, read, "the prompt", "embedding table")
            _check_ids(one.choices, written, "a choice", "head")

    def embed(self, token_ids: Tensor) -> Tensor:
        """Return the embeddings (…, D) of token ids."""
        out: Tensor = self.decoder.model.embed_tokens(token_ids)
        return out

    def decode(self, embeddings: Tensor, cache_view: CacheView | None = None) -> Tensor:
        """Run (B, T, D) through the decoder; return hidden states (B, T, D)."""
        out: Tensor = self.decoder(embeddings, cache_view)
        return out

    def logits(self, hidden: Tensor, choices: range | None = None) -> Tensor:
        """Return float32 scores of the next token: of all ids (…, V), or of those in a range alone."""
        head = self.decoder.lm_head
        hidden = hidden.to(head.weight.device)
        scores = head(hidden) if choices is None else self._rows_of_head(choices)(hidden)
        return scores.float()

    def _rows_of_head(self, choices: range) -> Product:
        """Return the head's rows for some ids; they are laid out once."""
        if choices not in self._head_rows:
            rows = self.decoder.lm_head.plain_weight()[choices.start : choices.stop]
            self._head_rows[choices] = product(rows.clone() if rows.device.type == "cpu" else rows)
        return self._head_rows[choices]


def _check_ids(several: Sequence[NDArray[np.int32]], rows: int, what: str, table: str) -> None:
    beyond = [int(ids.max()) for ids in several if len(ids) and ids.max() >= rows]
    if beyond:
        raise BadRequest(f"{what} has the token id {beyond[0]}, but the checkpoint's {table} has {rows} rows")


def _heads(x: Tensor, head_dim: int) -> Tensor:
    """Map (B, T, H * C) to (B, H, T, C)."""
    return x.view(*x.shape[:-1], -1, head_dim).transpose(1, 2)


def _device(layer: nn.Module) -> torch.device:
    # Not the first of its parameters: to walk through them takes as long as a norm.
    norm = layer.input_layernorm
    assert isinstance(norm, nn.Module) and isinstance(norm.weight, Tensor)
    return norm.weight.device
