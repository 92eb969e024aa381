"""How a toy Aria is trained: labels for its patches, and image rows where their tokens are.

Shapes: N pictures, P patches, Q image rows a picture, T tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.aria.model import AriaModel
from models.types import ModelInput
from training.aria.files import write_files
from training.batches import QuestionBatch
from training.dataset import Labels, patch_labels, resized
from training.scenes import Scene
from training.student import Recipe
from training.weights import Initial, fill_weights, save_weights, usual_initial


class AriaStudent:
    """See training.student.Student."""

    def __init__(self, folder: Path, generator: torch.Generator) -> None:
        self.model = AriaModel(folder)
        config = self.model.config
        assert config.vision is not None
        fill_weights(self.model, _initial, generator)
        self.vision: nn.Module = self.model.vision_tower
        self.others: Sequence[nn.Module] = [self.model.multi_modal_projector, self.model.language_model]
        self.num_features = config.vision.hidden_size
        self._patch_size = config.vision.patch_size

    def labels(self, scene: Scene, model_input: ModelInput) -> Labels:
        """Name every patch of the only tile, which the picture fills."""
        (tile,) = model_input.tiles
        return patch_labels(resized(scene.owner, tile.shape[1], tile.shape[0]), scene.shapes, self._patch_size)

    def features(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Run the vision tower (N, P, D)."""
        out: Tensor = self.model.vision_tower(self.model.normalise([tile for i in inputs for tile in i.tiles]))
        return out

    def patches(self, features: Tensor) -> Tensor:
        """Return them as they are."""
        return features

    def scores(self, features: Tensor, batch: QuestionBatch) -> Tensor:
        """Put image rows where their tokens are; return scores (answer tokens, V)."""
        is_image = batch.ids == self.model.config.image_token_index
        rows = self.model.multi_modal_projector(features, int(is_image[0].sum()))  # (N, Q, W)
        embeddings = self.model.embed(batch.ids).masked_scatter(is_image[..., None], rows)
        return self.model.logits(self.model.decode(embeddings, batch.cache_view())[batch.is_answer])

    def save(self, folder: Path) -> None:
        """Write the weights, with the released layout's unused zeros."""
        zeros = {f"vision_tower.post_layernorm.{leaf}": torch.zeros(self.num_features) for leaf in ("weight", "bias")}
        save_weights(self.model, folder, zeros)


def _initial(name: str, parameter: Tensor) -> Initial:
    if name.endswith((".query", "embed_tokens.weight")):
        return Initial(0.0, 0.5)
    if name.endswith("position_embedding.weight"):
        return Initial(0.0, 0.3)
    if ".experts.fc" in name:  # stored (expert, in, out)
        return Initial(0.0, float(parameter.shape[1] ** -0.5))
    return usual_initial(name, parameter)


RECIPE = Recipe(
    write_files=write_files,
    new_student=AriaStudent,
    picture_end="<fim_suffix>",
    answer_end="<|im_end|>",
    minutes=12.0,
    vision_steps_per_minute=2_100,
    answer_steps_per_minute=630,
)
