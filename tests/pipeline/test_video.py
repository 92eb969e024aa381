"""Videos become a few of their frames."""

import io
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from jobs.caption import CaptionSettings
from models.images import decode_image
from pipeline.input.formats import video as videos
from pipeline.input.formats.rows import ReadError
from pipeline.input.formats.video import BadVideo, Frames, sample
from pipeline.input.read import read_unit
from pipeline.input.sources import Source
from pipeline.input.units import ReadSettings
from pipeline.state.plan import make_plan
from pipeline.storage.store import Store
from tests.pictures import plain
from tests.pipeline.inputs import faults, plan_units, read_all, rows_of, write
from tests.pipeline.videos import numbers, sound, video
from tests.s3 import S3

CONTAINERS = [
    ("mp4", "libx264"),
    ("mp4", "mpeg4"),
    ("mov", "libx264"),
    ("matroska", "libx264"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
]


def taken(data: bytes, num_frames: int, size: int = 490) -> Frames:
    return sample(io.BytesIO(data), num_frames, size)


@pytest.mark.parametrize(("format", "codec"), CONTAINERS)
def test_the_frames_are_those_at_the_centres_of_equal_intervals(format: str, codec: str) -> None:
    found = taken(video(50, format, codec), 5)
    assert numbers(found.images) == [int(50 / 5 * (i + 0.5)) for i in range(5)]
    assert found.times == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5])
    assert found.duration == pytest.approx(5)


def test_no_frame_of_a_short_video_is_taken_twice() -> None:
    found = taken(video(3), 8)
    assert numbers(found.images) == [0, 1, 2]
    assert numbers(taken(video(1), 8).images) == [0]


def test_what_is_jumped_over_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for format in ("mp4", "matroska"):
        long = video(60, format, rate=1, group=5)
        jumped = taken(long, 4)
        with monkeypatch.context() as patch:
            patch.setattr(videos, "JUMP_S", 10**6)
            straight = taken(long, 4)
        assert jumped == straight
        assert numbers(jumped.images) == [7, 22, 37, 52]


def test_a_long_video_is_not_read_whole() -> None:
    class Counting(io.BytesIO):
        num_read = 0

        def read(self, count: int | None = -1) -> bytes:
            data = super().read(count)
            Counting.num_read += len(data)
            return data

    data = video(60, "mp4", "mjpeg", rate=1, width=640, height=480)
    found = sample(Counting(data), 3, 490)
    assert numbers(found.images) == [10, 30, 50]
    assert Counting.num_read < len(data) / 2


def test_a_video_recorded_live_does_not_say_how_long_it_is() -> None:
    found = taken(video(50, "webm", "libvpx-vp9", index="between"), 5)
    assert numbers(found.images) == [5, 15, 25, 35, 45]
    assert found.duration == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("index", ["front", "between"])
@pytest.mark.parametrize(
    ("format", "codec"), [("matroska", "libx264"), ("webm", "libvpx-vp9"), ("mp4", "libx264"), ("mov", "libx264")]
)
def test_the_time_of_a_cut_need_not_begin_at_0(format: str, codec: str, index: Literal["front", "between"]) -> None:
    found = taken(video(50, format, codec, start_s=20, index=index), 5)
    assert numbers(found.images) == [5, 15, 25, 35, 45]
    assert found.duration == pytest.approx(5, abs=0.2)
    assert found.times == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5], abs=0.02)


def test_a_cover_that_is_the_first_track_is_not_the_video() -> None:
    found = taken(video(50, "mov", has_cover_track=True), 5)
    assert numbers(found.images) == [5, 15, 25, 35, 45]


def test_frames_are_shrunk_to_the_longer_side_and_never_enlarged() -> None:
    wide = video(2, width=128, height=64)
    assert [decode_image(data).size for data in taken(wide, 2, 32).images] == [(32, 16)] * 2
    assert [decode_image(data).size for data in taken(wide, 2, 490).images] == [(128, 64)] * 2
    assert decode_image(taken(video(1, width=64, height=128), 1, 32).images[0]).size == (16, 32)


