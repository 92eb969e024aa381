"""What a report asks of a job beside what the pipeline asks: how its rows are shown, and which are right."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from pipeline.job import Job

Lines = list[tuple[str, str]]


class ShownJob(Job, Protocol):
    """A job whose results can be looked at."""

    @property
    def title(self) -> str:
        """The headline of the page."""
        ...

    def shown(self, row: Mapping[str, Any]) -> Lines:
        """Return what stands under a row's image: labels and texts."""
        ...

    def verdicts(self, results: pa.Table) -> Sequence[bool | None]:
        """Say of each row whether it is right; None where that is not known."""
        ...
