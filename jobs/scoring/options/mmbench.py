"""MMBench's circular evaluation: a question is right only if it is with its options in every order.

It knows the scores of rows and what they are counted under, not how a letter was read.
Source: VLMEvalKit e8e78f0, multiple_choice.py, mcq_circular_eval and report_acc.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# A question's rotations have its index plus multiples of this.
ROTATION = 1_000_000


@dataclass(frozen=True)
class Rotation:
    """A row: one question with its options in one order, and what its answer scored."""

    index: int
    score: float
    category: str = ""
    l2_category: str = ""
    split: str = ""


class Share(NamedTuple):
    """A share of right questions, and how many there are."""

    score: float
    n: int


@dataclass(frozen=True)
class Circular:
    """What the rows of MMBench come to.

    Attributes:
        hits: Question: whether it is right in every rotation, 1 or 0.
        overall: The share of such questions; the published score.
        first_rotation: The share of questions that are right as first put ("vanilla").
        all_rows: The share of right rows, rotations counted one by one.
        categories: `overall` by category.
        l2_categories: The same by the coarser L2 category.
        splits: The same by split.
        without_first: Questions that are left out of all this but `all_rows`, as their first rotation is not there.
    """

    hits: Mapping[int, int]
    overall: Share
    first_rotation: Share
    all_rows: Share
    categories: Mapping[str, Share]
    l2_categories: Mapping[str, Share]
    splits: Mapping[str, Share]
    without_first: tuple[int, ...]


def question_of(index: int) -> int:
    """Return the question that a row belongs to: the index of its first rotation."""
    return index % ROTATION


def circular(rows: Iterable[Rotation]) -> Circular:
    """Bring rows together, in any order. The first rotation says what its question is counted under.

    Raises:
        ValueError: An index occurs twice, or no row is a first rotation.
    """
    scores: dict[int, dict[int, float]] = defaultdict(dict)
    firsts: dict[int, Rotation] = {}
    for row in rows:
        question = question_of(row.index)
        if row.index in scores[question]:
            raise ValueError(f"found index {row.index} twice, expected each rotation once")
        scores[question][row.index] = row.score
        if row.index == question:
            firsts[question] = row
    if not firsts:
        raise ValueError(f"found no row with an index below {ROTATION}, expected the first rotation of each question")
    # In the order of questions, not of rows.
    hits = {question: int(all(score == 1 for score in scores[question].values())) for question in sorted(firsts)}
    return Circular(
        hits=hits,
        overall=_share(list(hits.values())),
        first_rotation=_share([firsts[question].score for question in hits]),
        all_rows=_share([score for question in sorted(scores) for _, score in sorted(scores[question].items())]),
        categories=_by({question: firsts[question].category for question in hits}, hits),
        l2_categories=_by({question: firsts[question].l2_category for question in hits}, hits),
        splits=_by({question: firsts[question].split for question in hits}, hits),
        without_first=tuple(sorted(set(scores) - set(firsts))),
    )


def _by(groups: Mapping[int, str], hits: Mapping[int, int]) -> dict[str, Share]:
    cells: dict[str, list[float]] = defaultdict(list)
    for question, group in groups.items():
        if group:
            cells[group].append(hits[question])
    return {group: _share(cells[group]) for group in sorted(cells)}


def _share(scores: Sequence[float]) -> Share:
    return Share(sum(scores) / len(scores), len(scores))
