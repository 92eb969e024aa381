"""MMBench's circular evaluation: a question is right only if it is with its options in every order.

It knows the scores of rows, not how a letter was read.
Source: VLMEvalKit e8e78f0, multiple_choice.py, mcq_circular_eval and report_acc.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A question's rotations have its index plus multiples of this.
ROTATION = 1_000_000


@dataclass(frozen=True)
class Circular:
    """The circular scores of MMBench's rows.

    Attributes:
        hits: Question: whether it is right in every rotation, 1 or 0. The share of these is the published score.
            A question is left out if its first rotation is not there.
        first_rotation: The share of questions that are right as first put ("vanilla").
        all_rows: The share of right rows, rotations counted one by one.
    """

    hits: Mapping[int, int]
    first_rotation: float
    all_rows: float


def question_of(index: int) -> int:
    """Return the question that a row belongs to: the index of its first rotation."""
    return index % ROTATION


def circular(rows: Iterable[tuple[int, float]]) -> Circular:
    """Return the circular scores of rows, given by index and score in any order.

    Raises:
        ValueError: An index occurs twice, or no row is a first rotation.
    """
    scores: dict[int, dict[int, float]] = defaultdict(dict)
    for index, score in rows:
        rotations = scores[question_of(index)]
        if index in rotations:
            raise ValueError(f"found index {index} twice, expected each rotation once")
        rotations[index] = score
    # In the order of questions, not of rows.
    firsts = {question: scores[question][question] for question in sorted(scores) if question in scores[question]}
    if not firsts:
        raise ValueError(f"found no row with an index below {ROTATION}, expected the first rotation of each question")
    everything = [score for question in sorted(scores) for _, score in sorted(scores[question].items())]
    return Circular(
        hits={question: int(all(score == 1 for score in scores[question].values())) for question in firsts},
        first_rotation=sum(firsts.values()) / len(firsts),
        all_rows=sum(everything) / len(everything),
    )
