#!/usr/bin/env bash
# torch 2.13.0, CPU: torch.nn.attention.bias.causal_lower_right(q, k), which stands for a causal mask so that none has to
# be made, itself allocates 2 * q * k float32 of the host's memory: eight times a mask of booleans. For 131,072 places it
# fails to allocate 128 GiB, before anything attends.
#
# One would guess that the object holds two lengths and the kind of mask, as its documentation shows. It does, beside a
# tensor: the class derives from Tensor without a __new__ of its own, so Tensor's takes the three arguments, of which the
# kind is an integer too (1 for upper left, 2 for lower right), for the sizes of a new tensor.
#
# Where it matters: chunks of a long prompt, which see all that came before, are what the lower right is for; a chunk of
# 4,096 behind 61,440 takes 2 GiB of the host's memory at each layer's call. torch's flash attention for GPUs takes
# is_causal=True for the same thing, called by its own name (aten::_scaled_dot_product_flash_attention).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch.nn.attention.bias import causal_lower_right, causal_upper_left

for make, kind in ((causal_upper_left, 1), (causal_lower_right, 2)):
    held = make(300, 500)
    found = tuple(held.shape), held.dtype, held.untyped_storage().nbytes()
    print(f"torch {torch.__version__}: {make.__name__}(300, 500) is a tensor of {found}; a mask has {300 * 500} bytes")
    assert found == ((kind, 300, 500), torch.float32, kind * 300 * 500 * 4), f"this has changed: found {found}"
PY
# Output seen:
# torch 2.13.0+cpu: causal_upper_left(300, 500) is a tensor of ((1, 300, 500), torch.float32, 600000); a mask has 150000 bytes
# torch 2.13.0+cpu: causal_lower_right(300, 500) is a tensor of ((2, 300, 500), torch.float32, 1200000); a mask has 150000 bytes
