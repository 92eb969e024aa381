"""Read a unit's rows as its job wants them: those of every source of a run in the same columns.

It knows sources and jobs, and neither formats nor Ray.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline.input.formats.rows import Fault
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, Unit
from pipeline.job import Job
from pipeline.rows import READ


def settings_by_source(job: Job, read: ReadSettings) -> dict[str, ReadSettings]:
    """Return how each source of a job is read, by its name; see `Unit.source`."""
    sources = job.sources(read)
    settings = {source.name: source.read for source in sources}
    assert len(settings) == len(sources), f"job {job.kind} calls two of its sources the same"
    return settings


def read_job_rows(
    unit: Unit, job: Job, sources: Mapping[str, ReadSettings], fault: Fault | None = None, *, with_images: bool = True
) -> pa.Table:
    """Read a unit's rows and let the job adapt them; see `pipeline.input.read.read_unit`.

    Raises:
        ReadError: The shard is another than the one that was planned.
        StorageError: The shard is gone, or the store refuses or does not answer.
        ValueError: The job has lost rows, or columns of ours.
    """
    rows = read_unit(unit, sources[unit.source], fault, with_images=with_images)
    return _checked(job.adapt(unit.source, rows), unit, job)


def job_rows_schema(job: Job, units: Sequence[Unit]) -> pa.Schema:
    """Return the one schema that rows of all sources have once they are adapted.

    Raises:
        MissingColumns: A source lacks columns that the job needs.
        ValueError: The job makes other columns of one source than of another.
    """
    first = {unit.source: unit for unit in reversed(units)}
    schemas = {unit.source: _adapted_columns(job, unit) for unit in first.values()}
    schema = schemas[units[0].source]
    for source, other in schemas.items():
        if not other.equals(schema):
            found = ", ".join(sorted(set(map(str, other)) ^ set(map(str, schema)))) or "their order"
            raise ValueError(f"source {source!r} differs from source {units[0].source!r} in its columns: {found}")
    return schema


def _adapted_columns(job: Job, unit: Unit) -> pa.Schema:
    return _checked(job.adapt(unit.source, unit.table_schema.empty_table()), unit, job, num_rows=0).schema


def _checked(rows: pa.Table, unit: Unit, job: Job, num_rows: int | None = None) -> pa.Table:
    expected = unit.num_rows if num_rows is None else num_rows
    lost = [name for name in READ if name not in rows.column_names]
    if lost or rows.num_rows != expected:
        what = f"columns without {', '.join(lost)}" if lost else f"{rows.num_rows} rows of {expected}"
        raise ValueError(f"job {job.kind} made {what} of source {unit.source!r}")
    return rows
