"""Count how many answers are right to questions that were kept out of the training. Knows no family."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch

from jobs.demo.data import answer_type
from models.types import ModelInput
from training import dataset
from training.batches import QuestionBatcher
from training.dataset import Example
from training.questions import NUMBERS, Pair, caption
from training.student import Student

_PICTURES_PER_BATCH = 25

Result = tuple[str, bool]  # of one answer or picture: what is counted, and whether it is right


@torch.inference_mode()
def score_questions(student: Student, batcher: QuestionBatcher) -> Iterator[Result]:
    """Answer all held-out questions of easy-VQA.

    An answer is right if the likeliest token is the right one at each of its places, its end included: then
    greedy decoding gives it.
    """
    pictures, questions = dataset.load_held_out()
    pairs_of = defaultdict(list)
    for question in questions:
        pairs_of[question.picture].append(question.pair)
    names = list(pairs_of)
    for batch in (names[i : i + _PICTURES_PER_BATCH] for i in range(0, len(names), _PICTURES_PER_BATCH)):
        inputs = [batcher.processor.prepare(dataset.question_request("", pictures[name])) for name in batch]
        pairs_of_pictures = [pairs_of[name] for name in batch]
        kinds = [answer_type(pair.answer) for pairs in pairs_of_pictures for pair in pairs]
        yield from zip(kinds, answers_right(student, batcher, inputs, pairs_of_pictures), strict=True)


@torch.inference_mode()
def score_captions(student: Student, batcher: QuestionBatcher, examples: Iterable[Example]) -> Iterator[Result]:
    """Caption scenes; a caption is right if every word is."""
    for example in examples:
        (is_right,) = answers_right(student, batcher, [example.model_input], [[caption(example.scene)]])
        yield f"caption of {NUMBERS[len(example.scene.shapes)]}", is_right


def summarize(results: Iterable[Result]) -> str:
    """Say how many are right, by what is counted."""
    by_kind = defaultdict(list)
    for kind, is_right in results:
        by_kind[kind].append(is_right)
    return ", ".join(
        f"{kind} {sum(right)}/{len(right)} = {sum(right) / len(right):.1%}" for kind, right in sorted(by_kind.items())
    )


def answers_right(
    student: Student,
    batcher: QuestionBatcher,
    inputs: Sequence[ModelInput],
    pairs_of_pictures: Sequence[Sequence[Pair]],
) -> list[bool]:
    """Say of each question, picture by picture, whether greedy decoding gives its answer."""
    batch = batcher.batch(pairs_of_pictures)
    is_wrong = torch.zeros_like(batch.is_answer)
    scores = student.scores(student.features(inputs), batch)
    is_wrong[batch.is_answer] = scores.argmax(-1) != batch.targets[batch.is_answer]
    return [
        not is_wrong[row][batch.question_of[row] == number].any()
        for row, pairs in enumerate(pairs_of_pictures)
        for number in range(1, len(pairs) + 1)
    ]
