"""What the pipeline asks of a job: which columns it reads, what it asks the model, what it keeps.

The pipeline knows no job by name; `jobs` knows the pipeline.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from models.types import Answer, PictureFormat, Request, Sampling
from pipeline.input.read_settings import ReadSettings
from pipeline.input.sources import Source
from pipeline.pipeline_settings import CheckSettings

Row = Mapping[str, Any]


class MissingColumns(ValueError):
    """An input lacks columns that a job needs.

    Attributes:
        faults: One sentence per column.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)


class Check(Protocol):
    """What a second model is asked about each finished row of a job, and what is kept of its answers.

    It sees the picture that was drawn. A row whose check fails keeps its picture and has an error of stage `check`.
    """

    @property
    def settings(self) -> CheckSettings:
        """Which model, on what, and how it answers."""

    @property
    def template(self) -> str | None:
        """See Job.template."""

    def requests(self, row: Row, sampling: Sampling) -> Sequence[Request]:
        """Say what to ask about one finished row; `row` holds the columns of a part.

        Raises:
            BadRequest: It cannot be asked.
        """

    def record(self, row: Row, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Return values for columns of the job's schema: what the answers, in the order of the requests, make of it."""


class Job(Protocol):
    """One kind of work over rows. An instance is small, frozen and picklable: it travels to the CPU and GPU actors."""

    @property
    def kind(self) -> str:
        """The word under `job.kind`, e.g. `caption`."""

    @property
    def schema(self) -> pa.Schema:
        """The job's own output columns, in order."""

    @property
    def text_column(self) -> str:
        """Which of these holds the text that goes with an image: what the model wrote of it, or drew it from."""
        ...

    @property
    def required(self) -> Sequence[str]:
        """Columns (after `read.columns` has renamed them) without which the run must not start."""

    @property
    def optional(self) -> Sequence[str]:
        """Columns that the job reads where they are there."""

    @property
    def has_text_only_rows(self) -> bool:
        """Whether a row with a null image is asked without one (vqa) or becomes an error row (caption)."""

    @property
    def expects_images(self) -> bool:
        """Whether rows without any image are a mistake, unless `read.images` says that they are meant."""
        ...

    @property
    def template(self) -> str | None:
        """Plain text with `{image}` and `{question}` in the chat template's place; None keeps the checkpoint's."""

    @property
    def needs_unique_keys(self) -> bool:
        """Whether two rows with one key stop the run at its start; else they are only counted."""

    @property
    def sampling(self) -> Sampling:
        """How answers of this kind are chosen where the run's settings do not say."""

    @property
    def picture(self) -> PictureFormat | None:
        """How the pictures that this job asks for are encoded; None for a job that asks for text."""

    @property
    def check(self) -> Check | None:
        """What another model is asked about the finished rows; None for nothing."""

    def sources(self, read: ReadSettings) -> Sequence[Source]:
        """Name the data sets that a run reads whose settings say `read`; most jobs read that one and call it nothing.

        Their names differ, and there is at least one.
        """

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        """Return a source's rows as the job's steps see them: those of every source have the same columns.

        All rows stay, in their order, and so do `key`, `shard`, `index` and `images`. Rows that have an `error` already
        may hold nulls in any other column; a row that cannot be adapted gets one, of stage `adapt`.

        Raises:
            MissingColumns: The rows lack columns that are needed; told by a table without rows before anything starts.
        """

    def requests(self, row: Row, sampling: Sampling) -> Sequence[Request]:
        """Say what to ask for one row: a request for each answer that it wants, at least one.

        `row` holds `key`, `shard`, `index`, `images` (a tuple of bytes) and the input's other columns. `sampling` is
        the run's, with the row's own seed; each request has it, or what the row makes of it.

        Raises:
            BadRequest: The row cannot be asked; it becomes one error row of stage `template`.
        """

    def record(self, row: Row, answer: Answer | None, index: int, sampling: Sampling) -> Mapping[str, Any]:
        """Return the values of `schema` for one answer of a row.

        `index` is its place among the row's requests and `sampling` how it was chosen; `answer` is None for a row or an
        answer that failed.
        """

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        """Return what this job adds to report.json, `scores` among it.

        `results` holds what the job has kept of each row of all finished parts (jobs/report/job.py): columns of its
        own, narrow enough for a whole run.
        """
