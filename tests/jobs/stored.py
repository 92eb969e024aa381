"""Answers that lie in `tests/data/vectors/bulk`, the command that scores them, and what that leaves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BULK = Path(__file__).parents[1] / "data" / "vectors" / "bulk"


def asked_of(name: str, to: Path | str, *more: str, rows: Path | str = "predictions.jsonl") -> list[str]:
    """Return the command that scores the answers to a small set."""
    data = ["--data", str(BULK / name / "data.parquet"), "--benchmark", name, "--id", "row"]
    return ["score", str(BULK / name / rows), *data, "--to", str(to), *more]


def report_of(folder: Path | str) -> dict[str, Any]:
    """Read the numbers that a run or a score has left."""
    found: dict[str, Any] = json.loads((Path(folder) / "_report" / "report.json").read_text())
    return found


def rows_of(folder: Path | str) -> list[dict[str, Any]]:
    """Read the rows that a run or a score has left."""
    tables = [pq.read_table(path) for path in sorted(Path(folder).glob("part-*.parquet"))]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def submission() -> Sequence[dict[str, Any]]:
    """Return the file that is handed in of the small DocVQA set."""
    expected = json.loads((BULK / "docvqa_val" / "expected.json").read_text())["expected"]
    rows: Sequence[dict[str, Any]] = expected["submission"]
    return rows
