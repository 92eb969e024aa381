#!/usr/bin/env bash
# torch 2.13.0, CPU, float32: a 3 x 3 convolution of one small picture has other last bits than that of the same picture
# in a batch of two; batches of two and of four agree, and so does a picture of 64 channels and 40 x 40 places alone.
#
# One would guess that a convolution, which never looks from one picture of a batch at another, rounds each as it rounds
# it alone, or that only large ones change. It is the small ones: with a batch of one and few numbers torch takes its own
# algorithm (unfold and a matrix product), otherwise oneDNN's. Seen on x86 and on Arm (there with torch's CUDA build, on
# the CPU).
#
# Where it matters: a VQ-VAE takes the nearest of thousands of code vectors at each place. A last bit is then another
# code, which is another token of the prompt: so pictures are encoded one by one, or always in batches.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch.nn import functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
seen = {}
for channels, side in [(16, 8), (32, 12), (64, 16), (64, 40)]:
    weight = torch.randn(channels, channels, 3, 3) * (9 * channels) ** -0.5
    pictures = torch.randn(4, channels, side, side)
    together = F.conv2d(pictures, weight, padding=1)
    alone = torch.cat([F.conv2d(one[None], weight, padding=1) for one in pictures])
    pair = F.conv2d(pictures[:2], weight, padding=1)
    seen[channels, side] = torch.equal(alone, together), torch.equal(pair, together[:2])
    print(f"torch {torch.__version__}: {channels} channels, {side} x {side}: alone as in four: {seen[channels, side][0]} "
          f"(most {float((alone - together).abs().max()):.1e}), in two as in four: {seen[channels, side][1]}")
expected = {(16, 8): (False, True), (32, 12): (False, True), (64, 16): (False, True), (64, 40): (True, True)}
assert seen == expected, f"this has changed: found {seen}, expected {expected}"
PY
# Output seen, on an Intel CPU:
# torch 2.13.0+cpu: 16 channels, 8 x 8: alone as in four: False (most 1.9e-06), in two as in four: True
# torch 2.13.0+cpu: 32 channels, 12 x 12: alone as in four: False (most 2.6e-06), in two as in four: True
# torch 2.13.0+cpu: 64 channels, 16 x 16: alone as in four: False (most 2.4e-06), in two as in four: True
# torch 2.13.0+cpu: 64 channels, 40 x 40: alone as in four: True (most 0.0e+00), in two as in four: True
