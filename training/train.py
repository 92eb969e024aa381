"""Train a toy checkpoint of the demo, of any family; seeded, within 20 minutes on a CPU.

Two stages, because an eye that learns through the answers alone hardly learns shapes in this time: first the eye by
itself names what each patch shows, then the whole model answers while the eye goes on naming patches at half the
weight. The head that names patches is thrown away.

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
from training import data
from training.data import Example
from training.descent import RATE, descend
from training.lines import Lines
from training.pupil import Pupil, Recipe
from training.questions import Pair, ask, caption, vocabulary
from training.scenes import draw_scene
from training.score import score_captions, score_questions, tally

log = logging.getLogger(__name__)

LOOK_SHARE = 0.13  # of the minutes

PICTURES = 8  # per step; 16 learn less in the same time, 4 are too noisy for the rate
QUESTIONS = 4  # per picture and step
CAPTION_SHARE = 0.6
EYE_RATE = 0.3  # of RATE, once the eye has learnt to look
NEGATION_RAMP = 0.4  # of the answering stage
PATCH_WEIGHT = 0.5
BACKGROUND_WEIGHT = 0.25

NEW_SCENES = 200  # drawn to measure captions, of one shape and of two


@dataclass(frozen=True)
class Course:
    """What stays the same over a training.

    Attributes:
        groups: Examples with tiles of one size and layout each; a step takes its pictures from one group.
        lines: Spells questions and answers.
        rng: Chooses pictures and questions.
    """

    groups: Sequence[Sequence[Example]]
    lines: Lines
    rng: random.Random

    def pictures(self) -> list[Example]:
        """Choose one step's pictures."""
        group = self.rng.choices(self.groups, [len(group) for group in self.groups])[0]
        return self.rng.choices(group, k=PICTURES)


class Namer(nn.Module):
    """The head that names patches; it never leaves the training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, data.NUM_LABELS)
        weight = torch.ones(data.NUM_LABELS)
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
    pupil = recipe.new_pupil(folder, generator)
    course = prepare(recipe, pupil, folder, random.Random(seed))
    namer = Namer(pupil.num_features)
    look(pupil, namer, course, round(minutes * LOOK_SHARE * recipe.looks_per_minute))
    answer(pupil, namer, course, round(minutes * (1 - LOOK_SHARE) * recipe.answers_per_minute))
    pupil.save(folder)
    log.info("held-out questions: %s", tally(score_questions(pupil, course.lines)))
    drawn = [draw_scene(course.rng, num_shapes) for num_shapes in (1, 2) for _ in range(NEW_SCENES)]
    examples = data.make_examples(drawn, course.lines.processor, pupil.labels)
    log.info("new scenes: %s", tally(score_captions(pupil, course.lines, examples)))


def prepare(recipe: Recipe, pupil: Pupil, folder: Path, rng: random.Random) -> Course:
    """Load and draw everything to learn from."""
    processor = load_processor(str(folder))
    scenes = data.load_scenes() + data.draw_scenes(rng)
    groups = defaultdict(list)
    for example in data.make_examples(scenes, processor, pupil.labels):
        seen = example.model_input
        groups[seen.layout, seen.tiles[0].shape].append(example)
    log.info("%d pictures of %d sizes", len(scenes), len(groups))
    return Course(list(groups.values()), Lines(folder, processor, recipe.opening, recipe.end), rng)


def look(pupil: Pupil, namer: Namer, course: Course, steps: int) -> None:
    """Teach the eye, by itself, to name patches."""

    def loss(_: float) -> Tensor:
        examples = course.pictures()
        features = pupil.features([example.model_input for example in examples])
        patches: Tensor = namer(pupil.patches(features), examples)
        return patches

    descend([{"params": [*pupil.eye.parameters(), *namer.parameters()]}], loss, steps, "look")


def answer(pupil: Pupil, namer: Namer, course: Course, steps: int) -> None:
    """Teach the whole model to answer."""
    seen = [*pupil.eye.parameters(), *namer.parameters()]
    said = [parameter for part in pupil.voice for parameter in part.parameters()]
    groups: list[dict[str, Any]] = [{"params": seen, "lr": RATE * EYE_RATE}, {"params": said}]
    descend(groups, lambda done: answer_loss(pupil, namer, course, negated_share(done)), steps, "answer")


def negated_share(done: float) -> float:
    """Return the share of negated questions when a share `done` of the training is over.

    Asked evenly from the start, "is there" and "is there not" cancel out and neither is learnt for a long time
    (after 2,560 steps 51 % of yes/no were right; this way 99.9 % after 2,600).
    """
    return 0.5 * min(1.0, done / NEGATION_RAMP)


def answer_loss(pupil: Pupil, namer: Namer, course: Course, negated: float) -> Tensor:
    """Return the loss of one step's answers and patches. Each picture is encoded once for all its questions."""
    examples = course.pictures()
    features = pupil.features([example.model_input for example in examples])
    batch = course.lines.batch([questions(example, course.rng, negated) for example in examples])
    said = F.cross_entropy(pupil.scores(features, batch), batch.targets[batch.is_answer])
    patches: Tensor = namer(pupil.patches(features), examples)
    return said + PATCH_WEIGHT * patches


def questions(example: Example, rng: random.Random, negated: float) -> list[Pair]:
    """Choose what to ask about one picture in one step."""
    pairs = [ask(example.scene, rng, negated) for _ in range(QUESTIONS)]
    if rng.random() < CAPTION_SHARE:
        pairs[0] = caption(example.scene)
    return pairs
