"""The zoo's pictures, sent through a whole run: each an answer, or an error that says why, and none costs another."""

import json
from collections import Counter
from pathlib import Path

import pytest

from jobs.report.results import read_results
from pipeline.storage.store import Store
from tests.end_to_end.shards import caption, caption_job, results
from tests.zoo.pictures import pictures

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_each_odd_file_is_answered_or_named_and_costs_no_other_row(tmp_path: Path, checkpoint: Path) -> None:
    zoo = [animal for animal in pictures() if animal.expected != "no plan"]
    expected = {animal.name: None if animal.expected == "answer" else animal.expected for animal in zoo}
    expected |= {"missing.png": "fetch/NotFound", "null": "fetch/MissingImage"}
    shards = tmp_path / "in"
    shards.mkdir()
    for animal in zoo:
        (shards / animal.name).write_bytes(animal.data)
    lines = [{"key": name, "image": None if name == "null" else name} for name in expected]
    (shards / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = caption(shards / "rows.jsonl", checkpoint, tmp_path / "out")
    rows = results(tmp_path / "out").to_pylist()
    assert [row["key"] for row in rows] == list(expected)
    errors = {row["key"]: row["error"] and f"{row['error']['stage']}/{row['error']['type']}" for row in rows}
    assert errors == expected
    assert {row["key"] for row in rows if row["caption"] is None} == {key for key, error in expected.items() if error}
    assert result.failed == sum(error is not None for error in expected.values())
    assert all(row["error"]["message"] for row in rows if row["error"])
    odd = Counter(name for animal in zoo for name in animal.noted)
    assert read_results(Store(str(tmp_path / "out")), caption_job()).oddities == odd
