"""Count how many questions a model gets right of those it was not trained on. Knows no family."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch

from jobs.demo.shapes import COLORS, KINDS
from models.types import ModelInput
from training import data
from training.data import Example
from training.lines import Lines
from training.pupil import Pupil
from training.questions import NUMBERS, Pair, caption

_SCORED_TOGETHER = 25

Verdict = tuple[str, bool]  # of one answer: its kind, and whether it is right


@torch.inference_mode()
def score_questions(pupil: Pupil, lines: Lines) -> Iterator[Verdict]:
    """Answer all held-out questions of easy-VQA.

    An answer is right if the likeliest token is the right one at each of its places, its end included, which is
    when greedy decoding gives it.
    """
    pictures, questions = data.load_held_out()
    by_picture = defaultdict(list)
    for question in questions:
        by_picture[question.picture].append(question.pair)
    names = list(by_picture)
    for some in (names[i : i + _SCORED_TOGETHER] for i in range(0, len(names), _SCORED_TOGETHER)):
        inputs = [lines.processor.prepare(data.question_request("", pictures[name])) for name in some]
        asked = [by_picture[name] for name in some]
        kinds = [answer_kind(pair.answer) for pairs in asked for pair in pairs]
        yield from zip(kinds, answers_right(pupil, lines, inputs, asked), strict=True)


@torch.inference_mode()
def score_captions(pupil: Pupil, lines: Lines, examples: Iterable[Example]) -> Iterator[Verdict]:
    """Caption scenes; a caption is right if it is so word for word."""
    for example in examples:
        (is_right,) = answers_right(pupil, lines, [example.model_input], [[caption(example.scene)]])
        yield f"caption of {NUMBERS[len(example.scene.shapes)]}", is_right


def tally(verdicts: Iterable[Verdict]) -> str:
    """Say how many are right, by kind."""
    by_kind = defaultdict(list)
    for kind, is_right in verdicts:
        by_kind[kind].append(is_right)
    shares = {kind: f"{sum(those)}/{len(those)} = {sum(those) / len(those):.1%}" for kind, those in by_kind.items()}
    return ", ".join(f"{kind} {shares[kind]}" for kind in sorted(shares))


def answers_right(
    pupil: Pupil, lines: Lines, inputs: Sequence[ModelInput], asked: Sequence[Sequence[Pair]]
) -> list[bool]:
    """Say of each question, picture by picture, whether greedy decoding gives its answer."""
    batch = lines.batch(asked)
    is_wrong = torch.zeros_like(batch.is_answer)
    scores = pupil.scores(pupil.features(inputs), batch)
    is_wrong[batch.is_answer] = scores.argmax(-1) != batch.targets[batch.is_answer]
    turns = [(place, turn) for place, pairs in enumerate(asked) for turn in range(1, len(pairs) + 1)]
    return [not is_wrong[place][batch.turns[place] == turn].any() for place, turn in turns]


def answer_kind(answer: str) -> str:
    """Name the kind of an easy-VQA answer: yes/no, shape or color."""
    if answer in KINDS:
        return "shape"
    return "color" if answer in COLORS else "yes/no"
