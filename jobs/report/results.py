"""What a run has left in its output, read back for the report: rows, plan, attempts, what was frozen.

It knows where the pipeline writes; it counts nothing and draws nothing.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.report import pictures
from jobs.report.pictures import Pictures
from pipeline import ledger
from pipeline.plan import read_plan, read_warnings
from pipeline.rows import count_rows
from pipeline.storage.store import Store
from pipeline.tars import has_pictures
from pipeline.units import Unit
from pipeline.write import oddities_in

# They are as large as all answers together, and no number of the report needs them.
LEFT_OUT = ("output_token_ids", "output_logprobs", pictures.COLUMN)


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
        rows: All columns of the finished parts but tokens and pictures.
        is_finished: Whether the run has said that it is.
        warnings: What is wrong with the input although its rows could be read.
        oddities: What was odd about pictures and was settled while they were decoded, and how often.
        pictures: Where the drawn pictures are; None for a job that draws none.
    """

    uri: str
    frozen: Mapping[str, Any]
    units: Sequence[Unit]
    attempts: Sequence[Mapping[str, Any]]
    rows: pa.Table
    is_finished: bool
    warnings: Sequence[str] = ()
    oddities: Mapping[str, int] = field(default_factory=dict)
    pictures: Pictures | None = None

    @property
    def planned_rows(self) -> int:
        """Rows of the input that the output has, or will have."""
        return sum(unit.num_rows for unit in self.units)

    @property
    def finished_rows(self) -> int:
        """Rows of the input that it has; each may stand there several times, once for each of its pictures."""
        return count_rows(self.rows)


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
    parts = {path: _read_part(store, path) for path in ledger.part_paths(store)}
    are_drawn = any(has_pictures(schema) for _, schema in parts.values())
    return Results(
        uri=store.uri,
        frozen=ledger.read_settings(store),
        units=read_plan(store),
        attempts=[json.loads(store.read(path)) for path in paths],
        rows=pa.concat_tables([rows for rows, _ in parts.values()]),
        is_finished=output.is_done,
        warnings=read_warnings(store),
        oddities=sum((oddities_in(schema) for _, schema in parts.values()), Counter()),
        pictures=Pictures(store, {path: rows.num_rows for path, (rows, _) in parts.items()}) if are_drawn else None,
    )


def _read_part(store: Store, path: str) -> tuple[pa.Table, pa.Schema]:
    """Return a part's rows without what is large in them, and the schema of all of it."""
    with store.open(path) as file:
        part = pq.ParquetFile(file)
        schema = part.schema_arrow
        rows = part.read(columns=[name for name in schema.names if name not in LEFT_OUT])
        return rows.replace_schema_metadata(), schema
