"""What an engine is given of the machine it stands on."""

import pytest

from pipeline.execution.stream import units_in_flight
from pipeline.steps.engine import devices


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("cuda", None, "cuda"),
        ("cuda", 0.5, "cuda"),
        ("cuda", 1.0, "cuda"),
        ("cuda", 3.0, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cpu", 2.0, "cpu"),
    ],
)
def test_an_engine_with_several_gpus_spreads_over_all_of_them(
    device: str, gpus: float | None, expected: str | list[str]
) -> None:
    assert devices(device, gpus) == expected


@pytest.mark.parametrize(("slots", "unit_rows", "expected"), [(32, 8, 8), (4, 512, 2), (5, 4, 3)])
def test_enough_units_are_in_flight_to_fill_the_slots_twice(slots: int, unit_rows: int, expected: int) -> None:
    assert units_in_flight(slots, unit_rows) == expected
