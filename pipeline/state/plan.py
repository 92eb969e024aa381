"""Cut the input into units once, and freeze the cut: a run that goes on later never looks at the listing again.

The size of a unit follows from the first rows, from their files and from their tiles. It knows nothing of Ray.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.input.sources import Source
from pipeline.input.unit_files import (
    part_sizes_from_parquet,
    units_from_parquet,
    units_to_parquet,
    warnings_from_parquet,
)
from pipeline.input.units import InputPlan, Unit, plan_input
from pipeline.job import Job
from pipeline.pipeline_settings import WriteSettings
from pipeline.state.ledger import PLAN
from pipeline.steps.write import Part, group_units, plan_parts
from pipeline.storage.store import Store

# Of tiles or of image files, in one unit: a few units in flight must fit the object store.
UNIT_BYTES = 120 * 10**6
# Tiles have a few sizes, files any: those that later rows name may well be larger than those of the first.
FILES_MAY_GROW = 2
LEAST_ROWS, MOST_ROWS = 8, 512
# A small input is still cut into so many units, so that several actors find work and progress can be seen; but not into
# units of fewer than LEAST_ROWS, unless the rows are large: the 64 frames of a video are 46 MB.
LEAST_UNITS = 48
ROWS_PER_PART = 10_000
# A drawn picture takes minutes and about a megabyte: so few are lost with an actor, and a part still fits into memory.
UNIT_PICTURES = 8
UNITS_PER_PART = 32
# The first part has so much less.
FIRST_SHARE = 32
# A tar is put together in memory. A unit has 120 MB of tiles at most, so mostly some 25 MB of images, and never more
# than 128 MiB of a shard.
UNITS_PER_TAR = 8


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


def cut_parts(units: Sequence[Unit], write: WriteSettings, job: Job) -> list[Part]:
    """Say which units form which part, before a run begins; where the settings leave it open, the first is small.

    So a plain reader of the output sees some rows soon.
    """
    if isinstance(write.rows_per_part, int):
        return plan_parts(units, write.rows_per_part, tar_text=_tar_text(write, job))
    rows = _rows_per_part(units, write, job)
    return plan_parts(units, rows, first_rows=max(1, rows // FIRST_SHARE), tar_text=_tar_text(write, job))


def frozen_parts(store: Store, units: Sequence[Unit], write: WriteSettings, job: Job) -> list[Part]:
    """Say which units form which part, as the run that is in an output has frozen it."""
    sizes = read_part_sizes(store)
    if sizes is not None:
        return group_units(units, sizes, tar_text=_tar_text(write, job))
    # Older versions froze the units alone, and made parts of equal sizes.
    rows = write.rows_per_part if isinstance(write.rows_per_part, int) else _rows_per_part(units, write, job)
    return plan_parts(units, rows, tar_text=_tar_text(write, job))


def _tar_text(write: WriteSettings, job: Job) -> str:
    return job.text_column if write.webdataset else ""


def _rows_per_part(units: Sequence[Unit], write: WriteSettings, job: Job) -> int:
    if job.picture is None and not write.webdataset:
        return ROWS_PER_PART
    most_units = UNITS_PER_TAR if job.picture is None else UNITS_PER_PART
    return most_units * max(unit.num_rows for unit in units)


def rows_by_memory(bytes_per_row: Sequence[int]) -> int:
    """Say how many rows a unit may have, given the bytes of some."""
    return max(1, min(MOST_ROWS, UNIT_BYTES // max(1, *bytes_per_row)))


def freeze_plan(
    store: Store, units: Sequence[Unit], warnings: Sequence[str] = (), parts: Sequence[Part] = ()
) -> list[Unit]:
    """Write the plan down, unless one stands there; return the units of the one that does.

    Args:
        store: The output.
        units: What the input is cut into.
        warnings: What is wrong with it although it can be read.
        parts: What the units will form.
    """
    store.publish(PLAN, units_to_parquet(units, warnings, [len(part.units) for part in parts]))
    return read_plan(store)


@dataclass(frozen=True)
class FrozenPlan:
    """A plan as it is written down.

    Attributes:
        units: What the input is cut into.
        part_sizes: How many units each part has; None where an older version has written it.
        warnings: What is wrong with the input although it can be read.
    """

    units: list[Unit]
    part_sizes: list[int] | None
    warnings: list[str]


def read_frozen_plan(store: Store) -> FrozenPlan:
    """Read all of the frozen plan."""
    data = store.read(PLAN)
    return FrozenPlan(units_from_parquet(data), part_sizes_from_parquet(data), warnings_from_parquet(data))


def read_plan(store: Store) -> list[Unit]:
    """Read the units of the frozen plan."""
    return units_from_parquet(store.read(PLAN))


def read_part_sizes(store: Store) -> list[int] | None:
    """Read how many units each part has; None where the frozen plan does not say."""
    return part_sizes_from_parquet(store.read(PLAN))


def _answers_per_row(block: pa.Table) -> int:
    """Return how many answers the row with the most wants."""
    return int(pc.max(block.column("input.answer")).as_py()) + 1


def _tile_bytes(block: pa.Table) -> int:
    """Return the bytes of the largest row's tiles."""
    sizes = [
        pc.sum(pc.binary_length(tiles.values)).as_py() or 0 for tiles in block.column("input.tiles") if tiles.is_valid
    ]
    return max(sizes, default=0)
