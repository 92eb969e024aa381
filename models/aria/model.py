"""Aria on the device: tiles and token ids in, scores of the next token out.

Parameters carry the names of the checkpoint's files (`language_model.model.layers.0.…`), so loading needs only
the aliases at the bottom. `AriaModel` is what the engine drives; see models/engine/decoder.py.

Shapes: B sequences, T tokens, D model width, H query heads, K key heads, C head width, V vocabulary.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.aria.config import AriaConfig, AriaImages, TextConfig, read_config, read_images
from models.aria.moe import MixtureOfExperts
from models.aria.vision import Projector, VisionTower
from models.engine.cache import CacheShape, Window
from models.engine.decoder import Prompt
from models.layers import Linear, RMSNorm, Rotation, attend
from models.types import ImageSettings, ModelInput, Pixels
from models.weights import Place

# Patches encoded together: a few whole canvases of 70 x 70. More would fill the device with activations.
VISION_PATCHES = 20_000


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped key heads."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        D, C = config.hidden_size, config.head_dim
        self.head_dim = C
        self.q_proj = Linear(D, config.num_attention_heads * C, bias=False)
        self.k_proj = Linear(D, config.num_key_value_heads * C, bias=False)
        self.v_proj = Linear(D, config.num_key_value_heads * C, bias=False)
        self.o_proj = Linear(config.num_attention_heads * C, D, bias=False)

    def forward(self, x: Tensor, rotate: Rotation, layer: int, window: Window | None) -> Tensor:
        """Return (B, T, D); without a window the tokens see each other alone, causally."""
        q, k, v = (
            proj(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B, H or K, T, C)
        q, k = rotate(q), rotate(k)
        if window is not None:
            k, v = window.extend(layer, k, v)
        out: Tensor = self.o_proj(attend(q, k, v, None if window is None else window.mask))
        return out


class DecoderLayer(nn.Module):
    """Pre-norm attention and mixture of experts."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MixtureOfExperts(config)

    def forward(self, x: Tensor, rotate: Rotation, layer: int, window: Window | None) -> Tensor:
        """Return (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), rotate, layer, window)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class TextModel(nn.Module):
    """Embeddings, layers, norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """The decoder and its head; the head is never tied to the embeddings."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.model = TextModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)


class AriaModel(nn.Module):
    """The GPU half of Aria; without `vision` in the config, its decoder alone."""

    def __init__(self, config: AriaConfig, images: AriaImages | None) -> None:
        super().__init__()
        self.config = config
        if config.vision is not None and images is not None:
            self.vision_tower = VisionTower(config.vision)
            num_queries = max(config.patch_to_query.values())
            self.multi_modal_projector = Projector(config.vision, num_queries, config.text.hidden_size)
            self._levels = _normalised_levels(images)
        self.language_model = LanguageModel(config.text)

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.language_model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.language_model.lm_head.weight.dtype

    @property
    def cache_shape(self) -> CacheShape:
        """What one token leaves in the cache."""
        text = self.config.text
        return CacheShape(text.num_hidden_layers, text.num_key_value_heads, text.head_dim, self.dtype)

    @property
    def max_position_embeddings(self) -> int:
        """The longest sequence the model was made for."""
        return self.config.text.max_position_embeddings

    def prompt(self, inputs: Sequence[ModelInput]) -> list[Prompt]:
        """Bring inputs onto the device; each distinct tile among them is encoded once."""
        features = self._features([pair for i in inputs for pair in zip(i.tiles, i.layout, strict=True)])
        prompts, first = [], 0
        for model_input in inputs:
            ids = torch.from_numpy(np.array(model_input.token_ids)).long().to(self.device)
            embeddings = self.embed(ids)
            own = features[first : first + len(model_input.tiles)]
            first += len(own)
            if own:
                embeddings = embeddings.clone()
                embeddings[ids == self.config.image_token_index] = torch.cat(own)
            prompts.append(Prompt(embeddings))
        return prompts

    def encode(self, tiles: Sequence[Pixels], num_queries: int) -> Tensor:
        """Encode tiles of one size.

        Args:
            tiles: uint8 (height, width, 3) each.
            num_queries: Rows that a tile becomes.

        Returns:
            (N, num_queries, D).
        """
        out: Tensor = self.multi_modal_projector(self.vision_tower(self.normalise(tiles)), num_queries)
        return out

    def normalise(self, tiles: Sequence[Pixels]) -> Tensor:
        """Return (N, 3, height, width) as the reference computes it in float32, cast to the model's dtype."""
        pixels = torch.from_numpy(np.stack(tiles)).to(self.device).int()  # (N, height, width, 3)
        levels = self._levels.to(self.device)
        return torch.stack([levels[c][pixels[..., c]] for c in range(3)], dim=1).to(self.dtype)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Return the embeddings (…, D) of token ids."""
        out: Tensor = self.language_model.model.embed_tokens(token_ids)
        return out

    def decode(self, embeddings: Tensor, window: Window | None = None) -> Tensor:
        """Run (B, T, D) through the decoder; return hidden states (B, T, D).

        Without a window nothing is cached and the tokens see each other alone, causally (as in training).
        """
        B, T, _ = embeddings.shape
        positions = torch.arange(T, device=self.device).expand(B, T) if window is None else window.positions
        text = self.config.text
        rotate = Rotation(positions, text.head_dim, text.rope_theta, embeddings.dtype)
        x = embeddings
        for layer, block in enumerate(self.language_model.model.layers):
            x = block(x, rotate, layer, window)
        out: Tensor = self.language_model.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 scores (…, V) of the next token."""
        scores: Tensor = self.language_model.lm_head(hidden)
        return scores.float()

    def _features(self, tiles: Sequence[tuple[Pixels, int]]) -> list[Tensor]:
        """Return the rows (Q, D) of each tile, in order. Tiles of one size are encoded together, equal ones once."""
        names = [(hashlib.sha256(tile.tobytes()).digest(), tile.shape, queries) for tile, queries in tiles]
        distinct = dict(zip(names, tiles, strict=True))
        by_size = defaultdict(list)
        for name in distinct:
            by_size[name[1:]].append(name)
        features: dict[tuple[bytes, tuple[int, ...], int], Tensor] = {}
        for (shape, queries), group in by_size.items():
            patch = self.vision_tower.embeddings.patch_embedding.kernel_size[0]
            size = max(1, VISION_PATCHES // (shape[0] * shape[1] // patch**2))
            for i in range(0, len(group), size):
                some = group[i : i + size]
                encoded = self.encode([distinct[name][0] for name in some], queries)
                features.update(zip(some, encoded, strict=True))
        return [features[name] for name in names]


def empty_aria(folder: Path) -> AriaModel:
    """Build the model of a checkpoint folder on the `meta` device, to be filled by models.weights."""
    config = read_config(folder)
    # Which canvas a run asks for is the processor's business; the model needs mean and std alone.
    images = None if config.vision is None else read_images(folder, ImageSettings())
    with torch.device("meta"):
        return AriaModel(config, images)


# What the names of other writers begin with, and what the original files call it. In order; several may apply.
_ALIASES = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
    (r"^model\.(embed_tokens|layers|norm)\.", r"language_model.model.\1."),
    (r"^vision_tower\.vision_model\.", "vision_tower."),
    (r"\.cross_attn\.ln_kv\.", ".cross_attn.layer_norm_kv."),
    (r"^multi_modal_projector\.(cross_attn\.)?ln_(?:ffn|q)\.", r"multi_modal_projector.\1layer_norm."),
    (r"^multi_modal_projector\.ffn\.", "multi_modal_projector.feed_forward."),
    (r"\.experts\.gate_up_proj$", ".experts.fc1.weight"),
    (r"\.experts\.down_proj$", ".experts.fc2.weight"),
)
_UNUSED = re.compile(r"^vision_tower\.post_layernorm\.|\.inv_freq$|^vision_tower\.embeddings\.position_ids$")
# Aria-sequential_mlp: one Linear (out, in) per expert. Its file could not be seen; accepted are the authors'
# published module (experts.experts.E.gate_proj, xffxff's "Finetune MoE with LoRA") and fc1/fc2 as lists of Linears.
_SEQUENTIAL = (
    re.compile(r"^(.*\.mlp\.experts)\.(?:experts\.)?(?P<expert>\d+)\.(?P<matrix>gate|up|down)_proj\.weight$"),
    re.compile(r"^(.*\.mlp\.experts)\.(?P<matrix>fc1|fc2)\.(?:experts\.)?(?P<expert>\d+)\.weight$"),
)


