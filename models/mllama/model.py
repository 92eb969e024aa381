"""Mllama on the device: tiles and token ids in, scores of the next token out.

A picture does not stand in the text: some of the decoder's layers look at it by cross-attention. Their keys and values
are computed once for a picture, for its real tiles only, and shared by every question about it. A token before its
picture, and a text without one, passes these layers unchanged; so does Meta's own code, while `transformers` lets such
tokens see all pictures.

Parameters carry the names of the checkpoint's files; `MllamaModel` is what the engine drives, see
models/engine/decoder.py.

Shapes: B sequences, T tokens, R tokens of a picture's real tiles, D model width, K key heads, C head width.
"""

import re
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from models.batch_invariant import Linear
from models.cache.memory import Memory, MemoryView, Span
from models.cache.slots import CacheView
from models.engine.decoder import Prompt
from models.layers import RMSNorm, Rotation, rotary_frequencies, turned
from models.llama import DecoderLayer, FamilyModel, LanguageModel, Projections, SwiGLU
from models.mllama.config import EXTRA_EMBEDDINGS, MllamaConfig, TextConfig, read_config, read_images
from models.mllama.vision import VisionModel
from models.tiles import ImageCache, Normalize, in_batches
from models.types import ImageSettings, ModelInput, Pixels
from models.weights import ParameterSlice

_LAYER = re.compile(r"^language_model\.model\.layers\.(\d+)\.")
# Tokens encoded together: a few pictures of 4 x 1601. More would fill the device with activations.
VISION_TOKENS = 26_000


