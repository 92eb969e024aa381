"""DPG-bench: how much of a long prompt a picture shows, from a model's answers to questions about it.

It knows questions, which of them depend on others, and answers as strings, not the model (mPLUG) behind published
numbers. Source: TencentQQGYLab/ELLA 3c228f1, compute_dpg_bench.py.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Question:
    """A question of a prompt: what it asks for, e.g. `entity - whole (a)`, and which ones it depends on (0: none)."""

    tuple_text: str
    parents: tuple[int, ...]
    text: str = ""

    @property
    def category(self) -> str:
        """Return the fine category, e.g. `entity - whole`; the broad one is the part before its hyphen."""
        return self.tuple_text.split("(")[0].strip()


@dataclass(frozen=True)
class PictureScore:
    """One picture's score, each crop's, and what the last crop's answers say by category before any is set to 0."""

    score: float
    crops: tuple[float, ...]
    categories: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Summary:
    """Shares of 0 to 1: over pictures, and over answers by broad and by fine category."""

    score: float
    broad: Mapping[str, float]
    fine: Mapping[str, float]
    pictures: int


def read_questions(file: IO[str], *, skip_first: bool = True) -> dict[str, dict[int, Question]]:
    """Read dpg_bench.csv: each prompt's questions by number.

    Args:
        file: The table as text, opened with `newline=""`.
        skip_first: Leave out the first row, one question of 14,000, as the official loader does.
    """
    prompts: dict[str, dict[int, Question]] = {}
    before = None
    for place, row in enumerate(csv.DictReader(file)):
        if place == 0 and skip_first:
            continue
        if row["item_id"] != before:
            prompts[row["item_id"]] = {}
        before = row["item_id"]
        parents = tuple(int(number) for number in row["dependency"].split(","))
        question = Question(row["tuple"], parents, row["question_natural_language"])
        prompts[row["item_id"]][int(row["proposition_id"])] = question
    return prompts


def score_picture(questions: Mapping[int, Question], crops: Sequence[Mapping[int, str]]) -> PictureScore:
    """Score one picture: the mean over its crops of the share of questions that are answered `yes`.

    Nothing else than this very word counts. A question whose parent counts nothing counts nothing either; questions
    are gone through in the order given, so that this reaches down a chain.

    Args:
        questions: Of the picture's prompt, by number.
        crops: For each crop the answer to every question; a grid of four pictures has four, a single one has one.

    Raises:
        ValueError: There are no crops or no questions, an answer is missing, or a parent is no question.
    """
    if not questions or not crops:
        raise ValueError(f"found {len(questions)} questions and {len(crops)} crops, expected at least one of each")
    shares = []
    yes: dict[int, float] = {}
    for answers in crops:
        yes = _answered_yes(questions, answers)
        shares.append(sum(_after_dependencies(questions, yes).values()) / len(questions))
    categories: dict[str, list[float]] = {}
    for number, question in questions.items():
        categories.setdefault(question.category, []).append(yes[number])
    return PictureScore(sum(shares) / len(shares), tuple(shares), categories)


def summarize(pictures: Iterable[PictureScore]) -> Summary:
    """Average over pictures; categories are means over answers, not over pictures.

    Raises:
        ValueError: There are no pictures.
    """
    scores: list[float] = []
    broad: dict[str, list[float]] = {}
    fine: dict[str, list[float]] = {}
    for picture in pictures:
        scores.append(picture.score)
        for category, answers in picture.categories.items():
            fine.setdefault(category, []).extend(answers)
            broad.setdefault(category.split("-")[0].strip(), []).extend(answers)
    if not scores:
        raise ValueError("found no pictures, expected at least one")
    return Summary(sum(scores) / len(scores), _means(broad), _means(fine), len(scores))


def _answered_yes(questions: Mapping[int, Question], answers: Mapping[int, str]) -> dict[int, float]:
    missing = [number for number in questions if number not in answers]
    if missing:
        raise ValueError(f"found no answer to question {missing[0]}, expected one for each of {len(questions)}")
    return {number: float(answers[number] == "yes") for number in questions}


def _after_dependencies(questions: Mapping[int, Question], yes: Mapping[int, float]) -> dict[int, float]:
    scores = dict(yes)
    for number, question in questions.items():
        parents = [parent for parent in question.parents if parent]
        unknown = [parent for parent in parents if parent not in scores]
        if unknown:
            raise ValueError(
                f"found question {number} that depends on {unknown[0]}, expected the number of a question or 0"
            )
        if not all(scores[parent] for parent in parents):
            scores[number] = 0.0
    return scores


def _means(groups: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(groups[name]) / len(groups[name]) for name in sorted(groups)}
