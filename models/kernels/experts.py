"""A mixture of experts in four launches, of shapes that do not depend on what is chosen: the host waits for nothing.

Rows are not sorted but listed: one program for each expert goes through all scores and writes down who chose it. The
products take each expert's rows in blocks, of which there are as many as there could be at most; a block looks up in
the lists' lengths whose it is, and one that is nobody's does nothing (a "grouped GEMM", as in MegaBlocks, Gale et al.
2023). A row's sums run over stretches of a fixed size, in an order that nobody's company changes.

Shapes: N rows, D model width, E experts, K experts of a row, F inner width of one. A pair is a row and one of its
experts, P = N * K of them; pair n * K + k is the row n's k-th best.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels.launch import launch

# Scores that one program looks at together, in rows.
MOST_LISTED = 256
# Rows of a product's block, in a decode step and beside many: there reading an expert's weights takes the time, and a
# few rows of each expert should be one block; here multiplying does.
FEW_ROWS, MANY_ROWS = 32, 64
# Columns of such a block, twice, and the bytes of a row's stretch that is multiplied at once.
COLUMNS, STRETCH_BYTES = 64, 128
BLOCK = 1024


def add_mixture(
    x: Tensor,
    normed: Tensor,
    scores: Tensor,
    num_chosen: int,
    fc1: Tensor,
    fc2: Tensor,
    shared: Tensor,
    *,
    few_rows: bool,
) -> Tensor:
    """Return x and what a mixture of experts makes of its norm, added.

    Each row goes through the K experts with the greatest scores, of equal ones the first; what they give is weighted by
    a softmax over those K scores.

    Args:
        x: (N, D).
        normed: (N, D).
        scores: (N, E), whose rows may lie apart.
        num_chosen: K.
        fc1: (E, D, 2 * F), a gate and beside it what it gates.
        fc2: (E, F, D).
        shared: (N, D), what all rows get beside.
        few_rows: Whether experts have few rows each. Last bits may depend on this, and not on the number of rows.
    """
    x, normed, shared = x.contiguous(), normed.contiguous(), shared.contiguous()
    (N, E), D, F = scores.shape, x.shape[1], fc2.shape[1]
    lists, counts = (torch.empty(size, dtype=torch.int32, device=x.device) for size in ((E, N), (E,)))
    chosen = scores.new_empty(N, num_chosen)
    experts = {"E": E, "EP": triton.next_power_of_2(E), "K": num_chosen}
    listed = min(MOST_LISTED, max(16, triton.next_power_of_2(N)))
    launch(_list, (E,), scores, lists, counts, chosen, N, scores.stride(0), **experts, ROWS=listed, num_warps=8)
    rows = FEW_ROWS if few_rows else MANY_ROWS
    inner, y = x.new_empty(N * num_chosen, F), x.new_empty(N * num_chosen, D)
    for given, weight, found, is_gated in ((normed, fc1, inner, True), (inner, fc2, y, False)):
        width, most = found.shape[1], N * num_chosen + min(E, N * num_chosen) * (rows - 1)
        launch(
            _multiply, (most // rows, triton.cdiv(width, COLUMNS if is_gated else 2 * COLUMNS)), given, weight, lists,
            counts, found, N, given.shape[1], width, E=E, EP=experts["EP"], SHARE=num_chosen if is_gated else 1,
            ROWS=rows, COLUMNS=COLUMNS, STRETCH=STRETCH_BYTES // x.element_size(), GATED=is_gated,
            WIDE=triton.knobs.runtime.interpret, num_stages=4,
        )  # fmt: skip
    out = torch.empty_like(x)
    launch(
        _add, (N, triton.cdiv(D, BLOCK)), x, shared, y, chosen, out, D, K=num_chosen,
        KP=triton.next_power_of_2(num_chosen), BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out


@triton.jit
def _list(
    SCORES, LISTS, COUNTS, CHOSEN, N, stride, E: tl.constexpr, EP: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """List the pairs of one expert, and put its scores where its rows' best stand; E experts stand as EP."""
    expert = tl.program_id(0)
    r, e = tl.arange(0, ROWS), tl.arange(0, EP)
    count = tl.max(tl.zeros((ROWS,), tl.int32), 0)
    for start in range(0, N, ROWS):
        rows = start + r
        is_row = rows < N
        place = rows.to(tl.int64) * stride
        is_score = is_row[:, None] & (e < E)[None, :]
        scores = _ranked(tl.load(SCORES + place[:, None] + e[None, :], mask=is_score, other=0.0))
        score = tl.load(SCORES + place + expert, mask=is_row, other=0.0)
        own = _ranked(score)[:, None]
        is_before = (scores > own) | ((scores == own) & (e < expert)[None, :])
        rank = tl.sum((is_before & (e < E)[None, :]).to(tl.int32), 1)
        is_chosen = is_row & (rank < K)
        pairs = rows * K + rank
        at = count + tl.cumsum(is_chosen.to(tl.int32), 0) - 1
        tl.store(LISTS + expert.to(tl.int64) * N + at, pairs, mask=is_chosen)
        tl.store(CHOSEN + pairs, score, mask=is_chosen)
        count += tl.sum(is_chosen.to(tl.int32), 0)
    tl.store(COUNTS + expert, count)


