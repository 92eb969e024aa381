"""What the pipeline asks of a job: which columns it reads, what it asks the model, what it keeps.

The pipeline knows no job by name; `jobs` knows the pipeline.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from models.types import Answer, Request

Row = Mapping[str, Any]


class Job(Protocol):
    """One kind of work over rows. An instance is small, frozen and picklable: it travels to the CPU and GPU actors."""

    @property
    def kind(self) -> str:
        """The word under `job.kind`, e.g. `caption`."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The job's own output columns, in order."""
        ...

    @property
    def required(self) -> Sequence[str]:
        """Columns (after `read.columns` has renamed them) without which the run must not start."""
        ...

    @property
    def has_text_only_rows(self) -> bool:
        """Whether a row with a null image is asked without one (vqa) or becomes an error row (caption)."""
        ...

    @property
    def template(self) -> str | None:
        """Plain text with `{image}` and `{question}` in the chat template's place; None keeps the checkpoint's."""
        ...

    @property
    def needs_unique_keys(self) -> bool:
        """Whether two rows with one key stop the run at its start; else they are only counted."""
        ...

    def request(self, row: Row) -> Request:
        """Say what to ask for one row. The pipeline fills in `sampling`, with the row's own seed.

        `row` holds `key`, `shard`, `index`, `images` (a tuple of bytes) and the input's other columns.

        Raises:
            BadRequest: The row cannot be asked; it becomes an error row of stage `template`.
        """
        ...

    def record(self, row: Row, answer: Answer | None) -> Mapping[str, Any]:
        """Return the values of `schema` for one row; `answer` is None for a row that failed."""
        ...

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        """Return what this job adds to report.json, `scores` among it, from the finished parts' columns.

        `results` holds every column of the parts except token ids and log-probabilities.
        """
        ...
