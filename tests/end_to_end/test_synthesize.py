"""Whole runs that draw, through a real local Ray: several pictures a row, each as its row says, checked and kept."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.synthesize import SynthesizeSettings
from models import Request, Sampling, ask
from models.images import decode_image
from pipeline.rows import row_seed
from pipeline.run import RunResult, run
from tests.end_to_end.shards import results, settings_of
from tests.promise import looks_like, part_faults, parts_in
from tests.tiny import tiny_aria

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

ROWS: list[dict[str, Any]] = [
    {"text": "a red circle"},
    {"text": "two pictures", "num_images": 2, "seed": 41},
    {"text": "wide", "ratio": "2:1", "guidance_scale": 1.5},
    {"text": "of no shape", "ratio": "none"},
    {"text": "of no size", "area": 0},
    {"text": "long " * 300, "num_images": 4},
    {"text": None},
    {"text": "unlike blue", "negative_prompt": "blue", "num_images": 3},
    *({"text": f"number {n}"} for n in range(8)),
]
DRAWN = [(0, 0), (1, 0), (1, 1), (2, 0), (7, 0), (7, 1), (7, 2), *((n, 0) for n in range(8, 16))]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prompts: Path, emu3: Path, ray_session: None) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "out"
    result = draw(prompts, emu3, out)
    assert (result.rows, result.answers, result.failed, result.answered) == (16, 19, 4, 16)
    return out


def draw(prompts: Path, emu3: Path, out: Path, *, check: dict[str, Any] | None = None, **write: Any) -> RunResult:
    job = SynthesizeSettings.model_validate(
        {"kind": "synthesize", "area": 256, "negative_prompt": "blurry", "quality": ", well done", "check": check}
    ).build()
    settings = settings_of(
        prompts,
        emu3,
        out,
        generate={"slots": 6, "max_length": 256, "sampling": {"seed": 11}},
        write={"uri": str(out), "unit_rows": 3, "rows_per_part": 6, **write},
        limits={"max_failed_share": 1.0},
    )
    return run(settings, job)


def test_every_row_has_its_pictures_in_order_or_one_error(finished: Path) -> None:
    rows = results(finished).to_pylist()
    places = [(row["index"], row["image_index"]) for row in rows]
    assert places == sorted([*DRAWN, (3, 0), (4, 0), (5, 0), (6, 0)])
    assert [(row["index"], row["image_index"]) for row in rows if row["image"]] == DRAWN
    errors = {row["index"]: (row["error"]["stage"], row["error"]["type"]) for row in rows if row["error"]}
    assert errors == {
        3: ("template", "BadRequest"),
        4: ("template", "BadRequest"),
        5: ("tokenise", "PromptTooLong"),
        6: ("template", "BadRequest"),
    }
    for row in rows:
        if row["image"]:
            assert decode_image(row["image"]).size == (row["width"], row["height"])
            assert row["caption_in"] == ROWS[row["index"]]["text"] and row["prompt"].find(", well done") > 0


def test_a_picture_is_the_one_drawn_alone(finished: Path, emu3: Path) -> None:
    rows = {(row["index"], row["image_index"]): row for row in results(finished).to_pylist()}
    assert [rows[1, n]["seed"] for n in (0, 1)] == [41, 42]
    seed = row_seed(11, "prompts.jsonl#7")
    assert [rows[7, n]["seed"] for n in (0, 1, 2)] == [seed, seed + 1, seed + 2]
    for place, negative, scale in [((1, 1), "blurry", 3.0), ((2, 0), "blurry", 1.5), ((7, 2), "blue", 3.0)]:
        row = rows[place]
        sampling = Sampling(temperature=1.0, top_k=2048, seed=row["seed"], guidance_scale=scale)
        grid = grid_of(row, emu3)
        prompt = ROWS[place[0]]["text"] + ", well done"
        (alone,) = ask(str(emu3), [Request(prompt=prompt, grid=grid, negative_prompt=negative, sampling=sampling)])
        assert alone.image is not None and looks_like(row["image"], alone.image)
        assert tuple(row["output_token_ids"]) == alone.token_ids
        assert (row["negative_prompt"], row["guidance_scale"]) == (negative, scale)


def grid_of(row: dict[str, Any], emu3: Path) -> tuple[int, int]:
    levels = json.loads((emu3 / "config.json").read_text())["vq_config"]["channel_multiplier"]
    factor = 2 ** (len(levels) - 1)
    return row["height"] // factor, row["width"] // factor


def test_a_killed_run_goes_on_to_equal_parts(tmp_path: Path, prompts: Path, emu3: Path, finished: Path) -> None:
    out = tmp_path / "out"
    draw(prompts, emu3, out)
    assert part_faults(parts_in(out), parts_in(finished)) == []
    (out / "_SUCCESS").unlink()
    (out / "part-00001.parquet").unlink()
    again = draw(prompts, emu3, out)
    assert (again.rows, again.answers, again.answered) == (16, 19, 6)
    assert part_faults(parts_in(out), parts_in(finished)) == []


def test_another_model_looks_and_what_it_keeps_goes_into_tars(tmp_path: Path, prompts: Path, emu3: Path) -> None:
    vlm = tiny_aria(tmp_path / "vlm")
    check = {
        "model": {"path": str(vlm), "device": "cpu"},
        "generate": {"gpus": 0, "max_length": 512, "sampling": {"max_new_tokens": 4}},
        "questions": [{"ask": "Is this {text}?"}, {"ask": "Not {negative_prompt}?", "expect": "no"}],
    }
    draw(prompts, emu3, tmp_path / "out", check=check, webdataset=True)
    rows = results(tmp_path / "out").to_pylist()
    for row in rows:
        assert (row["keep"] is None) == (row["image"] is None)
        assert row["check_answers"] is None or len(row["check_answers"]) == 2
    tars = sorted((tmp_path / "out" / "_webdataset").iterdir())
    assert [tar.stem for tar in tars] == [part.stem for part in sorted((tmp_path / "out").glob("part-*.parquet"))]
    assert pq.read_table(tmp_path / "out").num_rows == 19