def stored_place(config: AriaConfig) -> Callable[[str], Place | None]:
    """Return the function from a stored tensor's name to its place in AriaModel."""
    F = config.text.intermediate_size
    whole = slice(None)
    parts = {"gate": ("fc1", slice(0, F)), "up": ("fc1", slice(F, 2 * F)), "down": ("fc2", whole)}
    parts |= {"fc1": ("fc1", whole), "fc2": ("fc2", whole)}

    def rename(stored: str) -> Place | None:
        name = stored
        for pattern, written in _ALIASES:
            name = re.sub(pattern, written, name)
        if _UNUSED.search(name):
            return None
        match = next(filter(None, (pattern.match(name) for pattern in _SEQUENTIAL)), None)
        if match is None:
            return Place(name)
        matrix, columns = parts[match["matrix"]]
        index = (int(match["expert"]), slice(None), columns)
        return Place(f"{match[1]}.{matrix}.weight", index, is_transposed=True)

    return rename


def _normalised_levels(images: AriaImages) -> Tensor:
    """Return float32 (3, 256): what each uint8 level of each channel becomes, rounded as the reference rounds."""
    levels = (np.arange(256) * (1 / 255)).astype(np.float32)
    mean, std = (np.array(three, np.float32)[:, None] for three in (images.mean, images.std))
    return torch.from_numpy((levels - mean) / std)
