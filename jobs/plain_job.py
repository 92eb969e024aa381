"""What the jobs have in common; each says for itself what it asks, keeps and counts."""

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
