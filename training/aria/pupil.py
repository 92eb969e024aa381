"""How a toy Aria learns: what its eye names, and how image rows take their places among the tokens.

Shapes: N pictures, P patches, Q image rows a picture, T tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.aria.config import read_config, read_images
from models.aria.model import AriaModel
from models.types import ImageSettings, ModelInput
from training.aria.folder import PATCH, VISION, write_files
from training.data import Labels, patch_labels, resized
from training.lines import Batch
from training.pupil import Recipe
from training.scenes import Scene
from training.weights import Start, fill_weights, save_weights, usual_start


class AriaPupil:
    """See training.pupil.Pupil."""

    num_features: int = VISION["hidden_size"]

    def __init__(self, folder: Path, generator: torch.Generator) -> None:
        self.model = AriaModel(read_config(folder), read_images(folder, ImageSettings()))
        fill_weights(self.model, _start, generator)

    @property
    def eye(self) -> nn.Module:
        """The vision tower."""
        return self.model.vision_tower

    @property
    def voice(self) -> Sequence[nn.Module]:
        """The projector and the decoder."""
        return [self.model.multi_modal_projector, self.model.language_model]

    def labels(self, scene: Scene, model_input: ModelInput) -> Labels:
        """Name every patch of the one tile, which the picture fills."""
        (tile,) = model_input.tiles
        return patch_labels(resized(scene.owner, tile.shape[1], tile.shape[0]), scene.shapes, PATCH)

    def features(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Return what the vision tower sees (N, P, D)."""
        out: Tensor = self.model.vision_tower(self.model.normalise([tile for i in inputs for tile in i.tiles]))
        return out

    def patches(self, features: Tensor) -> Tensor:
        """Return them as they are."""
        return features

    def scores(self, features: Tensor, batch: Batch) -> Tensor:
        """Put image rows in the places of their tokens; return scores (answer tokens, V)."""
        is_image = batch.ids == self.model.config.image_token_index
        rows = self.model.multi_modal_projector(features, int(is_image[0].sum()))  # (N, Q, W)
        embeddings = self.model.embed(batch.ids).masked_scatter(is_image[..., None], rows)
        return self.model.logits(self.model.decode(embeddings, batch.apart())[batch.is_answer])

    def save(self, folder: Path) -> None:
        """Write the weights, with the released layout's unused zeros."""
        zeros = {f"vision_tower.post_layernorm.{leaf}": torch.zeros(self.num_features) for leaf in ("weight", "bias")}
        save_weights(self.model, folder, zeros)


def _start(name: str, parameter: Tensor) -> Start:
    if name.endswith((".query", "embed_tokens.weight")):
        return Start(0.0, 0.5)
    if name.endswith("position_embedding.weight"):
        return Start(0.0, 0.3)
    if ".experts.fc" in name:  # stored (expert, in, out)
        return Start(0.0, float(parameter.shape[1] ** -0.5))
    return usual_start(name, parameter)


RECIPE = Recipe(
    write_files=write_files,
    new_pupil=AriaPupil,
    opening="<fim_suffix>",
    end="<|im_end|>",
    minutes=12.0,
    looks_per_minute=2_100,
    answers_per_minute=630,
)
