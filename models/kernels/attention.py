"""Attention of a few new tokens to what was kept of each sequence, or of a picture, by its own length and in place.

A library's attention takes one tensor of keys: sequences of unlike length are read to the longest one's end behind a
mask, and pictures one by one. Here each row says where its keys lie and how many each of its tokens sees. The keys are
read in pieces of SPLIT places by as many programs as it takes to fill a GPU (split-KV, "Flash-Decoding", Dao et al.
2023); what the pieces found is put together in a second launch. Pieces depend on nothing but a row's own length.

Shapes: B rows, T tokens of each, H query heads, K key heads, C head width, S places.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels.launch import launch

# Places that one program reads, and those it reads at once.
SPLIT, BLOCK = 512, 64
# A matrix product on tensor cores has at least so many rows.
LEAST_ROWS = 16


def attend_rows(
    query: Tensor, keys: Tensor, values: Tensor, head_strides: Tensor, ends: Tensor, *, num_heads: int, most: int
) -> Tensor:
    """Let each token see the first places of its own row.

    Args:
        query: (B, H, T, C), in the type of the keys.
        keys: int64 (B,), the address of each row's first key; places are C numbers apart.
        values: int64 (B,), of its first value.
        head_strides: int64 (B,), how many numbers lie between one head's first key and the next one's.
        ends: int64 (B, T), how many places each token sees; one that sees none gets zeros.
        num_heads: K, of which H is a multiple.
        most: No token sees more; what is launched depends on it.

    Returns:
        (B, T, H * C).
    """
    B, H, T, C = query.shape
    rows = H // num_heads * T
    splits = -(-most // SPLIT)
    query = query.contiguous()
    found = torch.empty(B, num_heads, splits, rows, C, dtype=torch.float32, device=query.device)
    # Of each piece the greatest score and the sum of e to the scores less it.
    weights = torch.empty(B, num_heads, splits, rows, 2, dtype=torch.float32, device=query.device)
    out = torch.empty(B, T, H, C, dtype=query.dtype, device=query.device)
    sizes = {"T": T, "R": rows, "P": max(LEAST_ROWS, triton.next_power_of_2(rows)), "C": C}
    sizes["CP"] = max(LEAST_ROWS, triton.next_power_of_2(C))
    launch(
        _read, (B, num_heads, splits), query, keys, values, head_strides, ends, found, weights,
        C**-0.5, **sizes, SPLIT=SPLIT, BLOCK=BLOCK, WIDE=triton.knobs.runtime.interpret,
    )  # fmt: skip
    launch(_join, (B, num_heads), found, weights, out, **sizes, N=splits, NP=triton.next_power_of_2(splits))
    return out.view(B, T, H * C)


@triton.jit
def _read(
    Q, KEYS, VALUES, STRIDES, ENDS, FOUND, WEIGHTS, scale,
    T: tl.constexpr, R: tl.constexpr, P: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
    SPLIT: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Read one piece of one head of one row; R query rows stand as P, C numbers as CP.

    WIDE multiplies in float32: Triton 3.9's interpreter multiplies the bit patterns of bfloat16.
    """
    b, h, s = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    r, c, i = tl.arange(0, P), tl.arange(0, CP), tl.arange(0, BLOCK)
    is_row, is_number = r < R, c < C
    head = (b * tl.num_programs(1) + h) * R
    query = tl.load(Q + (head + r)[:, None] * C + c[None, :], mask=is_row[:, None] & is_number[None, :], other=0.0)
    query = query.to(tl.float32) if WIDE else query
    ends = tl.load(ENDS + b * T + r % T, mask=is_row, other=0)
    first = s * SPLIT
    last = tl.minimum(first + SPLIT, tl.max(ends, 0))
    pointer = tl.pointer_type(Q.dtype.element_ty)
    stride = tl.load(STRIDES + b)
    keys = tl.load(KEYS + b).to(pointer) + h * stride
    values = tl.load(VALUES + b).to(pointer) + h * stride
    top = tl.full((P,), -float("inf"), tl.float32)
    total = tl.zeros((P,), tl.float32)
    found = tl.zeros((P, CP), tl.float32)
    for start in range(first, last, BLOCK):
        places = start + i
        is_there = (places < last)[:, None] & is_number[None, :]
        at = places[:, None] * C + c[None, :]
        some = tl.load(keys + at, mask=is_there, other=0.0)
        some = some.to(tl.float32) if WIDE else some
        scores = tl.dot(query, tl.trans(some), input_precision="ieee") * scale
        scores = tl.where(places[None, :] < tl.minimum(ends, last)[:, None], scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        # Where nothing was seen yet, infinity less infinity would be no number.
        base = tl.where(higher == -float("inf"), 0.0, higher)
        shares, kept = tl.exp(scores - base[:, None]), tl.exp(top - base)
        total = total * kept + tl.sum(shares, 1)
        some = tl.load(values + at, mask=is_there, other=0.0)
        some = some.to(tl.float32) if WIDE else some
        found = found * kept[:, None] + tl.dot(shares.to(some.dtype), some, input_precision="ieee")
        top = higher
    at = ((b * tl.num_programs(1) + h) * tl.num_programs(2) + s) * R + r
    tl.store(FOUND + at[:, None] * C + c[None, :], found, mask=is_row[:, None] & is_number[None, :])
    tl.store(WEIGHTS + at * 2, top, mask=is_row)
    tl.store(WEIGHTS + at * 2 + 1, total, mask=is_row)


@triton.jit
def _join(
    FOUND, WEIGHTS, OUT,
    T: tl.constexpr, R: tl.constexpr, P: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
    N: tl.constexpr, NP: tl.constexpr,
):  # fmt: skip
    """Put together what the N pieces of one head of one row have found, as they are weighted."""
    b, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    K = tl.num_programs(1)
    r, c, n = tl.arange(0, P), tl.arange(0, CP), tl.arange(0, NP)
    is_row = r < R
    first = (b * K + h) * N * R
    at = first + n[:, None] * R + r[None, :]
    is_piece = (n < N)[:, None] & is_row[None, :]
    top = tl.load(WEIGHTS + at * 2, mask=is_piece, other=-float("inf"))
    highest = tl.max(top, 0)
    base = tl.where(highest == -float("inf"), 0.0, highest)
    total = tl.sum(tl.exp(top - base[None, :]) * tl.load(WEIGHTS + at * 2 + 1, mask=is_piece, other=0.0), 0)
    out = tl.zeros((P, CP), tl.float32)
    is_number = is_row[:, None] & (c < C)[None, :]
    for piece in range(N):
        rows = first + piece * R + r
        share = tl.exp(tl.load(WEIGHTS + rows * 2, mask=is_row, other=-float("inf")) - base)
        out += tl.load(FOUND + rows[:, None] * C + c[None, :], mask=is_number, other=0.0) * share[:, None]
    out = out / tl.where(total > 0, total, 1.0)[:, None]
    # Query rows are (heads of the group, T); what comes out is (T, H, C).
    head = h * (R // T) + r // T
    place = (b * T + r % T) * (K * (R // T)) + head
    tl.store(OUT + place[:, None] * C + c[None, :], out.to(OUT.dtype.element_ty), mask=is_number)
