"""Train the toy checkpoint of the demo: `python -m jobs.demo.train aria`; seeded, within 20 minutes on a CPU.

Two stages, because an eye that learns through the answers alone hardly learns shapes in this time: first the vision
tower by itself names what each patch shows, then the whole model answers while the tower goes on naming patches
at half the weight. The head that names patches is thrown away.

Shapes: N pictures, P patches, S sequences, T tokens, D width, V vocabulary.
"""

import argparse
import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.demo import train_data, train_folder
from jobs.demo.questions import Pair, ask, caption, vocabulary
from jobs.demo.scenes import draw_scene
from jobs.demo.train_data import Example
from jobs.demo.train_score import Lines, score_captions, score_questions, tally
from models import load_processor
from models.aria.model import AriaModel

log = logging.getLogger(__name__)

OUT = Path(__file__).parent / "checkpoints" / "aria"
SEED = 0
MINUTES = 12.0
# Steps, not seconds, end the training, so that a seed gives the same weights on any machine; these are the rates
# of one 2.5 GHz core.
LOOK_SHARE = 0.13
LOOKS_PER_MINUTE = 2_100
ANSWERS_PER_MINUTE = 630

PICTURES = 8  # per step; 16 learn less in the same time, 4 are too noisy for the rate
QUESTIONS = 4  # per picture and step
CAPTION_SHARE = 0.6
RATE = 2e-3
VISION_RATE = 0.3  # of RATE, once the tower has learnt to look
NEGATION_RAMP = 0.4  # of the answering stage
PATCH_WEIGHT = 0.5
BACKGROUND_WEIGHT = 0.25

NEW_SCENES = 200  # drawn to measure captions, of one shape and of two


@dataclass(frozen=True)
class Course:
    """What stays the same over a training.

    Attributes:
        groups: Examples with tiles of one size each; a step takes its pictures from one group.
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
        self.linear = nn.Linear(width, train_data.NUM_LABELS)
        weight = torch.ones(train_data.NUM_LABELS)
        weight[0] = BACKGROUND_WEIGHT
        self.register_buffer("weight", weight)

    def forward(self, features: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return the loss of naming (N, P, D)."""
        labels = torch.from_numpy(np.concatenate([example.labels for example in examples]))
        return F.cross_entropy(self.linear(features).flatten(0, 1), labels, self.get_buffer("weight"))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.train", description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=["aria"])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of one 2.5 GHz core; sets the number of steps")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=OUT, help="checkpoint folder to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(arguments.out, arguments.minutes, arguments.seed)


def train(folder: Path, minutes: float, seed: int) -> None:
    """Train a checkpoint and write it, then measure it on held-out train pictures and new scenes."""
    torch.set_num_threads(1)  # the matrices are so small that a second thread only spins
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    train_folder.write_files(folder, vocabulary())
    model = train_folder.new_model(folder, generator)
    course = prepare(folder, random.Random(seed))
    namer = Namer(train_folder.VISION["hidden_size"])
    look(model, namer, course, round(minutes * LOOK_SHARE * LOOKS_PER_MINUTE))
    answer(model, namer, course, round(minutes * (1 - LOOK_SHARE) * ANSWERS_PER_MINUTE))
    train_folder.save_weights(model, folder)
    log.info("held-out questions: %s", tally(score_questions(model, course.lines)))
    drawn = [draw_scene(course.rng, num_shapes) for num_shapes in (1, 2) for _ in range(NEW_SCENES)]
    examples = train_data.make_examples(drawn, course.lines.processor, train_folder.PATCH)
    log.info("new scenes: %s", tally(score_captions(model, course.lines, examples)))


def prepare(folder: Path, rng: random.Random) -> Course:
    """Load and draw everything to learn from."""
    processor = load_processor(str(folder))
    scenes = train_data.load_scenes() + train_data.draw_scenes(rng)
    groups = defaultdict(list)
    for example in train_data.make_examples(scenes, processor, train_folder.PATCH):
        groups[example.tile.shape].append(example)
    log.info("%d pictures of %d sizes", len(scenes), len(groups))
    return Course(list(groups.values()), Lines(folder, processor), rng)


def look(model: AriaModel, namer: Namer, course: Course, steps: int) -> None:
    """Teach the vision tower, by itself, to name patches."""

    def loss(_: float) -> Tensor:
        examples = course.pictures()
        features = model.vision_tower(model.normalise([example.tile for example in examples]))
        patches: Tensor = namer(features, examples)
        return patches

    descend([{"params": [*model.vision_tower.parameters(), *namer.parameters()]}], loss, steps, "look")


def answer(model: AriaModel, namer: Namer, course: Course, steps: int) -> None:
    """Teach the whole model to answer."""
    seen = [*model.vision_tower.parameters(), *namer.parameters()]
    said = [*model.multi_modal_projector.parameters(), *model.language_model.parameters()]
    groups: list[dict[str, Any]] = [{"params": seen, "lr": RATE * VISION_RATE}, {"params": said}]
    descend(groups, lambda done: answer_loss(model, namer, course, negated_share(done)), steps, "answer")


def negated_share(done: float) -> float:
    """Return the share of negated questions when a share `done` of the training is over.

    Asked evenly from the start, "is there" and "is there not" cancel out and neither is learnt for a long time
    (after 2,560 steps 51 % of yes/no were right; this way 99.9 % after 2,600).
    """
    return 0.5 * min(1.0, done / NEGATION_RAMP)


def answer_loss(model: AriaModel, namer: Namer, course: Course, negated: float) -> Tensor:
    """Return the loss of one step's answers and patches. Each picture is encoded once for all its questions."""
    examples = course.pictures()
    features = model.vision_tower(model.normalise([example.tile for example in examples]))  # (N, P, D)
    rows = model.multi_modal_projector(features, course.lines.num_queries)
    batch = course.lines.batch([questions(example, course.rng, negated) for example in examples])
    said = F.cross_entropy(batch.scores(model, rows), batch.targets[batch.targets >= 0])
    patches: Tensor = namer(features, examples)
    return said + PATCH_WEIGHT * patches


def questions(example: Example, rng: random.Random, negated: float) -> list[Pair]:
    """Choose what to ask about one picture in one step."""
    pairs = [ask(example.scene, rng, negated) for _ in range(QUESTIONS)]
    if rng.random() < CAPTION_SHARE:
        pairs[0] = caption(example.scene)
    return pairs


def descend(groups: list[dict[str, Any]], loss: Callable[[float], Tensor], steps: int, name: str) -> None:
    """Take optimizer steps: a short warm-up, constant to 40 %, then half a cosine down to 2 %."""
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    started, average = time.process_time(), 0.0
    for step in range(1, steps + 1):
        value = loss(step / steps)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average += (value.item() - average) / min(step, 100)
        if step % 200 == 0 or step == steps:
            log.info("%s %d/%d: loss %.3f, %.0f CPU-s", name, step, steps, average, time.process_time() - started)


def rate_at(step: int, steps: int) -> float:
    """Return the share of the full learning rate at a step."""
    if step < 60:
        return (step + 1) / 60
    done = max(0.0, (step / steps - 0.4) / 0.6)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * min(done, 1.0))) / 2


if __name__ == "__main__":
    main()
