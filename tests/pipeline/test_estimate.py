"""A sample is drawn from all over the input, counted without being kept, and gives a rate with a range."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.estimate import LEAST_RANGE, UNKNOWN_RANGE, rate_of
from pipeline.execution.attempt import RunError
from pipeline.input.columns import ERROR
from pipeline.preflight import timing
from pipeline.preflight.timing import COUNTED, SLICE_ROWS, count_block, sample_of
from pipeline.rows import with_unit
from pipeline.run import work_of
from pipeline.steps.write import parquet_bytes
from pipeline.storage.store import Store
from tests.pipeline.drivers import DEVICES, PLACEMENT, UNITS, ready_of, settings_of
from tests.pipeline.test_write import answered
from tests.pipeline.toys import ToyJob, units_of


def test_a_sample_takes_a_slice_of_every_unit_before_the_second_of_any() -> None:
    units = [
        replace(unit, start=0, stop=SLICE_ROWS + 10, shard=f"{number}") for number, unit in enumerate(units_of(9, 1))
    ]
    slices = sample_of(units, 10**6)
    assert {one.shard for one in slices[:9]} == {unit.shard for unit in units}
    assert [one.shard for one in slices[:9]] != [unit.shard for unit in units], "not in the order of the input"
    assert [one.num_rows for one in slices] == [SLICE_ROWS] * 9 + [10] * 9
    assert Counter((one.shard, row) for one in slices for row in one.only) == Counter(
        (unit.shard, row) for unit in units for row in range(unit.num_rows)
    )
    assert len({one.name for one in slices}) == len(slices)
    assert sample_of(units, 10**6) == slices, "the same for every plan"
    assert sample_of(units, SLICE_ROWS + 1) == slices[:2]


def test_slices_grow_to_whole_units_as_the_sample_does() -> None:
    units = [replace(unit, start=0, stop=5000, shard=f"{number}") for number, unit in enumerate(units_of(40, 1))]
    sizes = [one.num_rows for one in sample_of(units, 60_000)][:40]
    assert sizes[:8] == [SLICE_ROWS] * 8
    assert sizes == sorted(sizes) and sizes[-1] > 2000


def test_a_slice_is_counted_and_nothing_of_it_is_kept() -> None:
    store, block = Store("memory://planned"), answered(0)
    block = block.append_column("image_tokens", pa.array([7] * block.num_rows))
    numbers = count_block(block, store, "units").to_pylist()[0]
    assert numbers["rows"] > 0
    assert len(numbers["output_tokens_each"]) == block.num_rows
    assert numbers["image_tokens_each"] == [7] * block.num_rows
    assert store.list() == []


def test_rows_take_in_a_slice_what_they_take_in_a_part_and_tokens_of_failed_rows_are_none() -> None:
    chance = random.Random(0)
    rows = 4000
    texts = [" ".join(chance.choices(["a", "red", "dog", "runs", "over", "green", "grass"], k=12)) for _ in range(rows)]
    part = pa.table({
        "key": [f"{number:06d}" for number in range(rows)], "shard": ["s"] * rows, "index": range(rows),
        "caption": texts, **{name: pa.array([5] * rows, pa.int32()) for name in COUNTED},
        "error": pa.array([{"stage": "s", "type": "t", "message": "m"}] * 8 + [None] * (rows - 8), ERROR),
    })  # fmt: skip
    whole, said, empty = len(parquet_bytes(part)), 0, 0
    for number, start in enumerate(range(0, rows, SLICE_ROWS)):
        block = part.slice(start, SLICE_ROWS)
        numbers = count_block(with_unit(block, f"{number}", block.num_rows), Store("memory://sliced"), "units")
        said += numbers["bytes"][0].as_py()
        empty = numbers["empty_bytes"][0].as_py()
        assert len(numbers["output_tokens_each"][0]) == block.num_rows - (8 if number == 0 else 0)
    assert said + empty == pytest.approx(whole, rel=0.2)


def test_a_steady_sample_has_the_least_range_and_its_first_slice_counts_for_nothing() -> None:
    rate, off = rate_of([500, *[10] * 40], [20.0 + second for second in range(41)])
    assert rate == pytest.approx(10.0)
    assert off == LEAST_RANGE


def test_a_sample_that_slows_down_has_a_wide_range() -> None:
    moments = [0.0, *(2.0 * n for n in range(1, 21)), *(40 + 8.0 * n for n in range(1, 11))]
    rate, off = rate_of([10] * len(moments), moments)
    assert rate == pytest.approx(10 * 30 / 120)
    assert off > 2 * LEAST_RANGE


def test_a_sample_that_is_answered_at_once_tells_but_the_least_rate() -> None:
    assert rate_of([30], [10.0]) == (3.0, UNKNOWN_RANGE)


def test_a_step_that_fails_as_a_whole_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Iterator[None]:
        raise RuntimeError("Traceback ...\nray.X\nRuntimeError: the model cannot be loaded: no memory\n")
        yield

    monkeypatch.setattr(timing, "stream", failing)
    monkeypatch.setattr(timing, "crash_ledger", lambda attempts: nullcontext("ledger"))
    store = Store("memory://planned")
    work = work_of(settings_of(store), ToyJob(), store, ready_of(store), DEVICES)
    with pytest.raises(RunError, match=r"the sample cannot be answered: RuntimeError: the model .* no memory$"):
        timing.take(UNITS, work, PLACEMENT, 4, 0.0, 60.0)
