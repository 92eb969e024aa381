"""Rows that name a video, of which frames are their images, and subtitles, whose text stands beside."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.caption import CaptionSettings
from pipeline.input import videos
from pipeline.input.formats.rows import ReadError
from pipeline.input.read import read_unit
from pipeline.input.sources import Source
from pipeline.input.units import ReadSettings
from pipeline.state.plan import make_plan
from pipeline.storage.store import StorageError, Store
from tests.pipeline.inputs import faults, plan_units, rows_of, write
from tests.pipeline.test_video import numbers
from tests.pipeline.videos import video
from tests.s3 import S3

COLUMNS = {"key": "id", "video": "video_path", "subtitles": "subtitle_path"}
WORDS = json.dumps([{"start": "00:00:01", "end": "00:00:02", "line": "Grüße"}], ensure_ascii=False)


def data(folder: Path, format: str = "parquet", **more: Any) -> Path:
    """Three questions on two videos, the last one without subtitles."""
    write(folder / "videos/a.mp4", video(20))
    write(folder / "videos/deep/b.webm", video(3, "webm", "libvpx-vp9"))
    write(folder / "subtitles/a.json", WORDS)
    write(folder / "subtitles/b.srt", b"\xef\xbb\xbf1\n00:00:00,000 --> 00:00:02,000\nhello\n")
    rows = [
        {"id": "0", "video_path": "a.mp4", "subtitle_path": "a.json", "duration": 7.5, **more},
        {"id": "1", "video_path": "deep/b.webm", "subtitle_path": "b.srt", "duration": 0.25, **more},
        {"id": "2", "video_path": "a.mp4", "subtitle_path": None, "duration": 7.5, **more},
    ]
    path = folder / "rows" / f"a.{format}"
    if format == "parquet":
        path.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(path, "\n".join(map(json.dumps, rows)))
    return path


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    folders = {"video": str(folder / "videos"), "subtitles": str(folder / "subtitles")}
    return {"columns": COLUMNS, "folders": folders, "num_frames": 4, "frame_size": 32, **more}


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_rows_images_are_the_frames_of_the_video_that_it_names(tmp_path: Path, format: str) -> None:
    rows = rows_of(data(tmp_path, format), **settings(tmp_path))
    assert faults(rows) == [None] * 3
    assert [numbers(row["images"]) for row in rows] == [[2, 7, 12, 17], [0, 1, 2], [2, 7, 12, 17]]
    assert [row["duration"] for row in rows] == pytest.approx([2.0, 0.3, 2.0], abs=0.1)
    assert rows[0]["frame_times"] == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert [row["subtitles"] for row in rows] == [WORDS, "1\n00:00:00,000 --> 00:00:02,000\nhello\n", None]
    # What it says itself stays: names, and the duration that it states.
    assert [row["input_duration"] for row in rows] == [7.5, 0.25, 7.5]
    assert [row["video_path"] for row in rows] == ["a.mp4", "deep/b.webm", "a.mp4"]
    assert [row["key"] for row in rows] == ["0", "1", "2"]


def test_names_start_at_the_shards_own_folder_where_no_other_is_said(tmp_path: Path) -> None:
    path = data(tmp_path)
    for folder in ("videos", "subtitles"):
        shutil.copytree(tmp_path / folder, tmp_path / "rows", dirs_exist_ok=True)
    assert rows_of(path, columns=COLUMNS, num_frames=2) == rows_of(
        path, **settings(tmp_path, num_frames=2, frame_size=490)
    )


def test_a_video_of_several_rows_of_a_unit_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    named = videos._named

    def counted(name: str, *rest: Any) -> Any:
        decoded.append(name)
        return named(name, *rest)

    monkeypatch.setattr(videos, "_named", counted)
    rows_of(data(tmp_path), **settings(tmp_path))
    assert decoded == ["a.mp4", "deep/b.webm"]


def test_a_missing_or_broken_file_costs_its_row_and_says_which(tmp_path: Path) -> None:
    path = data(tmp_path)
    write(tmp_path / "videos/deep/b.webm", b"never a video")
    (tmp_path / "subtitles/a.json").unlink()
    rows = rows_of(path, **settings(tmp_path))
    assert [row["error"] and (row["error"]["stage"], row["error"]["type"]) for row in rows] == [
        ("fetch", "NotFound"),
        ("decode", "BadVideo"),
        None,
    ]
    assert "subtitles/a.json" in rows[0]["error"]["message"] and "b.webm" in rows[1]["error"]["message"]
    assert [len(row["images"]) for row in rows] == [0, 0, 4]
    write(tmp_path / "subtitles/a.json", b"\xff\xfe\x00")
    (tmp_path / "videos/a.mp4").unlink()
    assert faults(rows_of(path, **settings(tmp_path))) == ["NotFound", "BadVideo", "NotFound"]


def test_subtitles_are_read_up_to_a_size_and_as_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data(tmp_path)
    write(tmp_path / "subtitles/a.json", b"Gr\xfc\xdfe")
    monkeypatch.setattr(videos, "SUBTITLES_BYTES", 20)
    assert faults(rows_of(path, **settings(tmp_path))) == ["NotUtf8", "TooLarge", None]


def test_a_row_may_name_no_video_but_nothing_else_in_its_place(tmp_path: Path) -> None:
    data(tmp_path)
    rows = [{"video_path": None, "subtitle_path": ""}, {"video_path": 7}, {"video_path": "https://host/a.mp4"}]
    write(tmp_path / "rows/b.jsonl", "\n".join(map(json.dumps, rows)))
    columns = {"video": "video_path", "subtitles": "subtitle_path"}
    found = rows_of(tmp_path / "rows/b.jsonl", **settings(tmp_path, columns=columns))
    assert faults(found) == [None, "WrongType", "Refused"]
    assert found[0]["images"] == [] and found[0]["subtitles"] is None and found[0]["frame_times"] is None


def test_videos_of_a_folder_that_is_gone_are_nobodys_fault(tmp_path: Path) -> None:
    path = data(tmp_path)
    shutil.rmtree(tmp_path / "videos")
    with pytest.raises(StorageError, match="was it removed, or is a disk not mounted"):
        rows_of(path, **settings(tmp_path))


def test_without_images_no_video_is_opened(tmp_path: Path) -> None:
    read = ReadSettings.model_validate({"uri": str(data(tmp_path)), **settings(tmp_path)})
    (unit,) = plan_units(read, 3)
    schema = read_unit(unit, read).schema
    shutil.rmtree(tmp_path / "videos")
    shutil.rmtree(tmp_path / "subtitles")
    table = read_unit(unit, read, with_images=False)
    assert table.schema == schema and faults(table.to_pylist()) == [None] * 3
    for name in ("duration", "frame_times", "subtitles"):
        assert table[name].null_count == 3


def test_a_bucket_holds_videos_and_subtitles_as_well(s3: S3, tmp_path: Path) -> None:
    local = rows_of(data(tmp_path), **settings(tmp_path))
    for path in sorted(tmp_path.rglob("*.*")):
        Store(s3.uri, s3.settings).replace(f"long/{path.relative_to(tmp_path)}", path.read_bytes())
    folders = {"video": f"{s3.uri}/long/videos", "subtitles": f"{s3.uri}/long/subtitles"}
    there = settings(tmp_path, folders=folders, storage=s3.settings.model_dump())
    assert rows_of(f"{s3.uri}/long/rows", **there) == local


def test_a_row_with_a_video_is_a_unit_by_itself_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    read = ReadSettings.model_validate({"uri": str(data(tmp_path)), **settings(tmp_path)})
    job = CaptionSettings(kind="caption").build()
    sample = [pa.table({"input.tiles": pa.array([[b"pixels"]], pa.list_(pa.large_binary()))})]
    assert [unit.num_rows for unit in make_plan(Source("", read), "auto", sample, 0, job).units] == [1, 1, 1]
    assert [unit.num_rows for unit in make_plan(Source("", read), 2, [], 0, job).units] == [2, 1]


def test_columns_that_name_files_must_be_there(tmp_path: Path) -> None:
    path = data(tmp_path)
    with pytest.raises(ReadError, match=r"read.columns.video names 'film', but the columns are: id, video_path"):
        rows_of(path, columns={"video": "film"})
    with pytest.raises(ReadError, match=r"read.columns.video names 'film', but a folder of video has no columns"):
        rows_of(tmp_path / "videos", columns={"video": "film"})