@pytest.mark.parametrize(("degrees", "corner"), [(-90, (0, -1)), (90, (-1, 0)), (180, (-1, -1)), (0, (0, 0))])
def test_frames_are_turned_as_the_container_says(degrees: int, corner: tuple[int, int]) -> None:
    """The upper left quarter is white; phones held upright say -90 degrees, and then it is the upper right one."""
    image = decode_image(taken(video(2, width=64, height=32, degrees=degrees), 1).images[0])
    assert image.size == ((64, 32) if degrees % 180 == 0 else (32, 64))
    pixels = np.asarray(image.convert("L"))
    levels = {place: pixels[place[0] or 2, place[1] or 2] for place in [(0, 0), (0, -1), (-1, 0), (-1, -1)]}
    assert {place for place, level in levels.items() if level > 200} == {corner}


def test_pixels_that_are_not_square_are_shown_as_they_are_meant() -> None:
    found = taken(video(1, width=64, height=64, aspect=Fraction(16, 9)), 1)
    assert decode_image(found.images[0]).size == (114, 64)


@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_of_a_video_that_is_cut_short_what_is_there_is_taken(format: str) -> None:
    data = video(60, format, "mpeg4", group=5)
    found = taken(data[: len(data) // 2], 6)
    assert numbers(found.images)[:2] == [5, 15]
    assert numbers(found.images)[-1] in range(24, 34)
    assert found.duration == pytest.approx(6)


@pytest.mark.parametrize(("format", "index"), [("mp4", "between"), ("avi", "front")])
def test_what_was_recorded_until_the_disk_was_full_is_a_shorter_video(format: str, index: str) -> None:
    data = video(60, format, "mpeg4", group=5, index=index)
    found = taken(data[: len(data) // 2], 6)
    assert numbers(found.images)[:5] == [2, 7, 12, 17, 22]
    assert found.duration == pytest.approx(3, abs=0.2)


def test_damage_in_the_middle_costs_the_damaged_frames() -> None:
    data = bytearray(video(60, "matroska", "mpeg4", group=5, width=160, height=120))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    frames = numbers(taken(bytes(data), 12).images)
    assert 6 <= len(frames) <= 12
    assert frames[0] == 2 and frames[-1] == 57


def picture(format: str) -> bytes:
    return plain("red", (32, 32), format)


def no_videos() -> dict[str, bytes]:
    whole = video(20)
    return {
        "empty": b"",
        "text": b"never a video\n" * 100,
        "html": b"<html>404</html>",
        "jpeg": picture("JPEG"),
        "gif": picture("GIF"),
        "the index is missing": video(20, index="back")[:-800],
        "the first bytes only": whole[:40],
        "zeros": bytes(5000),
        "a coding that nobody knows": whole.replace(b"avc1", b"zzz1"),
    }


@pytest.mark.parametrize("name", no_videos())
def test_what_is_no_video_is_refused_and_says_nothing_on_the_terminal(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadVideo, match=r"cannot|found"):
        taken(no_videos()[name], 4)
    assert capfd.readouterr() == ("", "")


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(video(5))
    lists = [
        f"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:5,\n{secret.as_uri()}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {secret}\n",
    ]
    for text in lists:
        with pytest.raises(BadVideo):
            taken(text.encode(), 4)


def test_a_title_in_another_alphabet_does_no_harm() -> None:
    data = video(10).replace(b"Lavf", b"\xff\xfeav")
    assert numbers(taken(data, 2).images) == [2, 7]


def test_sound_alone_is_no_video() -> None:
    with pytest.raises(BadVideo, match="found audio in mov,mp4,m4a,3gp,3g2,mj2, expected a video stream"):
        taken(sound(), 4)


def test_a_video_with_sound_is_its_frames() -> None:
    assert numbers(taken(video(50, has_sound=True), 5).images) == [5, 15, 25, 35, 45]


def test_frames_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(2, width=160, height=160)
    monkeypatch.setattr(videos, "LIMIT_PIXELS", 100 * 100)
    with pytest.raises(BadVideo):
        taken(data, 2)


def test_a_store_that_stumbles_is_not_the_end_of_the_video() -> None:
    class Stumbling(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            if self.tell() > 20_000:
                raise ConnectionError("reset by peer")
            return super().read(count)

    data = video(60, "matroska", "mpeg4", width=160, height=120, group=2)
    assert len(data) > 40_000
    with pytest.raises(ConnectionError, match="reset by peer"):
        sample(Stumbling(data), 10, 490)


def test_every_file_of_a_folder_of_videos_is_a_row(tmp_path: Path) -> None:
    write(tmp_path / "deep/b.MP4", video(20))
    write(tmp_path / "a.webm", video(3, "webm", "libvpx-vp9"))
    write(tmp_path / "c.mkv", b"never a video")
    write(tmp_path / "notes.txt", "of the day")
    rows = rows_of(tmp_path, 2, num_frames=4, frame_size=32)
    assert [(row["key"], row["shard"], row["index"]) for row in rows] == [
        (name, name, 0) for name in ("a.webm", "c.mkv", "deep/b.MP4")
    ]
    assert [numbers(row["images"]) for row in rows] == [[0, 1, 2], [], [2, 7, 12, 17]]
    assert rows[2]["frame_times"] == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert rows[2]["duration"] == pytest.approx(2)
    assert decode_image(rows[2]["images"][0]).size == (32, 24)
    assert [row["error"] and (row["error"]["stage"], row["error"]["type"]) for row in rows] == [
        None,
        ("decode", "BadVideo"),
        None,
    ]
    assert str(rows[1]["error"]["message"]).startswith("c.mkv: cannot read a video")


def test_a_bucket_of_videos_is_read_like_a_folder_of_them(s3: S3, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", video(50, index="back"))
    write(tmp_path / "b.mkv", b"never a video")
    for path in tmp_path.iterdir():
        Store(s3.uri, s3.settings).replace(f"films/{path.name}", path.read_bytes())
    local = read_all(tmp_path, num_frames=5)
    remote = read_all(f"{s3.uri}/films", num_frames=5, storage=s3.settings.model_dump())
    assert remote.equals(local.cast(remote.schema))
    assert faults(remote.to_pylist()) == [None, "BadVideo"]


def test_a_video_that_is_gone_costs_its_row_only(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write(tmp_path / name, video(2))
    settings = ReadSettings(uri=str(tmp_path))
    (unit,) = plan_units(settings, 2)
    (tmp_path / "a.mp4").unlink()
    assert faults(read_unit(unit, settings).to_pylist()) == ["NotFound", None]


def test_of_a_unit_the_rows_that_are_wanted_are_read(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write(tmp_path / name, video(2))
    settings = ReadSettings(uri=str(tmp_path))
    (unit,) = plan_units(settings, 3)
    whole = read_unit(unit, settings)
    (tmp_path / "b.mp4").unlink()
    assert read_unit(replace(unit, only=(0, 2)), settings).equals(whole.take([0, 2]))


def test_a_video_is_a_unit_by_itself_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write(tmp_path / name, video(2))
    settings, job = ReadSettings(uri=str(tmp_path)), CaptionSettings(kind="caption").build()
    sample = [pa.table({"input.tiles": pa.array([[b"pixels"]], pa.list_(pa.large_binary()))})]
    assert [unit.num_rows for unit in make_plan(Source("", settings), "auto", sample, 0, job).units] == [1, 1]
    assert [unit.num_rows for unit in make_plan(Source("", settings), 2, [], 0, job).units] == [2]


def test_frames_are_asked_of_videos_only(tmp_path: Path) -> None:
    write(tmp_path / "a.png", picture("PNG"))
    with pytest.raises(ReadError, match=r"read.num_frames and read.frame_size are for videos; found images at"):
        rows_of(tmp_path, num_frames=8)


def test_without_a_decoder_the_remedy_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", video(2))
    code = f"""
import sys
sys.modules["av"] = None
from pipeline.storage.store import Store
from pipeline.input.units import ReadSettings, plan_input
try:
    plan_input(ReadSettings(uri={str(tmp_path)!r}), 1)
except Exception as error:
    print(type(error).__name__, error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith("ReadError reading videos takes PyAV: pip install 'triptych[video]'")
