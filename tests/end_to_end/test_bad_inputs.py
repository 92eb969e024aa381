"""Every odd file that people have in their shards, sent through a whole run: an answer, or an error that says why."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.shards import caption, results

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels, in a few hundred bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (60, 20), "red"), "JPEG", exif=exif)


def zoo() -> dict[str, tuple[bytes | None, str | None]]:
    """Name: (bytes, or None for no such file; the error expected as `stage/type`, or None for an answer)."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8))
    clear = Image.new("P", (40, 40), 1)
    clear.info["transparency"] = 1
    frames = [Image.new("RGB", (30, 30), color) for color in ("red", "green", "blue")]
    jpeg = encoded(photo, "JPEG")
    return {
        "sound.jpg": (jpeg, None),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "decode/BadImage"),
        "zero.png": (b"", "decode/BadImage"),
        "text.jpg": (b"<html>not found</html>", "decode/BadImage"),
        "cmyk.jpg": (encoded(photo.convert("CMYK"), "JPEG"), None),
        "sixteen_bit.png": (encoded(Image.fromarray(np.full((30, 30), 40_000, np.uint16)), "PNG"), None),
        "palette.png": (encoded(clear, "PNG", transparency=1), None),
        "turned.jpg": (turned(), None),
        "animated.gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), None),
        "one_pixel.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), None),
        "long.png": (encoded(Image.new("RGB", (20_000, 20)), "PNG"), None),
        "bomb.png": (bomb(20_000), "decode/BadImage"),
        "missing.png": (None, "fetch/NotFound"),
    }


def test_each_odd_file_is_answered_or_named_and_costs_no_other_row(tmp_path: Path, checkpoint: Path) -> None:
    shards = tmp_path / "in"
    shards.mkdir()
    for name, (data, _) in zoo().items():
        if data is not None:
            (shards / name).write_bytes(data)
    lines = [{"key": name, "image": name} for name in zoo()] + [{"key": "null", "image": None}]
    (shards / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = caption(shards / "rows.jsonl", checkpoint, tmp_path / "out")
    expected = {name: error for name, (_, error) in zoo().items()} | {"null": "fetch/MissingImage"}
    rows = results(tmp_path / "out").to_pylist()
    assert [row["key"] for row in rows] == list(expected)
    errors = {row["key"]: row["error"] and f"{row['error']['stage']}/{row['error']['type']}" for row in rows}
    assert errors == expected
    assert {row["key"] for row in rows if row["caption"] is None} == {key for key, error in expected.items() if error}
    assert result.failed == sum(error is not None for error in expected.values())
    assert all(row["error"]["message"] for row in rows if row["error"])
