"""Whole runs of an Mllama through a real local Ray: captions, questions about shared images, and text alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.vqa import VqaSettings
from models import ImageSettings, Request, Sampling, ask
from pipeline.rows import row_seed
from pipeline.run import RunResult, run
from tests.end_to_end.shards import caption, png, results, settings_of, write_shards
from tests.promise import part_faults, parts_in, row_faults

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
VQA = VqaSettings(kind="vqa").build()


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty questions: about three images in turn, about none, and one about an image that is none."""
    folder = tmp_path_factory.mktemp("questions")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "broken.png").write_bytes(b"<html>gone</html>")
    images = [f"{n % 4}.png" if n % 4 < 3 else None for n in range(19)] + ["broken.png"]
    rows = [
        {"key": str(n), "image": image, "question": f"Is it number {n}?", "answers": ["yes"]}
        for n, image in enumerate(images)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def answer(questions: Path, mllama: Path, out: Path, **sections: dict[str, Any]) -> RunResult:
    return run(settings_of(questions / "rows.jsonl", mllama, out, **sections), VQA)


def test_captions_are_those_of_the_model_asked_alone_and_a_killed_run_goes_on(tmp_path: Path, mllama: Path) -> None:
    shards = write_shards(tmp_path / "in", shards=2, rows=10, broken=13)
    preprocess = {"max_image_tiles": 2}
    result = caption(shards, mllama, tmp_path / "out", preprocess=preprocess)
    assert (result.rows, result.failed, result.answered) == (20, 1, 20)
    rows = results(tmp_path / "out").to_pylist()
    assert [(row["key"], row["error"]["stage"]) for row in rows if row["error"]] == [("00013", "decode")]
    whole = parts_in(tmp_path / "out")
    (tmp_path / "out" / "_SUCCESS").unlink()
    (tmp_path / "out" / "part-00000.parquet").unlink()
    again = caption(shards, mllama, tmp_path / "out", preprocess=preprocess)
    assert again.rows == 20 and 0 < again.answered <= 20
    assert part_faults(parts_in(tmp_path / "out"), whole) == []
    content = [{"type": "image"}, {"type": "text", "text": "Describe this image."}]
    sampling = Sampling(max_new_tokens=4, temperature=1.0, seed=row_seed(11, "00007"))
    [alone] = ask(
        str(mllama),
        [Request("00007", [{"role": "user", "content": content}], images=[png(7)], sampling=sampling)],
        preprocess=ImageSettings(max_image_tiles=2),
    )
    assert tuple(rows[7]["output_token_ids"]) == alone.token_ids and rows[7]["image_tokens"] == 1


def test_questions_share_images_and_text_stands_beside_them(tmp_path: Path, questions: Path, mllama: Path) -> None:
    result = answer(questions, mllama, tmp_path / "out")
    assert (result.rows, result.failed) == (20, 1)
    rows = results(tmp_path / "out").to_pylist()
    assert [row["key"] for row in rows] == [str(n) for n in range(20)]
    assert [row["image_tokens"] for row in rows] == [int(n % 4 < 3) for n in range(19)] + [None]
    assert all(("Today Date: 26 Jul 2024" in row["prompt"]) == (n % 4 == 3) for n, row in enumerate(rows[:19]))
    assert rows[19]["error"]["stage"] == "decode" and rows[19]["score"] == 0.0


def test_without_its_eye_a_model_answers_the_text_rows_alike(tmp_path: Path, questions: Path, mllama: Path) -> None:
    answer(questions, mllama, tmp_path / "whole")
    result = answer(questions, mllama, tmp_path / "text", model={"text_only": True})
    assert (result.rows, result.failed) == (20, 16)
    whole, text = (results(tmp_path / name).to_pylist() for name in ("whole", "text"))
    for n, (one, other) in enumerate(zip(whole, text, strict=True)):
        if n % 4 == 3 and n < 19:
            assert row_faults([other], [one]) == []
        else:
            assert other["error"]["stage"] == "preprocess" and "text_only" in other["error"]["message"]
    frozen = json.loads((tmp_path / "text" / "_triptych" / "settings.json").read_text())["settings"]
    assert (frozen["model"]["text_only"], frozen["preprocess"]["today"]) == (True, "2024-07-26")
