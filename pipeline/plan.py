"""Cut the input into units once, and freeze the cut: a run that goes on later never looks at the listing again.

The size of a unit follows from the tiles of the first rows. This file knows nothing of Ray.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from models.types import Processor, Sampling
from pipeline.job import Job
from pipeline.ledger import PLAN, SCHEMA
from pipeline.preprocess import Preprocess
from pipeline.read import ReadSettings, plan_schema, read_unit
from pipeline.storage import Store
from pipeline.units import Unit, plan_units, units_from_parquet, units_to_parquet

# Of tiles, in one unit: a few units in flight must fit the object store.
UNIT_BYTES = 120 * 10**6
LEAST_ROWS, MOST_ROWS = 8, 512
# A small input is still cut into so many units, so that several actors find work and progress can be seen.
LEAST_UNITS = 16
SAMPLE_ROWS = 4


@dataclass(frozen=True)
class Plan:
    """The units of a run and the columns that reading one of them gives."""

    units: tuple[Unit, ...]
    schema: pa.Schema


def make_plan(
    read: ReadSettings, unit_rows: int | str, processor: Processor | None, job: Job, sampling: Sampling
) -> Plan:
    """Cut the input into units of `unit_rows`; `auto` measures the first rows, for which it needs the processor.

    Raises:
        StorageError: The input cannot be read, or holds nothing.
    """
    if isinstance(unit_rows, int) or processor is None:
        return _plan(read, unit_rows if isinstance(unit_rows, int) else MOST_ROWS)
    first = _plan(read.model_copy(update={"limit": min(SAMPLE_ROWS, read.limit or SAMPLE_ROWS)}), SAMPLE_ROWS)
    blocks = [read_unit(unit, read) for unit in first.units]
    rows = rows_by_memory([_tile_bytes(Preprocess(processor, job, sampling)(block)) for block in blocks])
    plan = _plan(read, rows)
    spread = max(LEAST_ROWS, math.ceil(sum(unit.stop - unit.start for unit in plan.units) / LEAST_UNITS))
    return plan if spread >= rows else _plan(read, spread)


def rows_by_memory(bytes_per_row: Sequence[int]) -> int:
    """Say how many rows a unit may have, given the tiles of some."""
    return max(LEAST_ROWS, min(MOST_ROWS, UNIT_BYTES // max(1, *bytes_per_row)))


def freeze_plan(store: Store, plan: Plan) -> Plan:
    """Write the plan down unless one stands there; return the one that does."""
    store.publish(SCHEMA, plan.schema.serialize().to_pybytes())
    store.publish(PLAN, units_to_parquet(plan.units))
    return read_plan(store)


def read_plan(store: Store) -> Plan:
    """Read the frozen plan."""
    schema = pa.ipc.read_schema(pa.py_buffer(store.read(SCHEMA)))
    return Plan(tuple(units_from_parquet(store.read(PLAN))), schema)


def _plan(read: ReadSettings, unit_rows: int) -> Plan:
    units = plan_units(read, unit_rows)
    return Plan(tuple(units), plan_schema(units, read))


def _tile_bytes(block: pa.Table) -> int:
    """Return the bytes of the largest row's tiles."""
    sizes = [
        pc.sum(pc.binary_length(tiles.values)).as_py() or 0 for tiles in block.column("input.tiles") if tiles.is_valid
    ]
    return max(sizes, default=0)
