"""Read what a run has left, finished or not: every row that is committed, once, in the order of the input."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.rows import IMAGES
from pipeline.settings import ConfigError
from pipeline.state import ledger
from pipeline.state.plan import FrozenPlan, read_frozen_plan
from pipeline.steps.write import PART_NAME, group_units, unit_path
from pipeline.storage.store import NotFound, StorageSettings, Store

# A run that goes on may merge units, and remove them, while they are read: then they are looked for again.
TRIES = 5


@dataclass(frozen=True)
class ResultFile:
    """A file with results.

    Attributes:
        path: Where it stands below the output.
        num_rows: The input's rows in it; None where an older version has planned the run.
        size: Its bytes.
    """

    path: str
    num_rows: int | None
    size: int


@dataclass(frozen=True)
class Standing:
    """What a run has left so far, all of it of one look.

    Attributes:
        output: What stands in its folder.
        plan: The frozen plan; None where there is none, as where parts were put together by other means.
        files: Those that hold the results: finished parts, and committed units of the others. Of a run that an older
            version has planned these are the finished parts alone.
    """

    output: ledger.Output
    plan: FrozenPlan | None
    files: list[ResultFile]


def look_at(store: Store) -> Standing:
    """List an output and read its plan.

    Raises:
        StorageError: The output cannot be read.
    """
    output = ledger.read_output(store)
    plan = read_frozen_plan(store) if output.is_planned else None
    return Standing(output, plan, list(_files(output, plan)))


def _files(output: ledger.Output, plan: FrozenPlan | None) -> Iterator[ResultFile]:
    if plan is None or plan.part_sizes is None:
        paths = [path for path in output.paths if PART_NAME.fullmatch(path)]
        yield from (ResultFile(path, None, output.sizes[path]) for path in paths)
        return
    folder = ledger.units_folder(output.run)
    for part in group_units(plan.units, plan.part_sizes):
        if part.number in output.parts:
            yield ResultFile(part.path, sum(unit.num_rows for unit in part.units), output.sizes[part.path])
            continue
        for unit in part.units:
            if unit.name in output.units:
                path = unit_path(unit.name, folder)
                yield ResultFile(path, unit.num_rows, output.sizes[path])


def read_results(uri: str, columns: list[str] | None = None, storage: StorageSettings | None = None) -> pa.Table:
    """Read the rows that a run has committed so far as one table; those that failed have an `error`.

    Args:
        uri: The run's output.
        columns: Those to read; None for all.
        storage: How to reach it.

    Raises:
        ConfigError: There is no run, it has committed nothing yet, or it has no such column.
        StorageError: It cannot be read.
    """
    store = Store(uri, storage or StorageSettings())
    for left in reversed(range(TRIES)):
        try:
            return _read(store, columns)
        except NotFound:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def _read(store: Store, columns: list[str] | None) -> pa.Table:
    tables: list[pa.Table] = []
    for result in look_at(store).files:
        with store.open(result.path) as file:
            part = pq.ParquetFile(file)
            known = [name for name in part.schema_arrow.names if name != IMAGES.name]
            if unknown := [name for name in columns or () if name not in known]:
                fault = f"found no column {', '.join(unknown)}, expected some of {', '.join(known)}"
                raise ConfigError(store.uri, [fault])
            table = part.read(columns=columns or known).replace_schema_metadata()
        tables.append(table.cast(tables[0].schema) if tables else table)
    if not tables:
        raise ConfigError(store.uri, ["found no committed rows, expected the output of a run"])
    return pa.concat_tables(tables)
