"""Stored answers on their way to new scores: which rows they belong to, and whose settings they are scored by.

They come from a run's output (stored.py) or are joined with a data set's rows (joined.py). How a response is read and
scored is the vqa job's own affair; nothing here knows rules.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from jobs.benchmarks.items import from_column
from jobs.config import RunSettings
from jobs.report.results import ReportError
from jobs.scoring.rules import LIKELIHOOD
from jobs.scoring.rules.math import MathVerifyMissing
from jobs.vqa import SCHEMA, VqaJob, VqaSettings
from models.types import Answer
from pipeline import Unit

# What reading a response gives; everything else of a row stays as it is.
READ = ("response", "response_clean", "parsed", "parse_status", "score", "rule", "other_scores", "choice_logprobs")


class Piece(NamedTuple):
    """Some rows, and the name of the part that they make."""

    path: str
    rows: pa.Table


@dataclass(frozen=True)
class Answers:
    """Answers that are about to be scored.

    Attributes:
        settings: As the scored output will hold them.
        frozen: What else stands beside them there: weights, device, versions, where the answers come from.
        units: All rows that there are, answered or not.
        warnings: What is wrong with the data although its rows could be read.
        attempts: What starts of the run have written down, by path.
        is_whole: Whether each row has its answer or its error.
        pieces: Gives the rows, scored, as often as it is called.
    """

    settings: RunSettings
    frozen: Mapping[str, Any]
    units: Sequence[Unit]
    warnings: Sequence[str]
    attempts: Mapping[str, bytes]
    is_whole: bool
    pieces: Callable[[], Iterator[Piece]]

    @property
    def job(self) -> VqaJob:
        """What reads and scores the answers."""
        return vqa_job(self.settings)

    @property
    def planned_rows(self) -> int:
        """How many rows there are, answered or not."""
        return sum(unit.num_rows for unit in self.units)


class Reader:
    """Reads stored answers as the vqa job reads fresh ones."""

    def __init__(self, job: VqaJob, end_tokens: Sequence[str]) -> None:
        self._job = job
        self._tasks = {
            name: replace(task, reading=replace(task.reading, end_tokens=tuple(end_tokens)))
            for name, task in ((name, job.task(name)) for name in job.metrics)
        }

    def read(self, row: Mapping[str, Any], answer: Answer | None) -> dict[str, Any]:
        """Return the columns READ of one row.

        Args:
            row: With `benchmark, key, seed` and a question in our words.
            answer: None for a row that has none.

        Raises:
            ReportError: The rule cannot look at such a row.
        """
        task = self._tasks.get(row["benchmark"])
        if task is None:
            raise ReportError(f"found a row of {row['benchmark']}, expected one of {', '.join(self._tasks)}")
        item = None if row["row_hash"] is None else from_column(row)
        if answer is not None and task.reading.rule in LIKELIHOOD and not answer.choice_logprobs:
            raise ReportError(
                f"{row['benchmark']}: {task.reading.rule} looks at choice_logprobs, and row {row['key']} has none; "
                "expected the output of a run by it, or `--rule` with one that reads texts"
            )
        try:
            return task.read(item, answer, row["key"], row["seed"] or 0)
        except (ValueError, MathVerifyMissing) as error:
            raise ReportError(
                f"{row['benchmark']}: {task.reading.rule} cannot score row {row['key']}: {error}"
            ) from error


def vqa_job(settings: RunSettings) -> VqaJob:
    """Return the job of settings whose answers can be scored.

    Raises:
        ReportError: They are of another job.
    """
    if not isinstance(settings.job, VqaSettings):
        raise ReportError(f"found answers of a {settings.job.kind} job, expected those of a vqa job")
    return settings.job.build()


def with_columns(rows: pa.Table, read: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Put the columns READ in their places."""
    for name in READ:
        field = SCHEMA.field(name)
        column = pa.array([one[name] for one in read], field.type)
        place = rows.column_names.index(name) if name in rows.column_names else rows.num_columns
        rows = rows.set_column(place, field, column) if place < rows.num_columns else rows.append_column(field, column)
    return rows
