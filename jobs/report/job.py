"""What a report asks of a job beside what the pipeline asks: how its rows are shown, and which are right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline import Job

Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Labels:
    """What a page calls things.

    Attributes:
        good: A row whose verdict is True.
        bad: A row whose verdict is False.
        finish_reasons: What follows a number of answers, by their `finish_reason`.
    """

    good: str
    bad: str
    finish_reasons: Mapping[str, str]


TEXT_LABELS = Labels(
    good="right",
    bad="wrong",
    finish_reasons={"stop": "ended by themselves", "length": "were cut off at the token limit", "error": "failed"},
)
PICTURE_LABELS = Labels(
    good="kept", bad="dropped", finish_reasons={"stop": "are whole", "length": "are incomplete", "error": "failed"}
)


class ReportedJob(Job, Protocol):
    """A job whose results can be looked at.

    Each of the `scores` that `summarize` returns is as `summarize_scores` of jobs/scoring/summary.py makes it of the
    rows of `score_table`; what else it returns is in report.json alone. A job asks questions, as jobs/vqa.py does, if
    its schema has the columns `benchmark`, `row_hash`, `score` and `parse_status`: then its rows are counted by
    benchmark. One whose sources have names needs the column `benchmark`: the gallery goes by it.
    """

    @property
    def title(self) -> str:
        """The headline of the page."""

    def card_lines(self, row: Mapping[str, Any]) -> Lines:
        """Return what stands under a row's image: labels and texts."""

    def summary_columns(self, columns: Sequence[str]) -> Sequence[str]:
        """Return which of a part's columns `verdicts` and `summary_rows` need."""

    def verdicts(self, results: pa.Table) -> Sequence[bool | None]:
        """Return for each row of a part whether it is right; None where that is not known."""

    def summary_rows(self, results: pa.Table) -> pa.Table:
        """Return what `summarize` needs of a part, a line for each of its rows.

        The lines of all parts are in memory together, ten million or more: numbers and repeated words, no texts.
        """


def labels_of(job: Job) -> Labels:
    """Return the labels of a job: it answers in text, right or wrong, or draws pictures that a check keeps or drops."""
    return TEXT_LABELS if job.picture is None else PICTURE_LABELS
