"""What the jobs have in common; each says for itself what it asks, keeps and counts.

To add a job, write a file beside this one:
1. Its settings, with a `kind` of their own, a docstring that says what each means, and a `build` that returns the job;
   they stand at the end of the union in jobs/config.py.
2. The job, a frozen dataclass derived from `PlainJob`: what it asks and keeps, as pipeline/job.py has it (`schema`,
   `text_column`, `requests`, `record`), and how it is reported, as jobs/report/job.py has it (`title`, `card_lines`,
   `verdicts` and, for scores, `summary_columns`, `summary_rows` and `summarize`). Where a member is missing or differs,
   the type checker says so of the union in jobs/start.py, and tests/jobs/test_jobs.py names it.
3. A YAML in configs/, which tests/jobs/test_config.py reads, and tests like those of captions in
   tests/jobs/test_jobs.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.prompt import GREEDY
from models.types import PictureFormat, Sampling
from pipeline import Check, ReadSettings, Source


@dataclass(frozen=True, kw_only=True)
class PlainJob:
    """The part of a job that says nothing of its rows: it reads one input and asks for text. See pipeline.job.Job."""

    kind: str
    text_column: str
    optional: Sequence[str] = ()
    has_text_only_rows: bool = False
    expects_images: bool = False
    needs_unique_keys: bool = False
    template: str | None = None
    sampling: Sampling = GREEDY
    picture: PictureFormat | None = None
    check: Check | None = None

    @property
    def required(self) -> Sequence[str]:
        """Need no column."""
        return ()

    def sources(self, read: ReadSettings) -> Sequence[Source]:
        """Read the one input that the run names."""
        return [Source("", read)]

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        """Take rows as they are."""
        return rows

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        """Add nothing to the report."""
        return {}
