"""A folder of videos, captioned: every frame taken is an image of the one message."""

from pathlib import Path

import pytest

from models import ask
from models.types import Request, Sampling
from tests.end_to_end.shards import caption, results
from tests.pipeline.inputs import rows_of, write
from tests.pipeline.videos import video

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_a_video_is_captioned_from_its_frames_and_a_broken_one_costs_its_row(tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "a.mp4", video(20))
    write(folder / "b.mp4", b"<html>gone</html>")
    write(folder / "deep/c.webm", video(3, "webm", "libvpx-vp9"))
    read = {"uri": str(folder), "format": "video", "num_frames": 4, "frame_size": 32}
    generate = {"sampling": {"max_new_tokens": 4}}
    result = caption(folder, checkpoint, tmp_path / "out", read=read, generate=generate, write={"unit_rows": "auto"})
    rows = results(tmp_path / "out").to_pylist()
    assert [row["key"] for row in rows] == ["a.mp4", "b.mp4", "deep/c.webm"]
    assert [row["error"] and f"{row['error']['stage']}/{row['error']['type']}" for row in rows] == [
        None,
        "decode/BadVideo",
        None,
    ]
    assert (result.rows, result.failed) == (3, 1)
    assert [row["frame_times"] and len(row["frame_times"]) for row in rows] == [4, None, 3]
    assert rows[0]["image_tokens"] * 3 == rows[2]["image_tokens"] * 4 > 0

    content = [{"type": "image"}] * 4 + [{"type": "text", "text": "Describe this image."}]
    frames = rows_of(folder, **{name: value for name, value in read.items() if name != "uri"})[0]["images"]
    request = Request(
        messages=[{"role": "user", "content": content}], images=tuple(frames), sampling=Sampling(max_new_tokens=4)
    )
    (alone,) = ask(str(checkpoint), [request], device="cpu")
    assert rows[0]["output_token_ids"] == list(alone.token_ids)
