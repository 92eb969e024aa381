"""From lines of text to tars for training loaders, through a real local Ray."""

from pathlib import Path
from typing import Any

import pytest

from jobs.report.numbers import numbers_of
from jobs.report.results import read_results
from jobs.synthesize import SynthesizeJob, SynthesizeSettings
from pipeline.run import RunResult, run
from pipeline.storage.store import Store
from tests.end_to_end.shards import caption_job, png, results, settings_of, tar_bytes, write_shards
from tests.pipeline.inputs import read_all
from tests.promise import part_faults, parts_in

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

LINES = [b"a red circle", b"", b"a blue square\r", b"caf\xe9", "ein grünes Dreieck".encode(), b"none"]
DRAWN = ["a red circle", "a blue square", "ein grünes Dreieck", "none"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_bytes(b"\n".join(LINES))
    return path


def job() -> SynthesizeJob:
    return SynthesizeSettings(kind="synthesize", area=256, num_images=2, image_format="jpeg").build()


def draw(prompts: Path, emu3: Path, out: Path) -> RunResult:
    write: dict[str, Any] = {"uri": str(out), "unit_rows": 2, "rows_per_part": 4, "webdataset": True}
    generate: dict[str, Any] = {"slots": 6, "max_length": 256, "sampling": {"seed": 11}}
    limits: dict[str, Any] = {"max_failed_share": 1.0}
    return run(settings_of(prompts, emu3, out, generate=generate, write=write, limits=limits), job())


def test_lines_of_text_become_tars_that_hold_what_the_parts_do(tmp_path: Path, prompts: Path, emu3: Path) -> None:
    out = tmp_path / "out"
    result = draw(prompts, emu3, out)
    assert (result.rows, result.answers, result.failed) == (5, 9, 1)
    well = [row for row in results(out).to_pylist() if row["error"] is None]
    assert [row["caption_in"] for row in well] == [text for text in DRAWN for _ in range(2)]
    samples = read_all(out / "_webdataset").to_pylist()
    assert [sample["key"] for sample in samples] == [
        *["00000-000000", "00000-000001", "00000-000002", "00000-000003", "00000-000005", "00000-000006"],
        *["00001-000000", "00001-000001"],
    ]
    assert [(sample["text"], sample["images"], sample["seed"]) for sample in samples] == [
        (row["caption_in"], [row["image"]], row["seed"]) for row in well
    ]
    numbers = numbers_of(read_results(Store(str(out)), job()), job())
    assert (numbers["rows"], numbers["planned_rows"], numbers["pictures"]) == (5, 5, 8)


def test_a_part_that_is_made_again_finds_its_tar_as_it_left_it(tmp_path: Path, prompts: Path, emu3: Path) -> None:
    out = tmp_path / "out"
    draw(prompts, emu3, out)
    before, tars = parts_in(out), {path.name: path.read_bytes() for path in (out / "_webdataset").iterdir()}
    for name in ("_SUCCESS", "part-00001.parquet"):
        (out / name).unlink()
    assert draw(prompts, emu3, out).answered == 1
    assert part_faults(parts_in(out), before) == []
    (out / "_SUCCESS").unlink()
    (out / "part-00001.parquet").unlink()
    (out / "_webdataset/part-00001.tar").unlink()
    draw(prompts, emu3, out)
    assert {path.name: path.read_bytes() for path in (out / "_webdataset").iterdir()} == tars


def caption_again(shards: Path, checkpoint: Path, out: Path, **write: Any) -> RunResult:
    write = {"uri": str(out), "unit_rows": 2, "rows_per_part": 4, "webdataset": True, **write}
    return run(settings_of(shards, checkpoint, out, write=write), caption_job())


def test_tars_are_captioned_into_tars_with_the_same_images(tmp_path: Path, checkpoint: Path) -> None:
    shards, out = write_shards(tmp_path / "in", shards=2, rows=5), tmp_path / "out"
    (shards / "more.tar").write_bytes(tar_bytes({"x.jpg": b"no image", "y.png": png(1), "y.txt": b"old"}))
    assert caption_again(shards, checkpoint, out).failed == 1
    rows = results(out).to_pylist()
    before = {row["key"]: row["images"] for row in read_all(shards).to_pylist()}
    tars = {path.name: path.read_bytes() for path in (out / "_webdataset").iterdir()}
    assert len(tars) == len(parts_in(out)) == 4
    again = read_all(out / "_webdataset").to_pylist()
    well = [row for row in rows if row["error"] is None]
    assert [(row["text"], row["images"], row["input_key"]) for row in again] == [
        (row["caption"], before[row["key"]], row["key"]) for row in well
    ]
    assert [row["image_path"] for row in well][-1] == "y.png"
    other = tmp_path / "other"
    caption_again(shards, checkpoint, other)
    assert {path.name: path.read_bytes() for path in (other / "_webdataset").iterdir()} == tars
