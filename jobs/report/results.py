"""What a run has left in its output, read back for the report: plan, attempts, what was frozen, and what of its parts.

It knows where the pipeline writes; it counts nothing and draws nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.report.gathered import Gathered, gather
from jobs.report.shown import ShownJob
from pipeline import Store, Unit, ledger, read_plan, read_warnings


class ReportError(ValueError):
    """There is nothing to report on."""


@dataclass(frozen=True)
class Results:
    """One output, finished or not.

    Attributes:
        uri: Where it stands.
        frozen: `settings`, `device`, `weights`, `versions`, as the run wrote them down at its start.
        units: The run, as it was cut at its start.
        attempts: What each start of the run wrote down at its end, oldest first.
        is_finished: Whether the run has said that it is.
        warnings: What is wrong with the input although its rows could be read.
        gathered: What is kept of the finished parts.
    """

    uri: str
    frozen: Mapping[str, Any]
    units: Sequence[Unit]
    attempts: Sequence[Mapping[str, Any]]
    is_finished: bool
    warnings: Sequence[str]
    gathered: Gathered

    @property
    def planned_rows(self) -> int:
        """Rows of the input that the output has, or will have."""
        return sum(unit.num_rows for unit in self.units)


def read_results(store: Store, job: ShownJob) -> Results:
    """Read an output back, its parts one after the other; the job says what is kept of their rows.

    Raises:
        ReportError: No run has started there, or no part of it is finished yet.
        StorageError: It cannot be read.
    """
    output = look_for_parts(store)
    units = read_plan(store)
    paths = sorted(path for path in output.paths if path.startswith(f"{ledger.ATTEMPTS}/"))
    return Results(
        uri=store.uri,
        frozen=ledger.read_settings(store),
        units=units,
        attempts=[json.loads(store.read(path)) for path in paths],
        is_finished=output.is_done,
        warnings=read_warnings(store),
        gathered=gather(store, units, job),
    )


def look_for_parts(store: Store) -> ledger.Output:
    """Say what stands in an output.

    Raises:
        ReportError: No run has started there, or no part of it is finished yet.
        StorageError: It cannot be read.
    """
    output = ledger.read_output(store)
    if not output.is_planned:
        raise ReportError(f"found no run in {store.uri} ({ledger.PLAN} is missing), expected the output of one")
    if not output.parts:
        raise ReportError(f"found no finished part in {store.uri} yet; run it on, then report")
    return output
