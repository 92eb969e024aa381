#!/usr/bin/env bash
# torch 2.13.0 with MKL, x86, float32: under MKL_CBWR=COMPATIBLE, the mode that makes results equal on all CPUs, a row of
# a linear layer (192 -> 96) has other bits among 2, 3, 5 or 6 rows than among 64. oneDNN's product on a packed weight has
# the same bits in all of them.
#
# One would guess that the mode for reproducible numbers also takes away that a row's result depends on how many rows
# there are. It only promises that the same call gives the same bits; the number of rows makes it another call. Batched
# inference cannot buy its answers' independence of company there.
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || { echo "MKL is x86 only; this is $(uname -m)"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
MKL_CBWR=COMPATIBLE "$folder/venv/bin/python" - <<'PY'
import torch
from torch.nn import functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
rows = (2, 3, 5, 6, 8, 12, 16, 24, 32, 48, 64)
weight = torch.randn(96, 192) * 192**-0.5
turned = weight.t().contiguous().t()
packed = torch.ops.mkldnn._reorder_linear_weight(weight)
ways = {
    "MKL": lambda x: F.linear(x, turned),
    "oneDNN, packed": lambda x: torch.ops.mkldnn._linear_pointwise.default(x, packed, None, "none", [], ""),
}
x = torch.randn(64, 192)
differ = {name: [n for n in rows if not torch.equal(way(x[:n]), way(x)[:n])] for name, way in ways.items()}
for name, numbers in differ.items():
    print(f"torch {torch.__version__}, {name}: a row's bits are not those among 64 rows with {numbers or 'no number of'} rows")
expected = {"MKL": [2, 3, 5, 6], "oneDNN, packed": []}
assert differ == expected, f"this has changed: found {differ}, expected {expected}"
PY
# Output seen, on an Intel CPU:
# torch 2.13.0+cpu, MKL: a row's bits are not those among 64 rows with [2, 3, 5, 6] rows
# torch 2.13.0+cpu, oneDNN, packed: a row's bits are not those among 64 rows with no number of rows
