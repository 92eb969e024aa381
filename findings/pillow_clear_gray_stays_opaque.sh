#!/usr/bin/env bash
# Pillow 13.0.0: a gray PNG with a transparent gray (chunk tRNS) comes out opaque with 2 or 4 bits a sample, and with 16 if
# the gray is above 255. With 1 and 8 bits the transparent pixels are transparent.
#
# One would guess that `convert("RGBA")` gives alpha 0 to the transparent gray of any depth, since `info["transparency"]`
# names it. But samples of 2 and 4 bits are scaled to 8 when they are unpacked and the gray of the chunk is not, and samples
# of 16 bits are clipped to 255 before they are compared. Who lays pictures on white for a model shows it grays that are
# not meant to be seen.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install --quiet pillow==13.0.0
"$folder/venv/bin/python" - <<'PY'
import io
import struct
import zlib

import PIL
from PIL import Image


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def alpha(bits: int, row: bytes, clear: int) -> list[int]:
    """Return the alpha of two pixels, of which the first has the transparent gray."""
    header = struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", struct.pack(">H", clear)), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    return list(Image.open(io.BytesIO(data)).convert("RGBA").getchannel("A").getdata())


rows = {1: bytes([0b10000000]), 2: bytes([0b01110000]), 4: bytes([0x23]), 8: bytes([2, 3]), 16: struct.pack(">2H", 300, 301)}
clear = {1: 1, 2: 1, 4: 2, 8: 2, 16: 300}
found = {bits: alpha(bits, row, clear[bits]) for bits, row in rows.items()}
for bits, values in found.items():
    print(f"Pillow {PIL.__version__}, {bits} bits: alpha of the transparent gray and of another: {values}")
expected = {1: [0, 255], 2: [255, 255], 4: [255, 255], 8: [0, 255], 16: [255, 255]}
assert found == expected, f"this has changed: found {found}, expected {expected}"
PY
# Output seen:
# Pillow 13.0.0, 1 bits: alpha of the transparent gray and of another: [0, 255]
# Pillow 13.0.0, 2 bits: alpha of the transparent gray and of another: [255, 255]
# Pillow 13.0.0, 4 bits: alpha of the transparent gray and of another: [255, 255]
# Pillow 13.0.0, 8 bits: alpha of the transparent gray and of another: [0, 255]
# Pillow 13.0.0, 16 bits: alpha of the transparent gray and of another: [255, 255]
