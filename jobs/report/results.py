"""What a run has left in its output, read back for the report: rows, plan, attempts, what was frozen.

It knows where the pipeline writes; it counts nothing and draws nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ledger
from pipeline.plan import read_plan
from pipeline.storage import Store
from pipeline.units import Unit

# They are as long as all answers together, and no number of the report needs them.
LEFT_OUT = ("output_token_ids", "output_logprobs")


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
        rows: All columns of the finished parts but the tokens.
        is_finished: Whether the run has said that it is.
    """

    uri: str
    frozen: Mapping[str, Any]
    units: Sequence[Unit]
    attempts: Sequence[Mapping[str, Any]]
    rows: pa.Table
    is_finished: bool

    @property
    def planned_rows(self) -> int:
        """Rows that the output has, or will have."""
        return sum(unit.stop - unit.start for unit in self.units)


def read_results(store: Store) -> Results:
    """Read an output back.

    Raises:
        ReportError: No run has started there, or no part of it is finished yet.
        StorageError: It cannot be read.
    """
    output = ledger.look(store)
    if not output.is_planned:
        raise ReportError(f"found no run in {store.uri} ({ledger.PLAN} is missing), expected the output of one")
    if not output.parts:
        raise ReportError(f"found no finished part in {store.uri} yet; run it on, then report")
    paths = sorted(path for path in output.paths if path.startswith(f"{ledger.ATTEMPTS}/"))
    return Results(
        uri=store.uri,
        frozen=ledger.read_settings(store),
        units=read_plan(store),
        attempts=[json.loads(store.read(path)) for path in paths],
        rows=pa.concat_tables([_read_part(store, path) for path in ledger.part_paths(store)]),
        is_finished=output.is_done,
    )


def _read_part(store: Store, path: str) -> pa.Table:
    with store.open(path) as file:
        part = pq.ParquetFile(file)
        return part.read(columns=[name for name in part.schema_arrow.names if name not in LEFT_OUT])
