"""What a wording is: the text of a question as a harness or a model's authors put it, and what goes with it.

The wordings themselves stand beside it: of lmms-eval, of VLMEvalKit, and of the models' own numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jobs.benchmarks.benchmark import Item
from jobs.benchmarks.texts import with_options
from models.types import ImageSettings

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Wording:
    """How one question is put to a model.

    Attributes:
        text: With `<image k>` where the k-th image belongs; without such a mark, the images stand before it.
        max_new_tokens: The longest answer.
        marker: The answer is what follows the last of these, where the text has asked for one.
        images: What it wants of the images; None, or a setting that is None, leaves them as the run has them.
        has_marks: Whether `<image k>` in the text is a mark. In a data set with one image a row it is mere text, which
            some questions of MMStar hold.
    """

    text: str
    max_new_tokens: int
    marker: str | None = None
    images: ImageSettings | None = None
    has_marks: bool = True


class Asked(NamedTuple):
    """How the questions of one data set are put: what turns each into a text, and what all of them share."""

    text: Callable[[Item], str]
    max_new_tokens: int
    marker: str | None = None
    images: ImageSettings | None = None


def question(item: Item) -> str:
    """Ask the question alone."""
    return item.question


def stripped(item: Item) -> str:
    """Ask the question alone, without white space around it."""
    return item.question.strip()


def instructed(instruction: str) -> Callable[[Item], str]:
    """Return what puts an instruction under the question."""
    return lambda item: f"{item.question}\n{instruction}"


def optioned(instruction: str) -> Callable[[Item], str]:
    """Return what puts the options and an instruction under the question."""
    return lambda item: f"{with_options(item.question, item.choices)}\n{instruction}"
