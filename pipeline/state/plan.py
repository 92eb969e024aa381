"""Cut the input into units once, and freeze the cut: a run that goes on later never looks at the listing again.

The size of a unit follows from the first rows, from their files and from their tiles. It knows nothing of Ray.
"""

import functools
import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.input.sources import Source
from pipeline.input.unit_files import units_from_parquet, units_to_parquet, warnings_from_parquet
from pipeline.input.units import InputPlan, Unit, plan_input
from pipeline.job import Job
from pipeline.state.ledger import PLAN
from pipeline.storage.store import Store

# Of tiles or of image files, in one unit: a few units in flight must fit the object store.
UNIT_BYTES = 120 * 10**6
# Tiles have a few sizes, files any: those that later rows name may well be larger than those of the first.
FILES_MAY_GROW = 2
LEAST_ROWS, MOST_ROWS = 8, 512
# A small input is still cut into so many units, so that several actors find work and progress can be seen; but not into
# units of fewer than LEAST_ROWS, unless the rows are large: the 64 frames of a video are 46 MB.
LEAST_UNITS = 16
ROWS_PER_PART = 10_000
# A drawn picture takes minutes and about a megabyte: so few are lost with an actor, and a part still fits into memory.
UNIT_PICTURES = 8
UNITS_PER_PART = 32


def make_plan(
    source: Source, unit_rows: int | str, sample: Sequence[pa.Table], image_bytes: int, job: Job
) -> InputPlan:
    """Cut a source into units of `unit_rows`; `auto` goes by its first rows.

    Args:
        source: Where the rows are.
        unit_rows: The most rows of a unit, or `auto`.
        sample: The first rows, made ready.
        image_bytes: Of the image files that a row names, on average over the first rows.
        job: What is asked.

    Raises:
        ReadError: The input cannot be read, or holds nothing.
    """
    cut = functools.partial(plan_input, source.read, is_raw=source.is_raw, reads=source.reads)
    if isinstance(unit_rows, int):
        return cut(unit_rows)
    if job.picture is not None:
        return cut(max(1, UNIT_PICTURES // max(map(_answers_per_row, sample))))
    rows = rows_by_memory([FILES_MAY_GROW * image_bytes, *map(_tile_bytes, sample)])
    planned = cut(rows)
    # A decoder that crashes takes the unit's other rows along.
    if planned.units[0].format == "video" or "video" in source.read.columns:
        return cut(1)
    spread = max(LEAST_ROWS, math.ceil(sum(unit.num_rows for unit in planned.units) / LEAST_UNITS))
    return planned if spread >= rows else cut(spread)


def rows_per_part(setting: int | str, units: Sequence[Unit], job: Job) -> int:
    """Return the most rows of a part; see WriteSettings. It depends on settings and plan alone."""
    if isinstance(setting, int):
        return setting
    return ROWS_PER_PART if job.picture is None else UNITS_PER_PART * max(unit.num_rows for unit in units)


def rows_by_memory(bytes_per_row: Sequence[int]) -> int:
    """Say how many rows a unit may have, given the bytes of some."""
    return max(1, min(MOST_ROWS, UNIT_BYTES // max(1, *bytes_per_row)))


def freeze_plan(store: Store, units: Sequence[Unit], warnings: Sequence[str] = ()) -> list[Unit]:
    """Write the plan down, and what it warns of, unless one stands there; return the units of the one that does."""
    store.publish(PLAN, units_to_parquet(units, warnings))
    return read_plan(store)


def read_plan(store: Store) -> list[Unit]:
    """Read the frozen plan."""
    return units_from_parquet(store.read(PLAN))


def read_warnings(store: Store) -> list[str]:
    """Read what the frozen plan warns of."""
    return warnings_from_parquet(store.read(PLAN))


def _answers_per_row(block: pa.Table) -> int:
    """Return how many answers the row with the most wants."""
    return int(pc.max(block.column("input.answer")).as_py()) + 1


def _tile_bytes(block: pa.Table) -> int:
    """Return the bytes of the largest row's tiles."""
    sizes = [
        pc.sum(pc.binary_length(tiles.values)).as_py() or 0 for tiles in block.column("input.tiles") if tiles.is_valid
    ]
    return max(sizes, default=0)
