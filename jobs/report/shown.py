"""What a report asks of a job beside what the pipeline asks: how its rows are shown, and which are right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline import Job

Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Words:
    """What a page calls things.

    Attributes:
        good: A row whose verdict is True.
        bad: A row whose verdict is False.
        reasons: What stands in the column `finish_reason`, after a number of answers.
    """

    good: str
    bad: str
    reasons: Mapping[str, str]


TEXTS = Words(
    good="right",
    bad="wrong",
    reasons={"stop": "ended by themselves", "length": "were cut off at the token limit", "error": "failed"},
)
PICTURES = Words(
    good="kept", bad="dropped", reasons={"stop": "are whole", "length": "are incomplete", "error": "failed"}
)


class ShownJob(Job, Protocol):
    """A job whose results can be looked at."""

    @property
    def title(self) -> str:
        """The headline of the page."""
        ...

    def shown(self, row: Mapping[str, Any]) -> Lines:
        """Return what stands under a row's image: labels and texts."""
        ...

    def summarized(self, columns: Sequence[str]) -> Sequence[str]:
        """Say which of a part's columns `verdicts` and `narrow` look at."""
        ...

    def verdicts(self, results: pa.Table) -> Sequence[bool | None]:
        """Say of each row of a part whether it is right; None where that is not known."""
        ...

    def narrow(self, results: pa.Table) -> pa.Table:
        """Return what `summarize` needs of a part, a line for each of its rows.

        Those of all parts are held together, ten million rows or more: numbers and words that come again, no texts.
        """
        ...


def words_of(job: Job) -> Words:
    """Return what fits a job: it answers in words, right or wrong, or draws pictures, of which a check keeps some."""
    return TEXTS if job.picture is None else PICTURES
