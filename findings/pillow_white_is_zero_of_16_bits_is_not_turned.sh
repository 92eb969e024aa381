#!/usr/bin/env bash
# Pillow 13.0.0: a gray TIFF whose white is 0 (PhotometricInterpretation WhiteIsZero, as scanners and microscopes write)
# is turned at 8 bits a sample, so that white comes out as 255, and left as it is at 16 bits, where white comes out as 0.
#
# One would guess that both depths come out with the same meaning. A reader that takes the high byte of 16-bit samples
# gets a negative and no warning; it has to ask tag 262 itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3
"$folder/venv/bin/python" - <<'PY'
import io

import numpy as np
import PIL
import tifffile
from PIL import Image

found = {}
for dtype, largest in ((np.uint8, 255), (np.uint16, 65535)):
    sink = io.BytesIO()
    tifffile.imwrite(sink, np.array([[0, largest]], dtype), photometric="miniswhite", metadata=None)
    image = Image.open(io.BytesIO(sink.getvalue()))
    found[image.mode] = np.asarray(image)[0].tolist()
    print(f"Pillow {PIL.__version__}, mode {image.mode}: white and black of a white-is-zero TIFF are {found[image.mode]}")
expected = {"L": [255, 0], "I;16": [0, 65535]}
assert found == expected, f"this has changed: found {found}, expected {expected}"
PY
# Output seen:
# Pillow 13.0.0, mode L: white and black of a white-is-zero TIFF are [255, 0]
# Pillow 13.0.0, mode I;16: white and black of a white-is-zero TIFF are [0, 65535]
