#!/usr/bin/env bash
# Triton 3.9.0, interpreter (TRITON_INTERPRET=1): tl.dot of two bfloat16 blocks gives the product of their bit patterns,
# read as 16-bit integers. Nothing is raised. float16 and float32 are multiplied rightly, and so are bfloat16 blocks that
# the kernel casts to float32 before.
#
# One would guess that a kernel whose float32 test passes in the interpreter can be tested there in bfloat16 as well,
# which is what it runs in on a GPU: additions, stores and casts of bfloat16 are right there, and tl.dot alone is not.
set -euo pipefail
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "Triton has wheels for Linux on x86-64; this is $(uname -sm)"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 triton==3.9.0 numpy==2.4.6
# What is interpreted is read from a file.
cat > "$folder/product.py" <<'PY'
import torch
import triton
import triton.language as tl


@triton.jit
def product(A, B, OUT, N: tl.constexpr, WIDE: tl.constexpr):
    rows, columns = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    at = rows * N + columns
    a, b = tl.load(A + at), tl.load(B + at)
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    tl.store(OUT + at, tl.dot(a, b, input_precision="ieee"))


def error(dtype: torch.dtype, wide: bool) -> float:
    """Return the greatest difference from torch's product of the same numbers, over its greatest number."""
    a, b = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    out = torch.empty(16, 16)
    product[(1,)](a, b, out, 16, wide)
    expected = a.float() @ b.float()
    return ((out - expected).abs().max() / expected.abs().max()).item()


cases = [(torch.float32, False), (torch.float16, False), (torch.bfloat16, True), (torch.bfloat16, False)]
wrong = []
for dtype, wide in cases:
    found = error(dtype, wide)
    print(f"Triton {triton.__version__}, tl.dot of {dtype}{', cast before' if wide else ''}: off by {found:.1e} of the greatest")
    if not found < 1e-2:
        wrong.append((dtype, wide))
assert wrong == [(torch.bfloat16, False)], f"this has changed: found {wrong} to be wrong, expected bfloat16 alone"
PY
TRITON_INTERPRET=1 "$folder/venv/bin/python" "$folder/product.py"
# Output seen:
# Triton 3.9.0, tl.dot of torch.float32: off by 0.0e+00 of the greatest
# Triton 3.9.0, tl.dot of torch.float16: off by 0.0e+00 of the greatest
# Triton 3.9.0, tl.dot of torch.bfloat16, cast before: off by 0.0e+00 of the greatest
# Triton 3.9.0, tl.dot of torch.bfloat16: off by 1.5e+09 of the greatest
