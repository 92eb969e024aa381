"""Aria on the device: tiles and token ids in, scores of the next token out.

Parameters carry the names of the checkpoint's files (`language_model.model.layers.0.…`), so loading needs only
a few aliases. `AriaModel` is what the engine drives; see models/engine/decoder.py.

Shapes: B sequences, T tokens, D model width, H query heads, K key heads, C head width, V vocabulary.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.aria.config import AriaConfig, read_config, read_images
from models.aria.moe import MixtureOfExperts
from models.aria.vision import Projector, VisionTower
from models.engine.decoder import Prompt
from models.layers import rotary_frequencies
from models.llama import DecoderLayer, FamilyModel, LanguageModel
from models.tiles import ImageCache, Normalize, in_batches
from models.types import ImageSettings, ModelInput, Pixels
from models.weights import ParameterSlice

# Patches encoded together: a few whole canvases of 70 x 70. More would fill the device with activations.
VISION_PATCHES = 20_000


# Aria-sequential_mlp: one Linear (out, in) per expert. Its file could not be seen; accepted are the authors'
# published module (experts.experts.E.gate_proj, xffxff's "Finetune MoE with LoRA") and fc1/fc2 as lists of Linears.
_SEQUENTIAL = (
    re.compile(r"^(.*\.mlp\.experts)\.(?:experts\.)?(?P<expert>\d+)\.(?P<matrix>gate|up|down)_proj\.weight$"),
    re.compile(r"^(.*\.mlp\.experts)\.(?P<matrix>fc1|fc2)\.(?:experts\.)?(?P<expert>\d+)\.weight$"),
)


class AriaModel(FamilyModel):
    """The GPU half of Aria; without `vision` in the config, its decoder alone."""

    VISION: ClassVar[tuple[str, ...]] = ("vision_tower", "multi_modal_projector")
    ALIASES: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^vision_tower\.vision_model\.", "vision_tower."),
        (r"\.cross_attn\.ln_kv\.", ".cross_attn.layer_norm_kv."),
        (r"^multi_modal_projector\.(cross_attn\.)?ln_(?:ffn|q)\.", r"multi_modal_projector.\1layer_norm."),
        (r"^multi_modal_projector\.ffn\.", "multi_modal_projector.feed_forward."),
        (r"\.experts\.gate_up_proj$", ".experts.fc1.weight"),
        (r"\.experts\.down_proj$", ".experts.fc2.weight"),
    )
    UNUSED: ClassVar[str] = r"^vision_tower\.(post_layernorm\.|embeddings\.position_ids$)|\.inv_freq$"
    config: AriaConfig

    def __init__(self, folder: Path, *, text_only: bool = False) -> None:
        """Build the model of a checkpoint folder, its weights not yet filled; see models.empty_model."""
        super().__init__()
        self.config = config = read_config(folder, text_only=text_only)
        self.image_cache: ImageCache[Tensor] = ImageCache()
        if config.vision is not None:
            self.vision_tower = VisionTower(config.vision)
            num_queries = max(config.patch_to_query.values())
            self.multi_modal_projector = Projector(config.vision, num_queries, config.text.hidden_size)
            # Which canvas a run asks for is the processor's business; the model needs mean and std alone.
            images = read_images(folder, ImageSettings())
            self._normalize = Normalize(images.mean, images.std)
            self._largest = images.max_image_size
        text = config.text
        layers = {i: DecoderLayer(text, i, MixtureOfExperts(text)) for i in range(text.num_hidden_layers)}
        frequencies = rotary_frequencies(text.head_dim, text.rope_theta)
        self.language_model = LanguageModel(text, layers, frequencies, text.vocab_size)

    def parameter_slice(self, stored: str) -> ParameterSlice | None:
        """Return where a stored tensor belongs; a matrix of one expert is a part of all experts' parameter."""
        found = super().parameter_slice(stored)
        match = found and next(filter(None, (pattern.match(found.name) for pattern in _SEQUENTIAL)), None)
        if not match:
            return found
        F, matrix = self.config.text.intermediate_size, match["matrix"]
        columns = {"gate": slice(0, F), "up": slice(F, 2 * F)}.get(matrix, slice(None))
        name = f"{match[1]}.{'fc2' if matrix in ('down', 'fc2') else 'fc1'}.weight"
        return ParameterSlice(name, (int(match["expert"]), slice(None), columns), is_transposed=True)

    def prompt(self, inputs: Sequence[ModelInput]) -> list[Prompt]:
        """Bring inputs onto the device; each distinct tile among them is encoded once."""
        self.check_ids(inputs)
        features = self._features(inputs)
        prompts = []
        for model_input in inputs:
            ids = torch.tensor(model_input.token_ids, dtype=torch.int64, device=self.device)
            embeddings = self.embed(ids)
            if model_input.tiles:
                embeddings = embeddings.clone()
                rows = torch.cat([features[name] for name in model_input.image_names])
                embeddings[ids == self.config.image_token_index] = rows
            prompts.append(Prompt(embeddings))
        return prompts

    def rehearse(self, max_length: int, *, is_drawing: bool) -> Sequence[Tensor]:
        """See FamilyModel: encode as many of the largest tiles as go at once."""
        if self.config.vision is not None:
            tile = np.zeros((self._largest, self._largest, 3), np.uint8)
            self._encoded([(tile, max(self.config.patch_to_query.values()))] * self._most_tiles(tile.shape))
        return ()

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
        return self._normalize(tiles, self.device, self.dtype)

    def _features(self, inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        """Return the rows (Q, D) of each named tile. Tiles of one size are encoded together."""
        tiles = {
            name: (tile, queries)
            for i in inputs
            for name, tile, queries in zip(i.image_names, i.tiles, i.layout, strict=True)
        }
        return self.image_cache.find(tiles, lambda names: self._encoded([tiles[name] for name in names]))

    def _most_tiles(self, shape: tuple[int, ...]) -> int:
        """Return how many tiles (height, width, 3) are encoded at once."""
        patch = self.vision_tower.embeddings.patch_embedding.kernel_size[0]
        return max(1, VISION_PATCHES // (shape[0] * shape[1] // patch**2))

    def _encoded(self, tiles: Sequence[tuple[Pixels, int]]) -> list[Tensor]:
        def encode(some: Sequence[tuple[Pixels, int]]) -> list[Tensor]:
            # Cloned, so that one tile's rows do not keep the whole batch alive.
            return [one.clone() for one in self.encode([tile for tile, _ in some], some[0][1])]

        return in_batches(tiles, lambda pair: (pair[0].shape, pair[1]), lambda kind: self._most_tiles(kind[0]), encode)
