"""Sample a video: a few of its frames, evenly over its time, each an uncompressed picture.

It knows containers and codecs; where the file lies and what a model makes of the frames, it does not. Importing it
takes PyAV, so only those import it who have a video in hand.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from models.images import LIMIT_PIXELS
from pipeline.input.formats.rows import ReadError

try:
    import av
except ImportError as error:
    raise ReadError(f"reading videos takes PyAV: pip install 'triptych[video]' ({error})") from error
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

# A container is told by its content. Playlists and lists of files, which ffmpeg knows too, would open other files.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
# Jumping decodes half a group of pictures for nothing, and encoders make groups of up to ten seconds.
JUMP_S = 10
STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# The same pixels on every kind of processor.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT


class BadVideo(ReadError):
    """The file gives no frames; the message says what was found."""


@dataclass(frozen=True)
class Frames:
    """What was taken from a video.

    Attributes:
        images: The frames in order, upright, as PPM files.
        times: When each is shown, in seconds from the start.
        duration: Of the whole video, in seconds.
    """

    images: list[bytes]
    times: list[float]
    duration: float


def sample(file: BinaryIO, num_frames: int, size: int) -> Frames:
    """Take the frames shown at the centres of `num_frames` equal intervals of the first video stream.

    That is the rule of the recipe for videos that Aria's authors published: where all frames last equally long, frame
    `int(length / num_frames * (i + 0.5))`. A frame is taken once, so a short video gives fewer than it was asked for,
    and so does a damaged one: what of it can be decoded.

    Args:
        file: Opened for reading and seeking; a long video is read in places only.
        num_frames: The most frames to take.
        size: The most pixels on a frame's longer side; smaller frames stay as they are.

    Raises:
        BadVideo: It is no video of a kind that is read, or none of its frames can be decoded.
    """
    source = _Source(file)
    try:
        found = _sample(source, num_frames, size, None)
    except av.FFmpegError as error:
        if source.fault is None:
            raise BadVideo(f"cannot read a video: {error.strerror or error}") from error
    if source.fault:
        raise source.fault
    return found


class _Source:
    """A file whose first failure is kept and looks like its end: inside ffmpeg it would be lost or printed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.fault: Exception | None = None

    def read(self, count: int) -> bytes:
        try:
            return b"" if self.fault else self._file.read(count)
        except Exception as error:  # whatever a store raises
            self.fault = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _sample(source: _Source, num_frames: int, size: int, length: int | None) -> Frames:
    """See `sample`; `length` is the video's in units of its time base, where it is known."""
    source.seek(0)
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    with av.open(source, "r", options=options, metadata_errors="replace") as container:
        stream = _stream(container)
        tick, start = stream.time_base or Fraction(1), stream.start_time or 0
        length = length or _length(container, stream)
        if length is None:
            return _sample(source, num_frames, size, _measured(container, stream))
        chosen = _chosen(_Player(container, stream), start, length, num_frames)
        taken = [(_upright(frame, _aspect(stream), size), float((_time(frame) - start) * tick)) for frame in chosen]
        if not taken:
            raise BadVideo(f"cannot decode a frame of the {stream.codec_context.name} in {container.format.name}")
    return Frames([image for image, _ in taken], [time for _, time in taken], float(length * tick))


def _stream(container: InputContainer) -> VideoStream:
    # Covers, thumbnails and stills count as streams too; some of them say what they are, others have a single frame.
    moving = [stream for stream in container.streams.video if not stream.disposition & STILL]
    moving.sort(key=lambda stream: (stream.codec_context is None, stream.frames == 1))
    if not moving:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise BadVideo(f"found {kinds} in {container.format.name}, expected a video stream")
    stream = moving[0]
    if stream.codec_context is None:  # whatever the type hints say
        raise BadVideo(f"found video in {container.format.name} with a codec that cannot be decoded here")
    stream.codec_context.options = {"max_pixels": str(LIMIT_PIXELS)}
    stream.codec_context.thread_count = 1  # a reading task has one core
    return stream


def _length(container: InputContainer, stream: VideoStream) -> int | None:
    """Return how long a stream is, in units of its time base; None where neither it nor its container says.

    A container whose time does not begin at 0, as cuts and recordings have it, may say when it ends.
    """
    if stream.duration:
        return stream.duration
    if container.duration and stream.time_base and not stream.start_time:
        return int(Fraction(container.duration, av.time_base) / stream.time_base)
    return None


def _measured(container: InputContainer, stream: VideoStream) -> int:
    """Find the length in the last packets, without decoding them; without an index all are gone through."""
    start = stream.start_time or 0
    if container.duration:
        with contextlib.suppress(av.FFmpegError):
            container.seek(container.duration)  # at the latest: the time that the container says, or before it
    ends = [packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
    return max([1, *(end - start for end in ends)])


def _chosen(player: "_Player", start: int, length: int, num_frames: int) -> Iterator[VideoFrame]:
    """Yield the frame shown at each centre, none of them twice."""
    last: int | None = None
    for i in range(num_frames):
        frame = player.at(start + length * (2 * i + 1) // (2 * num_frames))
        if frame is not None and (last is None or _time(frame) > last):
            last = _time(frame)
            yield frame


class _Player:
    """Shows a video from its start to its end, jumping over what nobody asks for.

    Times are in units of the stream's time base.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._jump = int(JUMP_S / (stream.time_base or Fraction(1)))
        self._position = stream.start_time or 0
        self._frames = self._decoded()
        self._shown: VideoFrame | None = None
        self._next = next(self._frames, None)

    def at(self, time: int) -> VideoFrame | None:
        """Return the frame shown at a time, not earlier than the one asked for before; None if none was decoded."""
        if time - self._position > self._jump:
            self._jump_to(time)
        while self._next is not None and (self._shown is None or _time(self._next) <= time):
            self._shown, self._next = self._next, next(self._frames, None)
            self._position = max(self._position, _time(self._shown))
        return self._shown

    def _jump_to(self, time: int) -> None:
        try:
            self._container.seek(time, stream=self._stream)
        except av.FFmpegError:  # no index: play on
            return
        self._position = time
        self._frames = self._decoded()
        self._shown, self._next = None, next(self._frames, None)

    def _decoded(self) -> Iterator[VideoFrame]:
        """Decode to the end, or to where the file is broken off, passing over what is damaged."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                if isinstance(frame, VideoFrame) and not frame.is_corrupt and (frame.pts, frame.dts) != (None, None):
                    yield frame


def _time(frame: VideoFrame) -> int:
    time = frame.pts if frame.pts is not None else frame.dts
    assert time is not None
    return time


def _aspect(stream: VideoStream) -> Fraction:
    """Return how much wider than high a pixel is meant to be shown."""
    return stream.sample_aspect_ratio or Fraction(1)


def _upright(frame: VideoFrame, aspect: Fraction, size: int) -> bytes:
    """Return a frame as it is meant to be seen, as PPM: no loss, and nothing to decode."""
    width, height = frame.width * aspect, Fraction(frame.height)
    scale = min(Fraction(1), size / max(width, height))
    small = frame.reformat(
        max(1, round(width * scale)), max(1, round(height * scale)), format="rgb24", interpolation=EXACT
    )
    pixels = np.rot90(small.to_ndarray(), round(frame.rotation / 90))  # counterclockwise both
    return b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
