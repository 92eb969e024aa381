#!/usr/bin/env bash
# PyAV 18.1.0 (the FFmpeg in its wheel): of a Matroska or WebM file whose first time stamp is not 0, as segment muxers and
# cuts with original time stamps leave, `container.duration` is the time at which the file ends, and not how long it is.
# Of an MP4 with the same time stamps it is the length. `stream.duration` is None in Matroska, so the container's is used.
#
# One would guess that `duration` is a length in every container. Who samples frames at `start + duration * i / n` gets the
# last frame for most of them, and no error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
FOLDER=$folder "$folder/venv/bin/python" - <<'PY'
import os
from fractions import Fraction

import av
import numpy as np

found = {}
for name in ("matroska", "webm", "mp4"):
    path = os.path.join(os.environ["FOLDER"], name)
    with av.open(path, "w", format=name) as container:
        stream = container.add_stream("libvpx" if name == "webm" else "libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(50):  # five seconds
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
            frame.pts, frame.time_base = 200 + number, Fraction(1, 10)  # that begin at 20 s
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(path) as container:
        stream = container.streams.video[0]
        start, length = float(stream.start_time * stream.time_base), container.duration / av.time_base
        found[name] = (start, length, stream.duration is None)
        print(f"PyAV {av.__version__}, {name}: 5 s from 20 s on: start {start} s, container.duration {length} s")
expected = {"matroska": (20.0, 25.0, True), "webm": (20.0, 25.0, True), "mp4": (20.0, 5.0, False)}
assert found == expected, f"this has changed: found {found}, expected {expected}"
PY
# Output seen:
# PyAV 18.1.0, matroska: 5 s from 20 s on: start 20.0 s, container.duration 25.0 s
# PyAV 18.1.0, webm: 5 s from 20 s on: start 20.0 s, container.duration 25.0 s
# PyAV 18.1.0, mp4: 5 s from 20 s on: start 20.0 s, container.duration 5.0 s
