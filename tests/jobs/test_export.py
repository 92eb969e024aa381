"""Texts of a run under the paths of their images, as trainers read them."""

import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.__main__ import main
from jobs.caption import CaptionSettings
from jobs.config import RunSettings
from jobs.console_text import export_lines
from jobs.export import Exported, export
from jobs.report.results import ReportError
from jobs.synthesize import SynthesizeSettings
from jobs.vqa import VqaSettings
from pipeline.input.columns import ERROR
from pipeline.rows import IMAGES
from pipeline.settings import check_settings, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import freeze_plan, read_plan
from pipeline.steps.write import parquet_bytes, plan_parts
from pipeline.storage.store import Store
from tests.end_to_end.shards import png
from tests.pipeline.inputs import plan_units, rows_of, tar_bytes, write

FAILED = {"stage": "decode", "type": "BadImage", "message": "no image"}
TYPES = {"error": ERROR, "image": pa.binary(), "index": pa.int64()}


def run_over(uri: Path, job: Any, *parts: list[dict[str, Any]], is_finished: bool = True, **read: Any) -> Store:
    """An output as a run leaves it: of these rows, part by part."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    values = {"read": {"uri": str(uri), **read}, "model": {"path": "m"}, "write": {"uri": store.uri}}
    settings = check_settings(RunSettings, {**values, "job": job.model_dump(mode="json")})
    ledger.freeze_settings(store, {"settings": dump_settings(settings)})
    freeze_plan(store, plan_units(settings.read, 4))
    for number, rows in enumerate(parts):
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: pa.array([row.get(name) for row in rows], TYPES.get(name)) for name in ("error", *names)}
        store.publish(f"part-{number:05d}.parquet", parquet_bytes(pa.table(columns)))
    if is_finished:
        store.publish(ledger.SUCCESS, b"")
    return store


def captioned(uri: Path, *parts: list[dict[str, Any]], **options: Any) -> Store:
    return run_over(uri, CaptionSettings(kind="caption"), *parts, **options)


def row(path: Any, caption: str | None = "a cat", shard: str = "m.jsonl", **columns: Any) -> dict[str, Any]:
    return {"shard": shard, "index": 0, "image_path": path, "caption": caption, **columns}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "b/c.d.png", "broken.png"):
        write(tmp_path / "photos" / name, png(1))
    return tmp_path / "photos"


def of_photos(photos: Path, **options: Any) -> Store:
    rows = [row("a.png", shard="a.png"), row("b/c.d.png", "ein Hündchen", shard="b/c.d.png")]
    return captioned(photos, rows, [row("broken.png", None, shard="broken.png", error=FAILED)], **options)


def test_metadata_beside_the_images_is_an_imagefolder_that_we_read_ourselves(photos: Path) -> None:
    done = export(of_photos(photos), Store(str(photos)), "metadata")
    assert (done.rows, dict(done.left_out)) == (2, {"failed": 1})
    assert lines_of(photos) == [
        {"file_name": "a.png", "text": "a cat"},
        {"file_name": "b/c.d.png", "text": "ein Hündchen"},
    ]
    again = rows_of(photos)
    assert [(one["key"], one["text"], len(one["images"])) for one in again] == [
        ("a.png", "a cat", 1),
        ("b/c.d.png", "ein Hündchen", 1),
    ]


def test_sidecars_stand_beside_the_images_and_nothing_is_written_over(photos: Path) -> None:
    output, folder = of_photos(photos), Store(str(photos))
    write(photos / "a.txt", "by hand")
    done = export(output, folder, "sidecars")
    assert (done.rows, done.differing) == (1, ["a.txt"])
    assert (photos / "a.txt").read_text() == "by hand" and (photos / "b/c.d.txt").read_text() == "ein Hündchen"
    again = export(output, folder, "sidecars", overwrites=True)
    assert (again.rows, again.differing, (photos / "a.txt").read_text()) == (2, [], "a cat")
    assert export(output, folder, "sidecars").rows == 2, "done again it changes nothing"
    assert [one["text"] for one in rows_of(photos)] == ["a cat", "ein Hündchen", None]


def test_a_killed_export_leaves_no_metadata_and_is_begun_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, folder = of_photos(photos), Store(str(photos))

    def killed(rows: Any) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("jobs.export._lines", killed)
        export(output, folder, "metadata")
    assert not (photos / "metadata.jsonl").exists()
    export(output, folder, "metadata")
    first = (photos / "metadata.jsonl").read_bytes()
    export(output, folder, "metadata")
    assert (photos / "metadata.jsonl").read_bytes() == first


def test_paths_of_manifests_count_from_the_input_and_others_have_no_place_for_a_text(tmp_path: Path) -> None:
    write(tmp_path / "in/sub/m.jsonl", '{"image": "x.png"}\n')
    write(tmp_path / "in/more.jsonl", '{"image": "x.png"}\n')
    paths = ["x.png", "https://x.org/y.png", "/elsewhere/z.png", "../z.png", None, '["1.png", "2.png"]', "x.jpg"]
    output = captioned(tmp_path / "in", [row(path, shard="sub/m.jsonl") for path in paths])
    done = export(output, Store(str(tmp_path / "out")), "metadata")
    names = [line["file_name"] for line in lines_of(tmp_path / "out")]
    assert names == ["sub/x.png", "https://x.org/y.png", "/elsewhere/z.png", "sub/../z.png", "sub/x.jpg"]
    assert dict(done.left_out) == {"have no image with a path": 1, "have several images": 1}
    done = export(output, Store(str(tmp_path / "texts")), "sidecars")
    assert [entry.path for entry in Store(str(tmp_path / "texts")).list()] == ["sub/x.txt"]
    outside = "name an image that is not below the input's folder"
    assert (done.rows, done.left_out[outside]) == (1, 3)
    assert done.left_out["would write a text that an earlier row has written"] == 1
    assert "1 texts in" in export_lines(done)[0] and "3 name an image" in export_lines(done)[1]


def test_several_images_of_a_row_are_a_list_of_names(tmp_path: Path) -> None:
    write(tmp_path / "in/m.jsonl", '{"image": ["a.png", "b.png"]}\n')
    output = captioned(tmp_path / "in", [row(["a.png", "b.png"]), row(["b.png"])])
    export(output, Store(str(tmp_path / "out")), "metadata")
    assert [line["image_file_names"] for line in lines_of(tmp_path / "out")] == [["a.png", "b.png"], ["b.png"]]
    with pytest.raises(ReportError, match="2 have several images"):
        export(output, Store(str(tmp_path / "no")), "sidecars")


def test_questions_stand_beside_their_answers(tmp_path: Path) -> None:
    write(tmp_path / "in/m.jsonl", '{"image": "a.png", "question": "what?"}\n')
    rows = [row("a.png", question="what?", response_clean="a cat")]
    export(run_over(tmp_path / "in", VqaSettings(kind="vqa"), rows), Store(str(tmp_path / "out")), "metadata")
    assert lines_of(tmp_path / "out") == [{"file_name": "a.png", "question": "what?", "text": "a cat"}]


def test_members_of_tars_are_called_as_they_are_there(tmp_path: Path) -> None:
    write(tmp_path / "in/sub/a.tar", tar_bytes([("x/1.png", png(1))]))
    output = captioned(tmp_path / "in", [row("x/1.png", shard="sub/a.tar")])
    export(output, Store(str(tmp_path / "out")), "metadata")
    assert lines_of(tmp_path / "out") == [{"file_name": "x/1.png", "text": "a cat"}]


def test_drawn_pictures_are_written_beside_their_texts(tmp_path: Path) -> None:
    write(tmp_path / "in.txt", "a cat\na dog\n")
    drawn = {"image_format": "jpeg", "image": b"picture", "keep": None, "shard": "in.txt", "caption_in": "a cat"}
    rows = [drawn, {**drawn, "keep": False}, {**drawn, "error": FAILED, "image": None}, {**drawn, "image": b"two"}]
    output = run_over(tmp_path / "in.txt", SynthesizeSettings(kind="synthesize", area=256), [], rows)
    for _ in range(2):
        done = export(output, Store(str(tmp_path / "out")), "metadata")
    assert (done.rows, dict(done.left_out)) == (2, {"were dropped by the check": 1, "failed": 1})
    assert [line["file_name"] for line in lines_of(tmp_path / "out")] == ["00001-000000.jpg", "00001-000003.jpg"]
    assert (tmp_path / "out/00001-000003.jpg").read_bytes() == b"two"
    with pytest.raises(ReportError, match="--as metadata writes both"):
        export(output, Store(str(tmp_path / "out")), "sidecars")


def test_a_run_whose_images_have_no_names_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in/m.jsonl", '{"image": "a.png"}\n')
    output = captioned(tmp_path / "in", [{"shard": "m.jsonl", "caption": "a cat"}])
    with pytest.raises(ReportError, match="1 have no image with a path"):
        export(output, Store(str(tmp_path / "out")), "metadata")
    assert not (tmp_path / "out").exists()


def test_files_that_are_rows_are_called_by_their_shard_in_runs_of_older_versions(photos: Path, tmp_path: Path) -> None:
    output = captioned(photos, [{"shard": "b/c.d.png", "caption": "a cat"}], is_finished=False)
    done = export(output, Store(str(tmp_path / "out")), "metadata")
    assert lines_of(tmp_path / "out") == [{"file_name": "b/c.d.png", "text": "a cat"}]
    assert "not finished" in export_lines(done)[-1]


def test_rows_that_are_committed_are_exported_before_their_part_is_made(photos: Path, tmp_path: Path) -> None:
    output = captioned(photos, is_finished=False)
    frozen = ledger.read_settings(output)
    units = read_plan(output)
    output.delete([ledger.PLAN])
    freeze_plan(output, units, (), plan_parts(units, 9))
    rows = [row("a.png", shard="a.png"), row("b/c.d.png", "a dog", shard="b/c.d.png"), row("broken.png", None)]
    table = pa.Table.from_pylist([{"error": None, **one, IMAGES.name: [b"png"]} for one in rows])
    unit = f"{ledger.units_folder(frozen.get('run', ''))}/{units[0].name}.parquet"
    output.publish(unit, parquet_bytes(table))
    done = export(output, Store(str(tmp_path / "out")), "metadata")
    assert [line["text"] for line in lines_of(tmp_path / "out")] == ["a cat", "a dog"]
    assert not done.is_finished and dict(done.left_out) == {"have no text": 1}


def test_the_command_says_what_stood_there(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = of_photos(photos)
    local = Store(str(tmp_path / "run"))
    for entry in output.list():
        local.publish(entry.path, output.read(entry.path))
    write(photos / "a.txt", "by hand")
    command = ["export", local.uri, "--to", str(photos), "--as", "sidecars"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "1 texts in" in said.out and "1 failed" in said.out and "a.txt" in said.err and "--overwrite" in said.err
    assert main([*command, "--overwrite"]) == 0
    assert main(["export", str(tmp_path / "nothing"), "--to", str(photos), "--as", "metadata"]) == 1
    assert "found no run" in capsys.readouterr().err
    assert isinstance(export(local, Store(str(photos)), "metadata"), Exported)
