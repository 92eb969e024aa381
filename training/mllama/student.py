"""How a toy Mllama is trained: labels for its patches, and cross-attention of all questions to their own picture.

Shapes: N pictures, M tiles of a picture, P tokens of a tile, R tokens of a picture, T tokens, H query heads,
C head width, D width, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.cache.memory import Memory, MemoryView
from models.mllama.config import read_images
from models.mllama.model import MllamaModel
from models.mllama.processor import fitted
from models.tiles import Normalize
from models.types import ImageSettings, ModelInput
from training.batches import QuestionBatch
from training.dataset import Labels, patch_labels, resized
from training.mllama.files import END_OF_TURN, IMAGE_TOKEN, write_files
from training.scenes import Scene
from training.student import Recipe
from training.weights import Initial, fill_weights, save_weights, usual_initial


class OwnPicture(MemoryView):
    """Each row of a batch attends to its own picture; all pictures have the same number of tiles."""

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
        attended = F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)
        return attended.transpose(1, 2).flatten(2) * self.attends


class MllamaStudent:
    """See training.student.Student."""

    def __init__(self, folder: Path, generator: torch.Generator) -> None:
        self.model = MllamaModel(folder)
        config = self.model.config
        assert config.vision is not None
        images = read_images(folder, config.vision, ImageSettings())
        self._normalize = Normalize(images.mean, images.std)
        fill_weights(self.model, _initial, generator)
        self.vision: nn.Module = self.model.vision_model
        self.others: Sequence[nn.Module] = [self.model.multi_modal_projector, self.model.language_model]
        self.num_features = config.vision.output_size
        self._vision = config.vision

    def labels(self, scene: Scene, model_input: ModelInput) -> Labels:
        """Name every patch, tile by tile; where a tile has nothing of the picture, it is background."""
        tile, patch = self._vision.image_size, self._vision.patch_size
        grid = rows, columns = self._vision.aspect_ratios[model_input.layout[0] - 1]
        width, height = fitted(*scene.picture.size, grid, tile)
        owner = np.zeros((rows * tile, columns * tile), np.uint8)
        owner[:height, :width] = resized(scene.owner, width, height)
        side = tile // patch
        labels = patch_labels(owner, scene.shapes, patch).reshape(rows, side, columns, side)
        return labels.swapaxes(1, 2).flatten()

    def features(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Run the vision encoder on real tiles (N, M, P, D)."""
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

    def scores(self, features: Tensor, batch: QuestionBatch) -> Tensor:
        """Let each row attend to its picture from the image token on; return scores (answer tokens, V)."""
        memory = self.model.remember(self.model.multi_modal_projector(features.flatten(1, 2)))
        sees = (batch.ids == self.model.config.image_token_index).cumsum(1).bool()[..., None]
        cache_view = batch.cache_view(OwnPicture(memory, sees))
        return self.model.logits(self.model.decode(self.model.embed(batch.ids), cache_view)[batch.is_answer])

    def save(self, folder: Path) -> None:
        """Write the weights."""
        save_weights(self.model, folder, {})


def _initial(name: str, parameter: Tensor) -> Initial:
    if "gate" in name.rpartition(".")[2]:
        return Initial(0.7, 0.0)  # at 0, where the released models started, no picture is attended to for a long time
    if name.endswith("embed_tokens.weight"):
        return Initial(0.0, 0.5)
    if name.startswith("vision_model.") and "embedding" in name and "patch" not in name:
        return Initial(0.0, 0.3)
    return usual_initial(name, parameter)


RECIPE = Recipe(
    write_files=write_files,
    new_student=MllamaStudent,
    picture_end=IMAGE_TOKEN,
    answer_end=END_OF_TURN,
    minutes=15.0,
    vision_steps_per_minute=2_000,
    answer_steps_per_minute=600,
)
