"""The demo and the command line from another folder, each in a process of its own, as a user starts them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.demo.data import write_question_shards
from jobs.demo.drawn_pictures import read_drawn_pictures
from jobs.demo.pieces import FAMILIES, PIECES
from tests.end_to_end.shards import png
from tests.test_commands import ON_RAY

ROOT = Path(__file__).parent.parent.parent
CHECKPOINT = ROOT / "jobs/demo/checkpoints/aria"

pytestmark = pytest.mark.ray


def triptych(*arguments, folder):
    """Start the command line in a folder that is not the repository's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process):
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, finished(triptych("demo", "--quick", folder=folder))


@pytest.mark.parametrize("name", ["vqa", "vqa_mllama"])
def test_the_demo_answers_fifty_questions_well_enough(demo, name):
    folder, (code, _, err) = demo
    assert code == 0, err
    numbers = json.loads((folder / f"demo_output/{name}/_report/report.json").read_text())
    score = numbers["scores"]["easy-vqa"]
    assert (numbers["rows"], numbers["failed"], score["n"], score["missing"]) == (50, 0, 50, 0)
    assert score["score"] >= 0.9
    assert set(score["by"]) == {"yes/no", "shape", "colour"}


def test_the_demo_captions_what_it_can_know(demo):
    folder, _ = demo
    numbers = json.loads((folder / "demo_output/caption/_report/report.json").read_text())
    assert numbers["rows"] == 50
    assert numbers["scores"]["caption"]["score"] >= 0.9


def test_the_demo_draws_what_its_texts_say(demo):
    folder, _ = demo
    numbers = json.loads((folder / "demo_output/synthesize/_report/report.json").read_text())
    assert (numbers["rows"], numbers["pictures"], numbers["failed"]) == (50, 50, 0)
    scores = read_drawn_pictures(str(folder / "demo_output/synthesize")).scores
    assert scores["colours"]["n"] == scores["places"]["n"] == scores["agreement"]["n"] == 50
    assert scores["colours"]["score"] >= 0.85
    assert scores["places"]["score"] >= 0.8
    assert scores["agreement"]["score"] >= 0.85


def test_the_index_shows_every_drawn_picture_with_both_verdicts(demo):
    folder, (_, out, _) = demo
    drawings = read_drawn_pictures(str(folder / "demo_output/synthesize"))
    sheet = (folder / "demo_output/index.html").read_text().split("Drawn from text")[1].split("</section>")[0]
    assert [sheet.count(one.picture) >= 1 and one.text in sheet for one in drawings.pictures] == [True] * 50
    assert sheet.count("rule <span") == sheet.count("toy <span") == 50
    for name, score in drawings.scores.items():
        assert f"{score['score'] * 100:.1f} % of 50 pictures" in out
        assert name == "agreement" or f"{score['score'] * 100:.1f}\u202f%" in sheet


def test_the_demo_says_its_numbers_and_what_it_is_not(demo):
    _, (_, out, err) = demo
    assert "easy-vqa: " in out and "95 % interval" in out and "yes/no" in out
    assert "are toys" in out and "run caption model.path=" in out
    assert "Traceback" not in err and "ray" not in err.lower()


def test_the_demo_leaves_parts_and_pages(demo):
    folder, _ = demo
    output = folder / "demo_output"
    rows_of = {"caption": 50, "vqa": 50, "vqa_mllama": 50, "synthesize": 50, "photographs": 12}
    assert {path.name for path in output.iterdir()} == {*rows_of, "shards", "index.html"}
    for name, rows in rows_of.items():
        assert pq.read_table(output / name).num_rows == rows
        page = (output / name / "_report/report.html").read_text()
        assert f"is a toy {FAMILIES[PIECES[name].family]}" in page
        assert page.count("<img") == min(24, rows)
        assert f'href="{name}/_report/report.html"' in (output / "index.html").read_text()


