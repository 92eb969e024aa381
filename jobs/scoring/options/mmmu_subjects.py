"""MMMU's thirty subjects in six disciplines, and its official table of accuracies over them.

It knows ids and answers that were read already, not responses of multiple choice.
Source: MMMU bb0b95a, mmmu/utils/data_utils.py and mmmu/main_eval_only.py.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias, TypedDict

from jobs.scoring.options.mmmu import is_multiple_choice, is_right, parse_open

DISCIPLINES: Mapping[str, tuple[str, ...]] = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power"),
        *("Materials", "Mechanical_Engineering"),
    ),
}
DISCIPLINE_OF: Mapping[str, str] = {
    subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects
}


class Answered(TypedDict):
    """A question of MMMU with what was read from the response: a letter, or an open question's whole response."""

    id: str
    question_type: str
    answer: str | list[str]
    parsed_pred: str


class Accuracy(TypedDict):
    """How many questions there are, and the share of right ones, rounded to three decimals as published."""

    num: int
    acc: float


# How many questions, and the share of right ones.
_Share: TypeAlias = tuple[int, float]


def subject_of(row_id: str) -> str:
    """Return the subject that an id such as `validation_Art_Theory_7` names."""
    return "_".join(row_id.split("_")[1:-1])


def mmmu_aggregate(items: Iterable[Answered]) -> dict[str, Accuracy]:
    """Return the official table: `Overall-<discipline>`, each subject that occurs, `Overall`.

    Raises:
        ValueError: An id names none of the thirty subjects, or a question is of neither kind.
    """
    shares = _shares(items)
    table: dict[str, Accuracy] = {}
    for discipline, subjects in DISCIPLINES.items():
        there = {subject: shares[subject] for subject in subjects if subject in shares}
        table[f"Overall-{discipline}"] = _accuracy(_together(there.values()))
        table.update({subject: _accuracy(share) for subject, share in there.items()})
    table["Overall"] = _accuracy(_together(shares[subject] for subject in sorted(shares)))
    return table


def _shares(items: Iterable[Answered]) -> dict[str, _Share]:
    right: dict[str, list[bool]] = {}
    for item in items:
        subject = subject_of(item["id"])
        if subject not in DISCIPLINE_OF:
            raise ValueError(
                f"found id {item['id']!r}, expected one of the thirty subjects between the first _ and last"
            )
        right.setdefault(subject, []).append(_is_right(item))
    return {subject: (len(these), sum(these) / len(these)) for subject, these in right.items()}


def _is_right(item: Answered) -> bool:
    answers = item["answer"] if isinstance(item["answer"], list) else [item["answer"]]
    if is_multiple_choice(item["question_type"]):
        return item["parsed_pred"] in answers
    return is_right(parse_open(item["parsed_pred"]), answers)


def _together(shares: Iterable[_Share]) -> _Share:
    # Shares weighted by their counts again, as published: the sum of right answers could round otherwise.
    num, right = 0, 0.0
    for count, share in shares:
        num, right = num + count, right + share * count
    return num, right / num if num else 0.0


def _accuracy(share: _Share) -> Accuracy:
    return {"num": share[0], "acc": round(share[1], 3)}
