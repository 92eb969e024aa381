"""The notebooks run from top to bottom; they import from the rooms and define next to nothing."""

import ast
import json
from pathlib import Path

import pytest

from jobs.demo.data import write_question_shards

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
ON_RAY = ("4_run_a_job",)  # tests/end_to_end/test_plan.py runs it


def code_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(cell.get("outputs", []) == [] for cell in cells), "notebooks are kept without their outputs"
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder `notebooks` beside what the demo leaves, as far as the notebooks look at it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_question_shards(tmp_path / "demo_output/shards/vqa", 50)
    output = tmp_path / "demo_output/vqa"
    (output / "_report").mkdir(parents=True)
    (output / "_report/report.json").write_text('{"scores": {}}')
    row = {"key": "a", "question": "q", "response": "r", "answers": ["r"], "score": 1.0, "answer_type": "shape"}
    error = pa.array([None], pa.struct([("stage", pa.string())]))
    pq.write_table(pa.Table.from_pylist([row]).append_column("error", error), output / "part-00000.parquet")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem not in ON_RAY], ids=lambda path: path.stem)
def test_a_notebook_runs(path, results):
    exec(compile(code_of(path), path.name, "exec"), {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_logic(path):
    tree = ast.parse(code_of(path))
    kinds = (ast.ClassDef, ast.If, ast.While, ast.Try)
    assert not any(isinstance(node, kinds) for node in ast.walk(tree))


def test_there_are_four():
    names = ["1_look_at_shards", "2_ask_a_model", "3_read_the_results", "4_run_a_job"]
    assert [path.stem for path in NOTEBOOKS] == names
