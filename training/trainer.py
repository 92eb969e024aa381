"""Train a toy that answers questions, of any family; seeded, within 20 minutes on a CPU.

There are two stages, because a vision encoder that learns from answers alone hardly learns shapes in this time. First
it learns, by itself, to name what each patch shows. Then the whole model learns to answer, while the encoder goes on
naming patches at half the weight. The head that names patches is thrown away.

Shapes: N pictures, P patches, D width.
"""

import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import load_processor
from training import dataset
from training.batches import QuestionBatcher
from training.dataset import Example
from training.evaluation import score_captions, score_questions, summarize
from training.optimizer import LEARNING_RATE, minimize
from training.questions import Pair, ask, caption, vocabulary
from training.scenes import draw_scene
from training.student import Recipe, Student

log = logging.getLogger(__name__)

VISION_SHARE = 0.13  # of the minutes

PICTURES = 8  # per step; 16 learn less in the same time, 4 are too noisy for the rate
QUESTIONS = 4  # per picture and step
CAPTION_SHARE = 0.6
VISION_RATE = 0.3  # of LEARNING_RATE, in the second stage
NEGATION_RAMP = 0.4  # of the answering stage
PATCH_WEIGHT = 0.5
BACKGROUND_WEIGHT = 0.25

NEW_SCENES = 200  # drawn to measure captions, of one shape and of two


@dataclass(frozen=True)
class TrainingData:
    """What stays the same over a training.

    Attributes:
        groups: Examples with tiles of one size and layout each; a step takes its pictures from one group.
        batcher: Makes batches of questions and answers.
        rng: Chooses pictures and questions.
    """

    groups: Sequence[Sequence[Example]]
    batcher: QuestionBatcher
    rng: random.Random

    def choose_examples(self) -> list[Example]:
        """Choose the pictures of one step."""
        group = self.rng.choices(self.groups, [len(group) for group in self.groups])[0]
        return self.rng.choices(group, k=PICTURES)


class PatchClassifier(nn.Module):
    """The head that names patches; it never leaves the training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dataset.NUM_LABELS)
        weight = torch.ones(dataset.NUM_LABELS)
        weight[0] = BACKGROUND_WEIGHT
        self.register_buffer("weight", weight)

    def forward(self, features: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return the loss of naming (N, P, D)."""
        labels = torch.from_numpy(np.concatenate([example.labels for example in examples]))
        return F.cross_entropy(self.linear(features).flatten(0, 1), labels, self.get_buffer("weight"))


def train(recipe: Recipe, folder: Path, minutes: float, seed: int) -> None:
    """Train a checkpoint and write it, then measure it on held-out train pictures and new scenes.

    Steps, not seconds, end the training, so that a seed gives the same weights on any machine.
    """
    torch.set_num_threads(1)  # the matrices are so small that a second thread only spins
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    recipe.write_files(folder, vocabulary())
    student = recipe.new_student(folder, generator)
    data = prepare(recipe, student, folder, random.Random(seed))
    classifier = PatchClassifier(student.num_features)
    train_vision(student, classifier, data, round(minutes * VISION_SHARE * recipe.vision_steps_per_minute))
    train_answers(student, classifier, data, round(minutes * (1 - VISION_SHARE) * recipe.answer_steps_per_minute))
    student.save(folder)
    log.info("held-out questions: %s", summarize(score_questions(student, data.batcher)))
    drawn = [draw_scene(data.rng, num_shapes) for num_shapes in (1, 2) for _ in range(NEW_SCENES)]
    examples = dataset.make_examples(drawn, data.batcher.processor, student.labels)
    log.info("new scenes: %s", summarize(score_captions(student, data.batcher, examples)))


def prepare(recipe: Recipe, student: Student, folder: Path, rng: random.Random) -> TrainingData:
    """Load and draw everything to learn from."""
    processor = load_processor(str(folder))
    scenes = dataset.load_scenes() + dataset.draw_scenes(rng)
    groups = defaultdict(list)
    for example in dataset.make_examples(scenes, processor, student.labels):
        model_input = example.model_input
        groups[model_input.layout, model_input.tiles[0].shape].append(example)
    log.info("%d pictures of %d sizes", len(scenes), len(groups))
    return TrainingData(
        list(groups.values()), QuestionBatcher(folder, processor, recipe.picture_end, recipe.answer_end), rng
    )


def train_vision(student: Student, classifier: PatchClassifier, data: TrainingData, steps: int) -> None:
    """Train the vision encoder, by itself, to name patches."""

    def loss(_: float) -> Tensor:
        examples = data.choose_examples()
        features = student.features([example.model_input for example in examples])
        patch_loss: Tensor = classifier(student.patches(features), examples)
        return patch_loss

    minimize([{"params": [*student.vision.parameters(), *classifier.parameters()]}], loss, steps, "vision")


def train_answers(student: Student, classifier: PatchClassifier, data: TrainingData, steps: int) -> None:
    """Train the whole model to answer."""
    vision = [*student.vision.parameters(), *classifier.parameters()]
    others = [parameter for part in student.others for parameter in part.parameters()]
    groups: list[dict[str, Any]] = [{"params": vision, "lr": LEARNING_RATE * VISION_RATE}, {"params": others}]
    minimize(groups, lambda done: answer_loss(student, classifier, data, negated_share(done)), steps, "answer")


def negated_share(done: float) -> float:
    """Return the share of negated questions when a share `done` of the training is over.

    Asked evenly from the start, "is there" and "is there not" cancel out and neither is learnt for a long time
    (after 2,560 steps 51 % of yes/no were right; this way 99.9 % after 2,600).
    """
    return 0.5 * min(1.0, done / NEGATION_RAMP)


def answer_loss(student: Student, classifier: PatchClassifier, data: TrainingData, negated: float) -> Tensor:
    """Return the loss of one step's answers and patches. Each picture is encoded once for all its questions."""
    examples = data.choose_examples()
    features = student.features([example.model_input for example in examples])
    batch = data.batcher.batch([choose_pairs(example, data.rng, negated) for example in examples])
    answers = F.cross_entropy(student.scores(features, batch), batch.targets[batch.is_answer])
    patches: Tensor = classifier(student.patches(features), examples)
    return answers + PATCH_WEIGHT * patches


def choose_pairs(example: Example, rng: random.Random, negated: float) -> list[Pair]:
    """Choose what to ask about one picture in one step."""
    pairs = [ask(example.scene, rng, negated) for _ in range(QUESTIONS)]
    if rng.random() < CAPTION_SHARE:
        pairs[0] = caption(example.scene)
    return pairs
