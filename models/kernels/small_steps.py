"""Small steps between a layer's products, in one launch each: norms, a SwiGLU's product.

Sums are float32, and a result is rounded to its type wherever torch's operations round it (models/layers.py).

Shapes: B sequences, T tokens of each, D model width, F inner width, H query heads, K key heads, C head width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels.launch import launch

BLOCK = 1024


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Norm the last dimension of x (…, D), by a weight (D,)."""
    x, D = x.contiguous(), x.shape[-1]
    normed = torch.empty_like(x)
    sizes = {"D": D, "DP": triton.next_power_of_2(D)}
    launch(_norm, (x.numel() // D,), x, x, weight, x, normed, eps, **sizes, ADDS=False)
    return normed


def add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x + y (…, D), and its norm by a weight (D,)."""
    x, y, D = x.contiguous(), y.contiguous(), x.shape[-1]
    total, normed = torch.empty_like(x), torch.empty_like(x)
    sizes = {"D": D, "DP": triton.next_power_of_2(D)}
    launch(_norm, (x.numel() // D,), x, y, weight, total, normed, eps, **sizes, ADDS=True)
    return total, normed


def silu_product(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, of (…, F) each; rows may lie apart, as those of half a tensor do."""
    F = gate.shape[-1]
    gates, ups = (x.reshape(-1, F) for x in (gate, up))
    out = torch.empty_like(gate, memory_format=torch.contiguous_format)
    grid = (len(gates), triton.cdiv(F, BLOCK))
    launch(_silu_product, grid, gates, ups, out, *gates.stride(), *ups.stride(), F, BLOCK=BLOCK)
    return out


@triton.jit
def _norm(X, Y, WEIGHT, TOTAL, NORMED, eps, D: tl.constexpr, DP: tl.constexpr, ADDS: tl.constexpr):
    """Norm one row; D numbers stand as DP."""
    row = tl.program_id(0).to(tl.int64) * D
    d = tl.arange(0, DP)
    is_number = d < D
    dtype = NORMED.dtype.element_ty
    x = tl.load(X + row + d, mask=is_number, other=0.0).to(tl.float32)
    if ADDS:
        x = (x + tl.load(Y + row + d, mask=is_number, other=0.0).to(tl.float32)).to(dtype)
        tl.store(TOTAL + row + d, x, mask=is_number)
        x = x.to(tl.float32)
    x = x * tl.rsqrt(tl.sum(x * x, 0) / D + eps)
    # Cast back before the weight, as the released models do.
    normed = x.to(dtype).to(tl.float32) * tl.load(WEIGHT + d, mask=is_number, other=0.0).to(tl.float32)
    tl.store(NORMED + row + d, normed.to(dtype), mask=is_number)


@triton.jit
def _silu_product(GATE, UP, OUT, gate_row, gate_step, up_row, up_step, F, BLOCK: tl.constexpr):
    """Multiply a piece of one row."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_number = f < F
    dtype = OUT.dtype.element_ty
    gate = tl.load(GATE + row * gate_row + f * gate_step, mask=is_number, other=0.0).to(tl.float32)
    up = tl.load(UP + row * up_row + f * up_step, mask=is_number, other=0.0).to(tl.float32)
    silu = (gate / (1 + tl.exp(-gate))).to(dtype).to(tl.float32)
    tl.store(OUT + row * F + f, (silu * up).to(dtype), mask=is_number)
