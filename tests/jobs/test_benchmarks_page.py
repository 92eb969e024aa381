"""The page on published data sets keeps up with the table."""

import re
from pathlib import Path

import pytest

from jobs.benchmarks.datasets import BENCHMARKS
from jobs.benchmarks.presets import PRESETS

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def row(key):
    """Return the table's line whose first cell names a key."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| `") and f"`{key}`" in line.split("|")[1]]
    assert len(lines) == 1, f"{key} stands in {len(lines)} rows"
    return lines[0]


@pytest.mark.parametrize("key", BENCHMARKS)
def test_a_data_sets_row_names_its_rule_and_the_columns_it_needs(key):
    benchmark = BENCHMARKS[key]
    named = set(re.findall(r"`([^`]+)`", row(key)))
    lettered = {f"option{place}" for place in range(4)} if "option0" in named else set()
    between = {"B"} if "A" in named else set()
    assert {benchmark.rule, *benchmark.needed} <= named | lettered | between


def test_every_preset_is_described():
    assert all(f"`{preset}`" in PAGE for preset in PRESETS)
