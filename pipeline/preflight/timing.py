"""Time a sample of a run on Ray: slices from all over its input go through the real steps, and nothing is kept of them.

What a run will take by that, pipeline/estimate.py knows.
"""

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.execution.actors import commit_block, crash_ledger, engine_slots
from pipeline.execution.attempt import RunError, cause_of
from pipeline.execution.cluster.placement import Placement
from pipeline.execution.progress import Progress, Tracker
from pipeline.execution.stream import stream
from pipeline.execution.work import Work
from pipeline.input.units import Unit
from pipeline.rows import take_step_seconds
from pipeline.steps.write import oddities_of, parquet_bytes, unit_path
from pipeline.storage.store import Store

# A slice of a unit is a unit of the sample. The first ones are small, so that a slow run's sample ends in time; from
# then on each has a GROWTH-th of what was taken before it, so that a fast one's are whole units: its units cost by
# themselves as they will in the run (slices of 128 rows alone halved the rate of small questions on 2 cores).
SLICE_ROWS, GROWTH = 128, 8
SEED = 0
COUNTED = ("prompt_tokens", "image_tokens", "output_tokens")


@dataclass(frozen=True)
class Taken:
    """A sample that was answered.

    Attributes:
        slices: The numbers of each (see `count_block`), in the order in which they were committed.
        moments: When each was: seconds from the beginning of it all.
        progress: How far it came.
        slots: By step, how many sequences its engine answered at once, and on a GPU why so many.
    """

    slices: Sequence[Mapping[str, Any]]
    moments: Sequence[float]
    progress: Progress
    slots: Mapping[str, tuple[int, str]]


def take(sample: Sequence[Unit], work: Work, share: Placement, attempts: int, began: float, seconds: float) -> Taken:
    """Let a sample go through the steps.

    Args:
        sample: Its slices, in the order in which they are wanted.
        work: What the actors must know, with a store in memory.
        share: How many actors there are.
        attempts: Tries of a row whose process dies.
        began: When it all began, by the monotonic clock.
        seconds: End with the first slice that is committed so long after the first.

    Raises:
        RunError: A step fails as a whole: a model that cannot be loaded, say.
    """
    slices: list[Mapping[str, Any]] = []
    moments: list[float] = []
    tracker = Tracker(sum(unit.num_rows for unit in sample), share.preprocess.most)
    with crash_ledger(attempts) as crashes:
        # The first slices are small: as many of them must be on their way as keep the slots full.
        guarded = replace(work, crashes=crashes, unit_rows=min(work.unit_rows, SLICE_ROWS))
        try:
            with closing(stream(sample, guarded, share, count_block)) as counted:
                for numbers in counted:
                    slices.append(numbers)
                    moments.append(time.monotonic() - began)
                    tracker.add(numbers, moments[-1])
                    if moments[-1] - moments[0] >= seconds:
                        break
            slots = engine_slots(crashes)
        except Exception as error:  # Ray passes on anything that a step raised
            raise RunError(f"the sample cannot be answered: {cause_of(error)}") from error
    return Taken(slices, moments, tracker.progress, slots)


def sample_of(units: Sequence[Unit], rows: int) -> list[Unit]:
    """Cut units into slices; take the first slice of each in an order that is drawn by SEED, then their second ones.

    Args:
        units: What may be sampled.
        rows: End with the slice that makes it so many.
    """
    drawn = [(unit, 0) for unit in random.Random(SEED).sample(list(units), len(units))]
    slices: list[Unit] = []
    taken = 0
    while drawn and taken < rows:
        further = []
        for unit, first in drawn:
            if taken >= rows:
                break
            stop = min(first + max(SLICE_ROWS, taken // GROWTH), unit.num_rows)
            slices.append(replace(unit, seq=len(slices), only=tuple(range(first, stop))))
            taken += stop - first
            if stop < unit.num_rows:
                further.append((unit, stop))
        drawn = further
    return slices


def count_block(block: pa.Table, store: Store, folder: str) -> pa.Table:
    """Do as `commit_block` does, in this process's memory, and forget it; return numbers about it, and of its rows."""
    answered, _ = take_step_seconds(block)
    numbers = commit_block(block, store, folder)
    path = unit_path(numbers["unit"][0].as_py(), folder)
    for name, size in zip(("bytes", "empty_bytes"), _bytes_of(store.read(path)), strict=True):
        numbers = numbers.append_column(name, pa.array([size], pa.int64()))
    store.delete([path])
    well = answered.filter(answered.column("error").is_null())
    for name in COUNTED:
        counts = well.column(name).drop_null().to_pylist()
        numbers = numbers.append_column(name + "_each", pa.array([counts], pa.list_(pa.int64())))
    odd = list(oddities_of(answered).items())
    return numbers.append_column("oddities", pa.array([odd], pa.map_(pa.string(), pa.int64())))


def _bytes_of(file: bytes) -> tuple[int, int]:
    """Return what the rows of a Parquet file take, and what it has however few they are: a part has that once.

    A row takes what each of the second half adds: the first ones also bring what others then share.
    """
    rows = pq.read_table(pa.BufferReader(file))
    half = rows.num_rows // 2
    few = len(parquet_bytes(rows.slice(0, half)))
    each = (len(file) - few) / (rows.num_rows - half)
    return round(each * rows.num_rows), len(parquet_bytes(rows.slice(0, 0)))
