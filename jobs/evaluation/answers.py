"""Stored answers before they are scored: their rows, and the settings by which they are read and scored.

They are those of a run (run_answers.py), or of another tool and joined with a data set (file_answers.py). The vqa job
reads and scores each response.
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
from jobs.vqa import VqaJob, VqaSettings
from models.types import Answer
from pipeline import Unit


class Piece(NamedTuple):
    """The rows of one part, and its name."""

    path: str
    rows: pa.Table


@dataclass(frozen=True)
class Answers:
    """Answers that are about to be scored.

    Attributes:
        settings: The settings of the scored output.
        frozen: What the scored output has frozen beside them: weights, device, versions.
        units: All rows of the input, answered or not.
        warnings: What is wrong with the data although its rows could be read.
        attempts: What starts of the run have written down, by path.
        is_whole: Whether each row has its answer or its error.
        pieces: Gives the rows, scored; it may be called several times.
    """

    settings: RunSettings
    frozen: Mapping[str, Any]
    units: Sequence[Unit]
    warnings: Sequence[str]
    attempts: Mapping[str, bytes]
    is_whole: bool
    pieces: Callable[[], Iterator[Piece]]


class Reader:
    """Reads stored answers as the vqa job reads fresh ones."""

    def __init__(self, job: VqaJob, end_tokens: Sequence[str]) -> None:
        self._tasks = {}
        for name in job.metrics:
            task = job.task(name)
            self._tasks[name] = replace(task, reading=replace(task.reading, end_tokens=tuple(end_tokens)))

    def read(self, row: Mapping[str, Any], answer: Answer | None) -> dict[str, Any]:
        """Return the columns of one row that come from its answer: `response` to `choice_logprobs`.

        Args:
            row: With `benchmark, key, seed` and a question as in the results.
            answer: The answer; None for a row that has none.

        Raises:
            ReportError: The rule cannot score such a row.
        """
        benchmark = row["benchmark"]
        task = self._tasks.get(benchmark)
        if task is None:
            raise ReportError(f"found a row of {benchmark}, expected one of {', '.join(self._tasks)}")
        rule = task.reading.rule
        if answer is not None and rule in LIKELIHOOD and not answer.choice_logprobs:
            raise ReportError(
                f"{benchmark}: {rule} needs choice_logprobs, and row {row['key']} has none; "
                "expected the output of a run by it, or `--rule` with one that reads texts"
            )
        item = None if row["row_hash"] is None else from_column(row)
        try:
            return task.read(item, answer, row["key"], row["seed"] or 0)
        except (ValueError, MathVerifyMissing) as error:
            raise ReportError(f"{benchmark}: {rule} cannot score row {row['key']}: {error}") from error


def vqa_job(settings: RunSettings) -> VqaJob:
    """Return the job of settings whose answers can be scored.

    Raises:
        ReportError: They are of another job.
    """
    if not isinstance(settings.job, VqaSettings):
        raise ReportError(f"found answers of a {settings.job.kind} job, expected those of a vqa job")
    return settings.job.build()


def stored_answer(text: str, *, is_truncated: bool, choice_logprobs: Sequence[float] = ()) -> Answer:
    """Return an answer of which only the text, how it ended, and perhaps the choices' scores are known."""
    return Answer(
        text=text,
        image=None,
        token_ids=(),
        logprobs=(),
        finish_reason="length" if is_truncated else "stop",
        prompt_tokens=0,
        image_tokens=0,
        choice_logprobs=tuple(choice_logprobs),
    )
