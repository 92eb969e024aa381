"""Aria on the device: tiles and token ids in, scores of the next token out.

Parameters carry the names of the checkpoint's files (`language_model.model.layers.0.…`), so loading needs only
the aliases at the bottom. `AriaModel` is what the engine drives; see models/engine/decoder.py.

Shapes: B sequences, T tokens, D model width, H query heads, K key heads, C head width, V vocabulary.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.aria.config import AriaConfig, AriaImages, read_config, read_images
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


class AriaModel(FamilyModel):
    """The GPU half of Aria; without `vision` in the config, its decoder alone."""

    def __init__(self, config: AriaConfig, images: AriaImages | None) -> None:
        super().__init__()
        self.config = config
        self.image_cache: ImageCache[Tensor] = ImageCache()
        if config.vision is not None and images is not None:
            self.vision_tower = VisionTower(config.vision)
            num_queries = max(config.patch_to_query.values())
            self.multi_modal_projector = Projector(config.vision, num_queries, config.text.hidden_size)
            self._normalize = Normalize(images.mean, images.std)
        text = config.text
        layers = {i: DecoderLayer(text, i, MixtureOfExperts(text)) for i in range(text.num_hidden_layers)}
        frequencies = rotary_frequencies(text.head_dim, text.rope_theta)
        self.text = text
        self.language_model = LanguageModel(text, layers, frequencies, text.vocab_size)

    def prompt(self, inputs: Sequence[ModelInput]) -> list[Prompt]:
        """Bring inputs onto the device; each distinct tile among them is encoded once."""
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

    def _encoded(self, tiles: Sequence[tuple[Pixels, int]]) -> list[Tensor]:
        patch = self.vision_tower.embeddings.patch_embedding.kernel_size[0]

        def most(kind: tuple[tuple[int, ...], int]) -> int:
            (height, width, _), _ = kind
            return max(1, VISION_PATCHES // (height * width // patch**2))

        def encode(some: Sequence[tuple[Pixels, int]]) -> list[Tensor]:
            # Cloned, so that one tile's rows do not keep the whole batch alive.
            return [one.clone() for one in self.encode([tile for tile, _ in some], some[0][1])]

        return in_batches(tiles, lambda pair: (pair[0].shape, pair[1]), most, encode)


def empty_aria(folder: Path, *, text_only: bool = False) -> AriaModel:
    """Build the model of a checkpoint folder on the `meta` device, to be filled by models.weights."""
    config = read_config(folder, text_only=text_only)
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
_EYE = re.compile(r"^(vision_tower|multi_modal_projector)\.")
_UNUSED = re.compile(r"^vision_tower\.post_layernorm\.|\.inv_freq$|^vision_tower\.embeddings\.position_ids$")
# Aria-sequential_mlp: one Linear (out, in) per expert. Its file could not be seen; accepted are the authors'
# published module (experts.experts.E.gate_proj, xffxff's "Finetune MoE with LoRA") and fc1/fc2 as lists of Linears.
_SEQUENTIAL = (
    re.compile(r"^(.*\.mlp\.experts)\.(?:experts\.)?(?P<expert>\d+)\.(?P<matrix>gate|up|down)_proj\.weight$"),
    re.compile(r"^(.*\.mlp\.experts)\.(?P<matrix>fc1|fc2)\.(?:experts\.)?(?P<expert>\d+)\.weight$"),
)


def stored_place(config: AriaConfig) -> Callable[[str], ParameterSlice | None]:
    """Return the function from a stored tensor's name to its place in AriaModel."""
    F = config.text.intermediate_size
    whole = slice(None)
    parts = {"gate": ("fc1", slice(0, F)), "up": ("fc1", slice(F, 2 * F)), "down": ("fc2", whole)}
    parts |= {"fc1": ("fc1", whole), "fc2": ("fc2", whole)}

    def rename(stored: str) -> ParameterSlice | None:
        name = stored
        for pattern, written in _ALIASES:
            name = re.sub(pattern, written, name)
        if _UNUSED.search(name) or (config.vision is None and _EYE.match(name)):
            return None
        match = next(filter(None, (pattern.match(name) for pattern in _SEQUENTIAL)), None)
        if match is None:
            return ParameterSlice(name)
        matrix, columns = parts[match["matrix"]]
        index = (int(match["expert"]), slice(None), columns)
        return ParameterSlice(f"{match[1]}.{matrix}.weight", index, is_transposed=True)

    return rename
