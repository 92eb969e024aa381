"""What a family brings to the training of its small checkpoint, as the stages that all share see it.

Shapes: N pictures, P patches, D width, V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from models.types import ModelInput
from training.data import Labels
from training.lines import Batch
from training.scenes import Scene


class Pupil(Protocol):
    """A model that learns: an eye, and the rest, which speaks."""

    @property
    def eye(self) -> nn.Module:
        """What learns first, by itself."""
        ...

    @property
    def voice(self) -> Sequence[nn.Module]:
        """Everything else."""
        ...

    @property
    def num_features(self) -> int:
        """D, what the eye tells of a patch."""
        ...

    def labels(self, scene: Scene, model_input: ModelInput) -> Labels:
        """Name every patch of a scene, in the order in which the eye tells of them."""
        ...

    def features(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Look at pictures of one size, one of each input; return (N, …)."""
        ...

    def patches(self, features: Tensor) -> Tensor:
        """Return what the eye tells of each patch (N, P, D)."""
        ...

    def scores(self, features: Tensor, batch: Batch) -> Tensor:
        """Return scores (answer tokens, V) of what comes next, with gradients if they are on."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How a family's checkpoint is made.

    Attributes:
        write_files: Writes everything but the weights; the texts are for the tokenizer to learn from.
        new_pupil: Builds the model that a folder's files ask for, with random weights.
        opening: The last token that belongs to the picture in a prompt; the question follows.
        end: The token that ends an answer.
        minutes: Of one 2.5 GHz core; together with the rates it sets the number of steps.
        looks_per_minute: Steps of the eye alone in a minute.
        answers_per_minute: Steps of the whole model in a minute.
    """

    write_files: Callable[[Path, Iterable[str]], None]
    new_pupil: Callable[[Path, torch.Generator], Pupil]
    opening: str
    end: str
    minutes: float
    looks_per_minute: int
    answers_per_minute: int