@triton.jit
def _ranked(scores):
    """Return scores as float32; what is no number is the greatest, so that a row of such has K experts all the same."""
    scores = scores.to(tl.float32)
    return tl.where(scores != scores, float("inf"), scores)


@triton.jit
def _multiply(
    X, WEIGHT, LISTS, COUNTS, OUT, N, width_in, width,
    E: tl.constexpr, EP: tl.constexpr, SHARE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    STRETCH: tl.constexpr, GATED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Multiply some pairs of one expert by two times COLUMNS columns of its matrix.

    With GATED these are a gate's and what it gates, and SHARE neighbouring pairs share a row; without it neighbours.
    WIDE multiplies in float32: Triton 3.9's interpreter multiplies the bit patterns of bfloat16.
    """
    block, tile = tl.program_id(0), tl.program_id(1)
    e = tl.arange(0, EP)
    counts = tl.load(COUNTS + e, mask=e < E, other=0)
    blocks = (counts + ROWS - 1) // ROWS
    expert = tl.sum((tl.cumsum(blocks, 0) <= block).to(tl.int32), 0)
    if expert >= E:
        return
    first = (block - tl.sum(tl.where(e < expert, blocks, 0), 0)) * ROWS
    r, s, c = tl.arange(0, ROWS), tl.arange(0, STRETCH), tl.arange(0, COLUMNS)
    is_pair = first + r < tl.sum(tl.where(e == expert, counts, 0), 0)
    expert = expert.to(tl.int64)
    pairs = tl.load(LISTS + expert * N + first + r, mask=is_pair, other=0).to(tl.int64)
    left = tile * COLUMNS + c if GATED else tile * 2 * COLUMNS + c
    right = left + (width if GATED else COLUMNS)
    row_width = 2 * width if GATED else width
    is_left, is_right = left < width, right < row_width
    x = X + (pairs // SHARE)[:, None] * width_in + s[None, :]
    weight = WEIGHT + expert * width_in * row_width + s[:, None] * row_width
    lefts = tl.zeros((ROWS, COLUMNS), tl.float32)
    rights = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, width_in, STRETCH):
        is_there = start + s < width_in
        some = tl.load(x + start, mask=is_pair[:, None] & is_there[None, :], other=0.0)
        one = tl.load(weight + left[None, :], mask=is_there[:, None] & is_left[None, :], other=0.0)
        other = tl.load(weight + right[None, :], mask=is_there[:, None] & is_right[None, :], other=0.0)
        if WIDE:
            some, one, other = some.to(tl.float32), one.to(tl.float32), other.to(tl.float32)
        lefts = tl.dot(some, one, lefts, input_precision="ieee")
        rights = tl.dot(some, other, rights, input_precision="ieee")
        weight += STRETCH * row_width
    dtype = OUT.dtype.element_ty
    out = OUT + pairs[:, None] * width
    if GATED:  # rounded as torch rounds it (models/kernels/small_steps.py)
        gate, up = lefts.to(dtype).to(tl.float32), rights.to(dtype).to(tl.float32)
        lefts = (gate / (1 + tl.exp(-gate))).to(dtype).to(tl.float32) * up
    else:
        tl.store(out + right[None, :], rights.to(dtype), mask=is_pair[:, None] & is_right[None, :])
    tl.store(out + left[None, :], lefts.to(dtype), mask=is_pair[:, None] & is_left[None, :])


@triton.jit
def _add(X, SHARED, Y, CHOSEN, OUT, D, K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr):
    """Weight and add one row's K results (as KP), then what it gets beside, each rounded as torch rounds it."""
    row, k = tl.program_id(0).to(tl.int64), tl.arange(0, KP)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_number = d < D
    dtype = OUT.dtype.element_ty
    scores = tl.load(CHOSEN + row * K + k, mask=k < K, other=-float("inf")).to(tl.float32)
    top = tl.max(scores, 0)
    # Where none is a number, infinity less infinity would come in beside.
    top = tl.where(top == -float("inf"), 0.0, top)
    total = tl.sum(tl.exp(scores - top), 0)
    found = tl.zeros((BLOCK,), tl.float32)
    for number in range(K):
        score = tl.load(CHOSEN + row * K + number).to(tl.float32)
        share = (tl.exp(score - top) / total).to(dtype).to(tl.float32)
        y = tl.load(Y + (row * K + number) * D + d, mask=is_number, other=0.0).to(tl.float32)
        found += (y * share).to(dtype).to(tl.float32)
    found = found.to(dtype).to(tl.float32)
    found += tl.load(SHARED + row * D + d, mask=is_number, other=0.0).to(tl.float32)
    found = found.to(dtype).to(tl.float32) + tl.load(X + row * D + d, mask=is_number, other=0.0).to(tl.float32)
    tl.store(OUT + row * D + d, found.to(dtype), mask=is_number)
