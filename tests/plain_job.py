"""What jobs of tests have in common that ask for text and want nothing special; each says what it asks and keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.prompt import GREEDY
from models.types import Sampling
from pipeline.input.sources import Source
from pipeline.input.units import ReadSettings


@dataclass(frozen=True, kw_only=True)
class PlainJob:
    """The part of a job that says nothing of its rows."""

    kind: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    has_text_only_rows: bool = False
    needs_unique_keys: bool = False
    template: str | None = None
    sampling: Sampling = GREEDY
    picture: None = None
    check: None = None

    def sources(self, read: ReadSettings) -> Sequence[Source]:
        """Read the one input that the run names."""
        return [Source("", read)]

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        """Take rows as they are."""
        return rows

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        """Say nothing."""
        return {}
