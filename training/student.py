"""What a family brings to the training of its toy checkpoint; the stages themselves are shared (training/trainer.py).

Shapes: N pictures, P patches, D width, V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from models.types import ModelInput
from training.batches import QuestionBatch
from training.dataset import Labels
from training.scenes import Scene


class Student(Protocol):
    """A model that is trained.

    Attributes:
        vision: Its vision encoder, which is trained first, by itself.
        others: Everything else.
        num_features: D, what the vision encoder returns for a patch.
    """

    vision: nn.Module
    others: Sequence[nn.Module]
    num_features: int

    def labels(self, scene: Scene, model_input: ModelInput) -> Labels:
        """Name every patch of a scene, in the order of `patches`."""
        ...

    def features(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Encode pictures of one size, one of each input; return (N, …)."""
        ...

    def patches(self, features: Tensor) -> Tensor:
        """Return the features of each patch (N, P, D)."""
        ...

    def scores(self, features: Tensor, batch: QuestionBatch) -> Tensor:
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
        new_student: Builds the model that a folder's files describe, with random weights.
        picture_end: The last token that belongs to the picture in a prompt; the question follows.
        answer_end: The token that ends an answer.
        minutes: Of one 2.5 GHz core; together with the rates it sets the number of steps.
        vision_steps_per_minute: Steps of the vision encoder alone.
        answer_steps_per_minute: Steps of the whole model.
    """

    write_files: Callable[[Path, Iterable[str]], None]
    new_student: Callable[[Path, torch.Generator], Student]
    picture_end: str
    answer_end: str
    minutes: float
    vision_steps_per_minute: int
    answer_steps_per_minute: int