def test_the_index_shows_both_families_on_one_benchmark(demo):
    folder, _ = demo
    text = (folder / "demo_output/index.html").read_text()
    table = text.split("easy-vqa, family by family")[1]
    for name in ("vqa", "vqa_mllama"):
        score = json.loads((folder / f"demo_output/{name}/_report/report.json").read_text())["scores"]["easy-vqa"]
        for shown in (score, *score["by"].values()):
            assert f"{shown['score'] * 100:.1f}\u202f%" in table
    assert "Aria" in table and "Mllama (Llama 3.2 Vision)" in table


def test_a_report_can_be_written_again_from_the_output_alone(demo):
    folder, _ = demo
    page = folder / "demo_output/vqa/_report/report.html"
    before = page.read_text()
    page.unlink()
    code, out, err = finished(triptych("report", "demo_output/vqa", folder=folder))
    assert code == 0, err
    assert out.strip() == str(page)
    assert page.read_text() == before


def config(folder, **sections):
    settings = {
        "read": {"uri": "input"},
        "model": {"path": str(CHECKPOINT), "device": "cpu"},
        "generate": {"slots": 8, "max_length": 256, "sampling": {"max_new_tokens": 8}},
        "write": {"uri": "out", "unit_rows": 8},
        **sections,
    }
    (folder / "run.yaml").write_text(json.dumps(settings))  # JSON is YAML
    return "run.yaml"


def test_too_many_failed_rows_end_a_whole_run_with_code_3(tmp_path):
    (tmp_path / "input").mkdir()
    for number in range(4):
        (tmp_path / "input" / f"{number}.png").write_bytes(b"not an image")
    path = config(tmp_path, job={"kind": "caption"})
    code, out, err = finished(triptych("run", path, folder=tmp_path))
    assert code == 3, err
    assert "4 rows, 4 failed" in out
    assert "100.0% of the rows failed, limits.max_failed_share is 5.0%" in err
    assert "decode BadImage (4), such as row 0.png: " in err
    assert pq.read_table(tmp_path / "out").num_rows == 4
    assert "4 of 4 results failed" in (tmp_path / "out/_TOO_MANY_FAILED").read_text()
    assert not (tmp_path / "out/_SUCCESS").exists()
    assert finished(triptych("run", path, folder=tmp_path))[0] == 3, "a finished run says so again"
    assert finished(triptych("run", path, "limits.max_failed_share=1", folder=tmp_path))[0] == 0
    assert (tmp_path / "out/_SUCCESS").exists() and not (tmp_path / "out/_TOO_MANY_FAILED").exists()
    assert "BadImage" in (tmp_path / "out/_report/report.html").read_text()


@pytest.mark.long
def test_an_interrupted_run_ends_with_code_130_and_goes_on(tmp_path):
    write_question_shards(tmp_path / "input", 3_000)
    path = config(tmp_path, job={"kind": "vqa"})
    process = triptych("run", path, folder=tmp_path)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "out").rglob("_triptych/units/*/*.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    code, _, err = finished(process)
    assert code == 130, err
    assert "interrupted; what is committed stays" in err and "Traceback" not in err
    done = len(list((tmp_path / "out").rglob("_triptych/units/*/*.parquet")))
    code, out, err = finished(triptych("run", path, folder=tmp_path))
    assert code == 0, err
    table = pq.read_table(tmp_path / "out")
    assert done >= 1 and "3,000 rows, 0 failed" in out
    assert table["key"].to_pylist() == sorted(set(table["key"].to_pylist()))


@pytest.mark.parametrize("command", ON_RAY)
def test_a_command_for_pictures_of_ones_own_works_as_it_is_typed(command, tmp_path):
    (tmp_path / "jobs/demo").mkdir(parents=True)
    for name in ("configs", "jobs/demo/checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "MYFOLDER").mkdir()
    for number in range(6):
        (tmp_path / f"MYFOLDER/{number}.png").write_bytes(png(number))
    words = shlex.split(command)[1:]
    code, out, err = finished(triptych(*words, folder=tmp_path))
    assert code == 0, err
    if words[0] == "plan":
        assert "6 rows" in out and not (tmp_path / "captions").exists()
        return
    rows = pq.read_table(tmp_path / "captions").to_pylist()
    assert [row["image_path"] for row in rows] == [f"{number}.png" for number in range(6)]
    assert all(row["caption"] for row in rows)
