"""The next token of each row in one launch: temperature, top-k, noise, the greatest, and its log-probability.

Scores are read again and again by the program of their row, and lie in the GPU's cache meanwhile. The noise is that of
models/sampler.py: gumbel, but for last bits of the device's logarithm.

Shapes: B rows, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels.launch import launch

BLOCK = 4096


def draw_tokens(
    logits: Tensor, temperatures: Tensor, top_k: Tensor, seeds: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose one token for each row.

    Args:
        logits: float32 (B, V).
        temperatures: float32 (B,); 0 or less takes the likeliest.
        top_k: int64 (B,), 0 for all.
        seeds: int64 (B,).
        places: int64 (B,), tokens already answered.

    Returns:
        Ids, int64 (B,), and their log-probabilities before temperature and top-k, float32 (B,).
    """
    logits = logits.contiguous()
    B, V = logits.shape
    ids, logprobs = logits.new_empty(B, dtype=torch.int64), logits.new_empty(B)
    columns = (column.contiguous() for column in (temperatures, top_k, seeds, places))
    launch(_draw, (B,), logits, *columns, ids, logprobs, V, BLOCK=BLOCK, num_warps=8, enable_fp_fusion=False)
    return ids, logprobs


@triton.jit
def _draw(LOGITS, TEMPERATURES, TOP_K, SEEDS, PLACES, IDS, LOGPROBS, V, BLOCK: tl.constexpr):
    """Do one row."""
    b = tl.program_id(0).to(tl.int64)
    row, v = LOGITS + b * V, tl.arange(0, BLOCK)
    top = tl.max(tl.full((BLOCK,), -float("inf"), tl.float32), 0)
    total, best, chosen = tl.exp(top), top, tl.max(tl.zeros((BLOCK,), tl.int32), 0)
    for start in range(0, V, BLOCK):
        scores = tl.load(row + start + v, mask=start + v < V, other=-float("inf"))
        highest = tl.max(scores, 0)
        higher = tl.maximum(top, highest)
        base = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(top - base) + tl.sum(tl.exp(scores - base), 0)
        top = higher
        if highest > best:  # of equal ones the first
            chosen = start + tl.argmax(scores, 0)
            best = highest
    temperature = tl.load(TEMPERATURES + b)
    if temperature > 0:
        least = _kth(row, temperature, tl.load(TOP_K + b), V, BLOCK)
        seed = _mix(_mix(tl.load(SEEDS + b).to(tl.uint64)) + tl.load(PLACES + b).to(tl.uint64))
        best = tl.max(tl.full((BLOCK,), -float("inf"), tl.float32), 0)
        for start in range(0, V, BLOCK):
            is_token = start + v < V
            scores = _softened(row + start + v, is_token, temperature)
            noisy = tl.where(is_token & (_ordered(scores) >= least), scores + _gumbel(seed, start + v), -float("inf"))
            highest = tl.max(noisy, 0)
            if highest > best:
                chosen = start + tl.argmax(noisy, 0)
                best = highest
    tl.store(IDS + b, chosen.to(tl.int64))
    tl.store(LOGPROBS + b, tl.load(row + chosen) - (top + tl.log(total)))


@triton.jit
def _softened(POINTER, mask, temperature):
    # Minus zero becomes zero: in `_ordered` it is less.
    return tl.div_rn(tl.load(POINTER, mask=mask, other=-float("inf")), temperature) + 0.0


@triton.jit
def _kth(row, temperature, k, V, BLOCK: tl.constexpr):
    """Return the k-th greatest of a row's softened scores, as `_ordered`, bit by bit from above; 0 where k is 0."""
    v = tl.arange(0, BLOCK)
    found = tl.max(tl.zeros((BLOCK,), tl.uint32), 0)
    if k > 0:
        bit = found | 0x80000000
        for _ in range(0, 32):
            tried = found | bit
            count = tl.sum(tl.zeros((BLOCK,), tl.int32), 0)
            for start in range(0, V, BLOCK):
                is_token = start + v < V
                numbers = _ordered(_softened(row + start + v, is_token, temperature))
                count += tl.sum((is_token & (numbers >= tried)).to(tl.int32), 0)
            if count >= k:
                found = tried
            bit = bit >> 1
    return found


@triton.jit
def _ordered(x):
    """Map float32 to uint32 in the same order."""
    bits = x.to(tl.uint32, bitcast=True)
    return tl.where(bits >> 31 == 1, ~bits, bits | 0x80000000)


@triton.jit
def _gumbel(seed, tokens):
    bits = _mix(seed + tokens.to(tl.uint64))
    uniform = ((bits >> 12).to(tl.float64) + 0.5) / 4503599627370496.0  # 2^52
    return (-tl.log(-tl.log(uniform))).to(tl.float32)


@triton.jit
def _mix(x):
    """SplitMix64's finaliser, as models/sampler.py has it."""
    x = x + 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)
