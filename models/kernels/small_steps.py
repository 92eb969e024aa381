"""Small steps between a layer's products, in one launch each: norms, a SwiGLU's product, rotation into the cache.

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


def rotate_and_write(
    new: Tensor, num_keys: int, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, rows: Tensor
) -> Tensor:
    """Rotate new queries and keys, put keys and values into the cache; return the queries (B, H, T, C).

    Args:
        new: (B, H + 2 * K, T, C), what a layer's three matrices give of its tokens; a head's C numbers lie together.
        num_keys: K.
        cos: (B or 1, 1, T, C), of its type; see models/layers.py: Rotation.
        sin: Likewise; the first half has the other sign.
        keys: The layer's store of keys, seen as (rows, C).
        values: And of values.
        rows: int64 (B * K * T), where each head of each token goes in both.
    """
    B, heads, T, C = new.shape
    query = new.new_empty(B, heads - 2 * num_keys, T, C)
    turns = cos.stride(0) if len(cos) > 1 else 0
    launch(
        _rotate_and_write, (B * T, heads), new, cos, sin, keys, values, rows, query, *new.stride()[:3], turns, T,
        query.shape[1], num_keys, HALF=C // 2, HP=triton.next_power_of_2(C // 2), enable_fp_fusion=False,
    )  # fmt: skip
    return query


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


@triton.jit
def _rotate_and_write(
    NEW, COS, SIN, KEYS, VALUES, ROWS, QUERY, new_lane, new_head, new_token, turns_lane, T, H, K,
    HALF: tl.constexpr, HP: tl.constexpr,
):  # fmt: skip
    """Do one head of one token; half its numbers stand as HP."""
    b, t, head = (tl.program_id(0) // T).to(tl.int64), tl.program_id(0) % T, tl.program_id(1)
    C = 2 * HALF
    source = NEW + b * new_lane + head * new_head + t * new_token
    cos, sin = COS + b * turns_lane + t * C, SIN + b * turns_lane + t * C
    if head < H:
        _rotate(source, QUERY + ((b * H + head) * T + t) * C, cos, sin, HALF, HP)
    elif head < H + K:
        row = tl.load(ROWS + (b * K + head - H) * T + t)
        _rotate(source, KEYS + row * C, cos, sin, HALF, HP)
    else:
        row = tl.load(ROWS + (b * K + head - H - K) * T + t)
        c = tl.arange(0, 2 * HP)
        tl.store(VALUES + row * C + c, tl.load(source + c, mask=c < C, other=0.0), mask=c < C)


@triton.jit
def _rotate(SOURCE, TARGET, COS, SIN, HALF: tl.constexpr, HP: tl.constexpr):
    """Write x * cos + (x with its halves exchanged) * sin, each rounded as torch rounds it."""
    c = tl.arange(0, HP)
    is_number = c < HALF
    left, right = _number(SOURCE + c, is_number), _number(SOURCE + HALF + c, is_number)
    dtype = TARGET.dtype.element_ty
    lower = _rounded(left * _number(COS + c, is_number), dtype)
    lower += _rounded(right * _number(SIN + c, is_number), dtype)
    upper = _rounded(right * _number(COS + HALF + c, is_number), dtype)
    upper += _rounded(left * _number(SIN + HALF + c, is_number), dtype)
    tl.store(TARGET + c, lower.to(dtype), mask=is_number)
    tl.store(TARGET + HALF + c, upper.to(dtype), mask=is_number)


@triton.jit
def _number(POINTER, mask):
    return tl.load(POINTER, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _rounded(x, dtype: tl.constexpr):
    return x.to(dtype).to(tl.float32)
