"""How a toy Mllama learns: what its eye names, and how all questions about a picture look at it.

Shapes: N pictures, M tiles of a picture, P tokens of a tile, R tokens of a picture, T tokens, H query heads,
C head width, D width, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.engine.memory import Memory, MemoryView
from models.mllama.config import read_config, read_images
from models.mllama.model import MllamaModel
from models.mllama.processor import fitted
from models.tiles import Normalize
from models.types import ImageSettings, ModelInput
from training.data import Labels, patch_labels, resized
from training.lines import Batch
from training.mllama.folder import END_OF_TURN, IMAGE_TOKEN, PATCH, TILE, VISION, write_files
from training.pupil import Recipe
from training.scenes import Scene
from training.weights import Start, fill_weights, save_weights, usual_start


class OwnPicture(MemoryView):
    """Each row of a batch sees a picture of its own, all pictures having one number of tiles."""

    def __init__(self, memory: Memory, sees: Tensor) -> None:
        """Take the keys and values (N, K, R, C) of every layer, and which tokens see them (N, T, 1)."""
        self._memory = memory
        self.attends = sees

    def to(self, device: torch.device) -> MemoryView:
        """Return the same: training knows one device."""
        return self

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Return what queries (N, H, T, C) find, (N, T, H * C)."""
        keys, values = self._memory.keys[layer], self._memory.values[layer]
        found = F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)
        return found.transpose(1, 2).flatten(2) * self.attends


class MllamaPupil:
    """See training.pupil.Pupil."""

    num_features: int = VISION["vision_output_dim"]

    def __init__(self, folder: Path, generator: torch.Generator) -> None:
        config = read_config(folder)
        assert config.vision is not None
        self._grids = config.vision.aspect_ratios
        images = read_images(folder, config.vision, ImageSettings())
        self._normalize = Normalize(images.mean, images.std)
        self.model = MllamaModel(config, images)
        fill_weights(self.model, _start, generator)

    @property
    def eye(self) -> nn.Module:
        """The vision encoder."""
        return self.model.vision_model

    @property
    def voice(self) -> Sequence[nn.Module]:
        """The projector and the decoder."""
        return [self.model.multi_modal_projector, self.model.language_model]

    def labels(self, scene: Scene, model_input: ModelInput) -> Labels:
        """Name every patch, tile by tile; where a tile has nothing of the picture, it is background."""
        grid = rows, columns = self._grids[model_input.layout[0] - 1]
        width, height = fitted(*scene.picture.size, grid, TILE)
        owner = np.zeros((rows * TILE, columns * TILE), np.uint8)
        owner[:height, :width] = resized(scene.owner, width, height)
        side = TILE // PATCH
        labels = patch_labels(owner, scene.shapes, PATCH).reshape(rows, side, columns, side)
        return labels.swapaxes(1, 2).flatten()

    def features(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Return what the vision encoder sees in real tiles (N, M, P, D)."""
        num_tiles = len(inputs[0].tiles)
        tiles = [tile for model_input in inputs for tile in model_input.tiles]
        pixels = self._normalize(tiles, self.model.device, self.model.dtype)
        grids = torch.tensor([model_input.layout[0] for model_input in inputs])
        pictures = pixels.view(len(inputs), num_tiles, *pixels.shape[1:])
        out: Tensor = self.model.vision_model(pictures, grids)[:, :num_tiles]
        return out

    def patches(self, features: Tensor) -> Tensor:
        """Leave out each tile's first token, which stands for the whole tile."""
        return features[:, :, 1:].flatten(1, 2)

    def scores(self, features: Tensor, batch: Batch) -> Tensor:
        """Let each row look at its picture from the image token on; return scores (answer tokens, V)."""
        memory = self.model.remember(self.model.multi_modal_projector(features.flatten(1, 2)))
        sees = (batch.ids == self.model.config.image_token_index).cumsum(1).bool()[..., None]
        window = batch.apart(OwnPicture(memory, sees))
        return self.model.logits(self.model.decode(self.model.embed(batch.ids), window)[batch.is_answer])

    def save(self, folder: Path) -> None:
        """Write the weights."""
        save_weights(self.model, folder, {})


def _start(name: str, parameter: Tensor) -> Start:
    if "gate" in name.rpartition(".")[2]:
        return Start(0.7, 0.0)  # at 0, which the released models were grown from, nothing is seen for a long time
    if name.endswith("embed_tokens.weight"):
        return Start(0.0, 0.5)
    if name.startswith("vision_model.") and "embedding" in name and "patch" not in name:
        return Start(0.0, 0.3)
    return usual_start(name, parameter)


RECIPE = Recipe(
    write_files=write_files,
    new_pupil=MllamaPupil,
    opening=IMAGE_TOKEN,
    end=END_OF_TURN,
    minutes=15.0,
    looks_per_minute=2_000,
    answers_per_minute=600,
)
