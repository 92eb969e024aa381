"""Small data sets in their hubs' layout with stored predictions: scored by the command, compared with known reports.

What a set expects is rounded to six decimals. A set that is not known here is a failure.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main

Report = Mapping[str, Any]
NEAR = 1e-6


def check(folder: Path, scratch: Path) -> None:
    """Score a set's predictions as a user would, and compare its report with the expected one.

    Raises:
        AssertionError: Something differs, or the set is not known.
    """
    assert folder.name in CHECKS, f"no check knows the set {folder.name}; known are {', '.join(CHECKS)}"
    data, predictions, output = folder / "data.parquet", folder / "predictions.jsonl", scratch / "scored"
    command = ["score", str(predictions), "--data", str(data), "--benchmark", folder.name]
    assert main([*command, "--id", "row", "--response", "prediction", "--to", str(output)]) == 0
    report = json.loads((output / "_report" / "report.json").read_text(encoding="utf-8"))
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["expected"]
    score = report["scores"][folder.name]
    num_rows = pq.read_metadata(data).num_rows
    assert (score["missing"], score["failed"], report["rows"]) == (0, 0, num_rows)
    assert CHECKS[folder.name](expected, score, output) == set(expected)


def _docvqa(expected: Report, score: Report, output: Path) -> set[str]:
    assert score["score"] == pytest.approx(expected["anls"], abs=NEAR)
    found = {cell: part["score"] for cell, part in score["breakdowns"]["question_types"].items()}
    assert found == pytest.approx(expected["per_question_type"], abs=NEAR)
    rows = pq.read_table(output).to_pylist()
    assert [row["score"] for row in rows] == pytest.approx(expected["per_sample"], abs=NEAR)
    file = output.parent / "submission.json"
    assert main(["submit", str(output), str(file)]) == 0
    assert json.loads(file.read_text(encoding="utf-8")) == expected["submission"]
    return {"anls", "per_question_type", "per_sample", "submission"}


def _mmbench(expected: Report, score: Report, output: Path) -> set[str]:
    assert (score["score"], score["n"]) == (
        pytest.approx(expected["circular_overall"], abs=NEAR),
        expected["n_questions"],
    )
    assert score["metrics"]["vanilla (first rotation)"] == pytest.approx(expected["vanilla_first_pass"], abs=NEAR)
    for name, key in (("category", "per_category"), ("l2-category", "per_l2")):
        found = {cell: part["score"] for cell, part in score["breakdowns"][name].items()}
        assert found == pytest.approx(expected[key], abs=NEAR)
    return {"circular_overall", "vanilla_first_pass", "per_category", "per_l2", "n_questions"}


def _pope(expected: Report, score: Report, output: Path) -> set[str]:
    assert score["score"] == pytest.approx(expected["mean_f1_over_categories"], abs=NEAR)
    found = {"pooled": expected["pooled"], **expected["per_category"]}
    for category, numbers in found.items():
        for name, number in numbers.items():
            assert score["metrics"][f"{category} {name}"] == pytest.approx(number, abs=NEAR), (category, name)
    return {"mean_f1_over_categories", "per_category", "pooled"}


CHECKS: Mapping[str, Callable[[Report, Report, Path], set[str]]] = {
    "docvqa_val": _docvqa,
    "mmbench_en_dev": _mmbench,
    "pope": _pope,
}
