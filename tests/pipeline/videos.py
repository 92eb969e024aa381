"""Small videos whose every frame says which one it is."""

import io
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import OutputContainer
from PIL import Image

LEVEL = 4  # the step of grey from one frame to the next; what encoders lose is less


class Live(io.RawIOBase):
    """What a recorder writes to: there is no way back to fill in the length."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


def video(
    num_frames: int = 50,
    format: str = "mp4",
    codec: str = "libx264",
    *,
    rate: int = 10,
    width: int = 64,
    height: int = 48,
    group: int = 12,
    degrees: int = 0,
    aspect: Fraction = Fraction(1),
    index: Literal["front", "back", "between"] = "front",
    has_sound: bool = False,
    start_s: int = 0,
    has_cover_track: bool = False,
) -> bytes:
    """Frame `n` is grey of level `n * LEVEL`; of its left half the upper quarter is white, the lower noise.

    It is to be shown turned counterclockwise by `degrees`. Players can begin while they still load where the index
    stands at the front; what is recorded live has it between the frames and does not say how long it is. Cuts begin at
    `start_s`; some files have a cover as their first track, without saying so.
    """
    flags = {"front": "faststart", "back": "", "between": "frag_keyframe+empty_moov"}[index]
    options = {"movflags": flags} if format in ("mp4", "mov") and flags else {}
    live = Live()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video")  # what has its index at the front is written twice, which takes a real file
        sink = live if index == "between" else str(path)
        with av.open(sink, "w", format=format, container_options=options) as container:
            cover = container.add_stream("mjpeg", rate=rate) if has_cover_track else None
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, _pixels_of(codec), group
            stream.codec_context.sample_aspect_ratio = aspect
            stream.bit_rate = 4_000_000
            if degrees:
                stream.set_display_rotation(degrees)
            spoken = container.add_stream("aac", rate=8000, layout="mono") if has_sound else None
            if cover is not None:
                cover.width, cover.height, cover.pix_fmt = width, height, "yuvj420p"
                container.mux([*cover.encode(_frame(60, width, height)), *cover.encode()])
            for number in range(num_frames):
                frame = _frame(number, width, height)
                frame.pts, frame.time_base = number + start_s * rate, Fraction(1, rate)
                for packet in stream.encode(frame):
                    container.mux(packet)
            container.mux(stream.encode())
            if spoken is not None:
                _add_sound(container, spoken)
        return live.data or path.read_bytes()


def sound() -> bytes:
    """A file of a video's kind with nothing to see."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        _add_sound(container, container.add_stream("aac", rate=8000, layout="mono"))
    return sink.getvalue()


def _pixels_of(codec: str) -> str:
    return "yuvj420p" if codec == "mjpeg" else "yuv420p"


def _add_sound(container: OutputContainer, stream: av.AudioStream) -> None:
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
    silence.sample_rate = 8000
    container.mux([*stream.encode(silence), *stream.encode()])


def _frame(number: int, width: int, height: int) -> av.VideoFrame:
    pixels = np.full((height, width, 3), number * LEVEL % 256, np.uint8)
    pixels[: height // 2, : width // 2] = 255
    noise = pixels[height // 2 :, : width // 2]
    noise[:] = np.random.default_rng(number).integers(0, 150, noise.shape)
    return av.VideoFrame.from_ndarray(pixels)


def numbers(images: Sequence[bytes]) -> list[int]:
    """Which frames these are."""
    return [round(np.asarray(Image.open(io.BytesIO(data)).convert("L"))[-1, -1] / LEVEL) for data in images]