class CrossAttention(Projections):
    """Attention to pictures: no positions, and a norm on each head's queries and keys."""

    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__(config, index)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, view: MemoryView) -> Tensor:
        """Return (B, T, D), zeros for tokens that see nothing."""
        q = self.q_norm(self._heads(self.q_proj(x))).transpose(1, 2)  # (B, H, T, C)
        return self.o_proj(view.attend(self.index, q))

    def remember(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (…, K, R, C) of features (…, R, D)."""
        k, v = (self._heads(proj(features)) for proj in (self.k_proj, self.v_proj))
        return turned(self.k_norm(k).transpose(-2, -3)), v.transpose(-2, -3).contiguous()

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim)


class CrossLayer(nn.Module):
    """A layer that looks at pictures and at nothing else, with a gate on each half."""

    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.cross_attn = CrossAttention(config, index)
        self.cross_attn_attn_gate = nn.Parameter(torch.empty(1))
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.cross_attn_mlp_gate = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, _: Rotation, cache_view: CacheView | None) -> Tensor:
        """Return (B, T, D); tokens that see nothing come out as they went in."""
        view = None if cache_view is None else cache_view.memory
        if view is None:
            return x
        x = x + self.cross_attn_attn_gate.tanh() * self.cross_attn(self.input_layernorm(x), view)
        mlp = self.mlp(self.post_attention_layernorm(x))
        # Chosen, not multiplied by 0: what overflowed in half precision would be NaN.
        return x + self.cross_attn_mlp_gate.tanh() * torch.where(view.attends, mlp, 0)


class MllamaModel(FamilyModel):
    """The GPU half of Mllama; without `vision` in the config, its decoder alone."""

    VISION: ClassVar[tuple[str, ...]] = ("vision_model", "multi_modal_projector")
    config: MllamaConfig

    def __init__(self, folder: Path, *, text_only: bool = False) -> None:
        """Build the model of a checkpoint folder, its weights not yet filled; see models.empty_model."""
        super().__init__()
        self.config = config = read_config(folder, text_only=text_only)
        self.image_cache: ImageCache[Memory] = ImageCache()
        self._joined: ImageCache[Memory] = ImageCache(kept_bytes=0)
        text = config.text
        if config.vision is not None:
            self.vision_model = VisionModel(config.vision)
            self.multi_modal_projector = Linear(config.vision.output_size, text.hidden_size)
            images = read_images(folder, config.vision, ImageSettings())
            self._normalize = Normalize(images.mean, images.std)
        frequencies = scaled_frequencies(text)
        self.language_model = LanguageModel(text, _layers(config), frequencies, text.vocab_size + EXTRA_EMBEDDINGS)

    def parameter_slice(self, stored: str) -> ParameterSlice | None:
        """Return where a stored tensor belongs; without a vision encoder there are no cross-attention layers."""
        found = super().parameter_slice(stored)
        layer = found and _LAYER.match(found.name)
        is_absent = layer and self.config.vision is None and int(layer[1]) in self.config.text.cross_attention_layers
        return None if is_absent else found

    def memory_values(self, folder: Path, images: ImageSettings) -> int:
        """Return how many keys and values all cross-attention layers keep of an image with the most tiles."""
        text, vision = self.config.text, self.config.vision
        if vision is None:
            return 0
        layers = sum(isinstance(layer, CrossLayer) for layer in self.language_model.model.layers.values())
        tokens = read_images(folder, vision, images).max_image_tiles * vision.num_tokens
        return 2 * layers * tokens * text.num_key_value_heads * text.head_dim

    def prompt(self, inputs: Sequence[ModelInput]) -> list[Prompt]:
        """Bring inputs onto the device; each distinct picture is encoded once."""
        self.check_ids(inputs)
        pictures = {name: picture for i in inputs for name, picture in self._pictures(i)}
        memories = self.image_cache.find(pictures, lambda names: self.encode([pictures[name] for name in names]))
        prompts = []
        for model_input in inputs:
            ids = torch.tensor(model_input.token_ids, dtype=torch.int64)
            places = (ids == self.config.image_token_index).nonzero()[:, 0].tolist() if model_input.tiles else []
            spans = [
                Span(start, stop, self._together([model_input.image_names[k] for k in pictures_seen], memories))
                for start, stop, pictures_seen in visible(places)
            ]
            prompts.append(Prompt(self.embed(ids.to(self.device)), spans))
        return prompts

    def rehearse(self, max_length: int, *, is_drawing: bool) -> Sequence[Tensor]:
        """See FamilyModel: encode as many pictures with the most tiles as go at once; one's memory is kept."""
        vision = self.config.vision
        if vision is None:
            return ()
        most = vision.max_num_tiles
        ratio_id = 1 + max(range(len(vision.aspect_ratios)), key=lambda place: prod(vision.aspect_ratios[place]))
        tile = np.zeros((vision.image_size, vision.image_size, 3), np.uint8)
        memory, *_ = self.encode([([tile] * most, ratio_id)] * self._most_pictures)
        return (*memory.keys, *memory.values)

    def encode(self, pictures: Sequence[tuple[Sequence[Pixels], int]]) -> list[Memory]:
        """Look at pictures, each given as its tiles and the id of its grid; return what the decoder sees of them."""
        return in_batches(
            pictures,
            kind=lambda picture: len(picture[0]),
            most=lambda _: self._most_pictures,
            encode=lambda some: map(self.remember, self.features(some)),
        )

    @property
    def _most_pictures(self) -> int:
        """How many pictures are encoded at once."""
        assert self.config.vision is not None
        return max(1, VISION_TOKENS // (self.config.vision.max_num_tiles * self.config.vision.num_tokens))

    def features(self, pictures: Sequence[tuple[Sequence[Pixels], int]]) -> Tensor:
        """Return what pictures with one number of tiles are to the decoder, (N, R, D), real tiles only."""
        num_tiles = len(pictures[0][0])
        pixels = self._normalize([tile for tiles, _ in pictures for tile in tiles], self.device, self.dtype)
        ratio_ids = torch.tensor([ratio_id for _, ratio_id in pictures], device=self.device)
        seen = self.vision_model(pixels.view(-1, num_tiles, *pixels.shape[1:]), ratio_ids)[:, :num_tiles]
        return self.multi_modal_projector(seen.flatten(1, 2))

    def remember(self, features: Tensor) -> Memory:
        """Return the keys and values that every cross-attention layer makes of features (…, R, D)."""
        pairs = []
        for layer in self.language_model.model.layers.values():
            if isinstance(layer, CrossLayer):
                features = features.to(layer.input_layernorm.weight.device)  # copied where the device changes alone
                pairs.append(layer.cross_attn.remember(features))
        return Memory(tuple(keys for keys, _ in pairs), tuple(values for _, values in pairs))

    def _pictures(self, model_input: ModelInput) -> Iterator[tuple[str, tuple[Sequence[Pixels], int]]]:
        """Yield each picture's name, tiles and grid."""
        first = 0
        for name, ratio_id in zip(model_input.image_names, model_input.layout, strict=True):
            assert self.config.vision is not None
            last = first + prod(self.config.vision.aspect_ratios[ratio_id - 1])
            yield name, (model_input.tiles[first:last], ratio_id)
            first = last

    def _together(self, names: Sequence[str], memories: dict[str, Memory]) -> Memory:
        """Return one memory of several pictures; nearly always it is one."""
        if len(names) == 1:
            return memories[names[0]]
        [joined] = self._joined.find([" ".join(names)], lambda _: [_join([memories[name] for name in names])]).values()
        return joined


def visible(places: Sequence[int]) -> Iterator[tuple[int, int | None, Sequence[int]]]:
    """Yield (start, stop, pictures) of the tokens that see pictures, where these stand at `places` in the text.

    A picture is seen from its own place up to the next picture; pictures that follow each other without a token
    between are seen together by what comes after them.
    """
    first = 0
    for k, start in enumerate(places):
        if k > 0 and start > places[k - 1] + 1:
            first = k
        yield start, places[k + 1] if k + 1 < len(places) else None, range(first, k + 1)


def scaled_frequencies(config: TextConfig) -> Tensor:
    """Return the rotary frequencies, stretched by Llama 3's rule where the checkpoint says so.

    Waves longer than the original training length (over low_freq_factor) are slowed by `factor`, those shorter than it
    over high_freq_factor are left, and between them the two are blended (Meta's llama3 `apply_scaling`).
    """
    frequencies = rotary_frequencies(config.head_dim, config.rope_theta)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    length = scaling.original_max_position_embeddings
    waves = 2 * torch.pi / frequencies
    blend = (length / waves - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    slow = frequencies / scaling.factor
    blended = (1 - blend) * slow + blend * frequencies
    is_long, is_short = waves > length / scaling.low_freq_factor, waves < length / scaling.high_freq_factor
    return torch.where(is_long, slow, torch.where(is_short, frequencies, blended))


def _layers(config: MllamaConfig) -> dict[int, nn.Module]:
    """Return the decoder's layers by place; without a vision encoder the cross-attention layers are left out."""
    text = config.text
    cross = [i for i in text.cross_attention_layers if i < text.num_hidden_layers]
    own = [i for i in range(text.num_hidden_layers) if i not in cross]
    layers: dict[int, nn.Module] = {
        i: DecoderLayer(text, place, SwiGLU(text.hidden_size, text.intermediate_size)) for place, i in enumerate(own)
    }
    if config.vision is not None:
        layers |= {i: CrossLayer(text, place) for place, i in enumerate(cross)}
    return dict(sorted(layers.items()))


def _join(memories: Sequence[Memory]) -> Memory:
    keys = zip(*(memory.keys for memory in memories), strict=True)
    values = zip(*(memory.values for memory in memories), strict=True)
    joined = tuple(turned(torch.cat(several, dim=1)) for several in keys)
    return Memory(joined, tuple(torch.cat(several, dim=1) for several in values))
