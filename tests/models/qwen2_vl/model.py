"""Qwen2-VL on the device: tiles and token ids in, scores of the next token out.

Parameters carry the names of the checkpoint's files; `Qwen2VLModel` is what the engine drives, see
models/engine/decoder.py.

Shapes: T tokens, R rows of a picture, D model width.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from models.engine import Prompt
from models.layers import rotary_frequencies
from models.llama import DecoderLayer, FamilyModel, LanguageModel, SwiGLU
from models.tiles import ImageCache, Normalize
from models.types import ImageSettings, ModelInput, Pixels
from tests.models.qwen2_vl.config import Qwen2VLConfig, read_config, read_images
from tests.models.qwen2_vl.vision import VisionTower, axis_frequencies


class Qwen2VLModel(FamilyModel):
    """The GPU half of Qwen2-VL; without `vision` in the config, its decoder alone."""

    VISION: ClassVar[tuple[str, ...]] = ("visual",)
    config: Qwen2VLConfig

    def __init__(self, folder: Path, *, text_only: bool = False) -> None:
        """Build the model of a checkpoint folder, its weights not yet filled."""
        super().__init__()
        self.config = config = read_config(folder, text_only=text_only)
        self.image_cache: ImageCache[Tensor] = ImageCache()
        text, width = config.text, config.text.hidden_size
        if config.vision is not None:
            self.visual = VisionTower(config.vision, width)
            images = read_images(folder, ImageSettings())
            self._normalize = Normalize(images.mean, images.std)
        layers = {
            i: DecoderLayer(text, i, SwiGLU(width, text.intermediate_size)) for i in range(text.num_hidden_layers)
        }
        frequencies = axis_frequencies(rotary_frequencies(text.head_dim, text.rope_theta), text.sections)
        self.language_model = LanguageModel(text, layers, frequencies, text.vocab_size)

    def prompt(self, inputs: Sequence[ModelInput]) -> list[Prompt]:
        """Bring inputs onto the device; each distinct picture is encoded once."""
        self.check_ids(inputs)
        tiles = {name: tile for i in inputs for name, tile in zip(i.image_names, i.tiles, strict=True)}
        features = self.image_cache.find(tiles, lambda names: [self.encode(tiles[name]) for name in names])
        prompts = []
        for model_input in inputs:
            ids = torch.tensor(model_input.token_ids, dtype=torch.int64, device=self.device)
            embeddings = self.embed(ids)
            if not model_input.tiles:
                prompts.append(Prompt(embeddings))
                continue
            embeddings = embeddings.clone()
            embeddings[ids == self.config.image_token_id] = torch.cat(
                [features[name] for name in model_input.image_names]
            )
            grids = zip(model_input.layout[::2], model_input.layout[1::2], strict=True)
            is_image = model_input.token_ids == self.config.image_token_id
            prompts.append(Prompt(embeddings, positions=rotary_positions(is_image.tolist(), grids)))
        return prompts

    def encode(self, tile: Pixels) -> Tensor:
        """Return the rows (R, D) of one picture."""
        rows: Tensor = self.visual(self._normalize([tile], self.device, self.dtype)[0])
        return rows


def rotary_positions(is_image: Sequence[bool], grids: Iterable[tuple[int, int]]) -> Tensor:
    """Return the time, height and width (T, 3) at which tokens stand.

    A picture's rows stand at one time, each at its place in the grid; text goes on behind the farthest of them, at one
    number on all three axes.

    Args:
        is_image: Which tokens are pictures.
        grids: Rows and columns of each picture.
    """
    waiting, parts, start, place = iter(grids), [], 0, 0
    while place < len(is_image):
        if is_image[place]:
            rows, columns = next(waiting)
            parts.append(start + torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns)))
            place, start = place + rows * columns, start + max(rows, columns)
        else:
            parts.append(torch.full((1, 3), start))
            place, start = place + 1, start + 1
    return torch.cat(parts)
