"""Choose the next token of each sequence from its scores.

Chance comes from a counter, not from a generator: the noise of a token is a hash of the row's seed, the place in
its answer and the token id. So a row draws alike alone, in any company, in any slot, after any restart.

Shapes: B sequences, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.types import Sampling


@dataclass(frozen=True)
class Choice:
    """Tokens chosen for B sequences, and their log-probabilities before temperature and filters."""

    token_ids: list[int]
    logprobs: list[float]


def choose(logits: Tensor, samplings: Sequence[Sampling], places: Sequence[int]) -> Choice:
    """Choose one token per sequence.

    Args:
        logits: float32 (B, V).
        samplings: B settings.
        places: B counts of tokens already answered.
    """
    chosen = logits.argmax(-1)
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        chosen[rows] = _draw(logits[rows], [samplings[row] for row in drawn], [places[row] for row in drawn])
    picked = logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
    return Choice(chosen.tolist(), picked.tolist())


def filtered(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Return scores (B, V) after temperature, top-k and top-p, in that order; what is dropped is -inf.

    top-k keeps ties with the k-th; top-p drops from the unlikeliest while what is dropped has at most 1 - p
    together, and keeps at least one (both as `transformers` does).

    Args:
        logits: float32 (B, V).
        temperature: float32 (B,), above 0.
        top_k: int (B,), 0 for all.
        top_p: float32 (B,), 1 for all.
    """
    scores = logits / temperature[:, None]
    # Stable: which of equal scores top-p drops must not depend on how many rows are sorted together.
    ascending, order = scores.sort(dim=-1, stable=True)
    V = scores.shape[-1]
    kth = ascending.gather(-1, (V - torch.where(top_k > 0, top_k.clamp(max=V), V))[:, None])
    ascending = ascending.masked_fill(ascending < kth, -torch.inf)
    dropped = (ascending.softmax(-1).cumsum(-1) <= 1 - top_p[:, None]) & (top_p[:, None] < 1)
    dropped[:, -1] = False
    ascending = ascending.masked_fill(dropped, -torch.inf)
    return torch.empty_like(scores).scatter_(-1, order, ascending)


def _draw(logits: Tensor, samplings: Sequence[Sampling], places: Sequence[int]) -> Tensor:
    def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=logits.device)

    scores = filtered(
        logits,
        column([sampling.temperature for sampling in samplings], torch.float32),
        column([sampling.top_k for sampling in samplings], torch.int64),
        column([sampling.top_p for sampling in samplings], torch.float32),
    )
    seeds = column([_signed(sampling.seed) for sampling in samplings], torch.int64)
    noise = gumbel(seeds, column(places, torch.int64), logits.shape[-1])
    # The greatest of scores + Gumbel noise is a draw from softmax(scores).
    return (scores + noise).argmax(-1)


def gumbel(seeds: Tensor, places: Tensor, size: int) -> Tensor:
    """Return Gumbel noise (B, size) that depends on nothing but seed, place and token id (float32)."""
    tokens = torch.arange(size, device=seeds.device)
    bits = _mix(_mix(_mix(seeds)[:, None] + places[:, None]) + tokens)
    # 52 bits and a half are exact in float64. In float32 one token in 2^24 would round to 1, which is infinite
    # noise: over a vocabulary of 100,000, one draw in 170 would be that token, whatever its score.
    uniform = _shift(bits, 12).double().add(0.5) / 2**52  # in (0, 1)
    return (-(-uniform.log()).log()).float()


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014) on int64, whose products wrap as unsigned ones do."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right as if unsigned: torch's own shift repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return ((value + 2**63) % 2**64) - 2**63
