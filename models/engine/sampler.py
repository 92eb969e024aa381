"""Choose the next token of each sequence from its scores.

Chance comes from a counter, not from a generator: the noise of a token is a hash of the row's seed, the place in
its answer and the token id. So a row draws alike alone, in any company, in any slot, after any restart.

Shapes: B sequences, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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
    chosen = torch.empty(len(samplings), dtype=torch.int64, device=logits.device)
    rows_of = defaultdict(list)
    for row, sampling in enumerate(samplings):
        rows_of[_sampler_for(sampling, logits.shape[-1])].append(row)
    for sampler, rows in rows_of.items():
        some = logits if len(rows) == len(samplings) else logits[rows]
        chosen[rows] = sampler(some, [samplings[row] for row in rows], [places[row] for row in rows])
    picked = logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
    return Choice(chosen.tolist(), picked.tolist())


def kept(scores: Tensor, top_k: Sequence[int], top_p: Sequence[float]) -> Tensor:
    """Return which tokens top-k and then top-p leave, bool (B, V).

    top-k keeps ties with the k-th; top-p drops from the unlikeliest while what is dropped has at most 1 - p
    together, and keeps at least one (both as `transformers` does).

    Args:
        scores: float32 (B, V), after temperature.
        top_k: B numbers, 0 for all.
        top_p: B numbers, 1 for all.
    """
    # Not "at least the k-th": scores that are no numbers stay, as their row's log-probability is to tell of them.
    dropped = scores < _kth(scores, top_k)
    rows = [row for row, p in enumerate(top_p) if p < 1]
    if rows:
        some = scores[rows].masked_fill(dropped[rows], -torch.inf)
        dropped[rows] |= _unlikely(some, _column([top_p[row] for row in rows], scores))
    return ~dropped


def _kth(scores: Tensor, ks: Sequence[int]) -> Tensor:
    """Return the k-th greatest of each row's scores (B, 1), the least where k is 0."""
    V = scores.shape[-1]
    ks = [min(k, V) or V for k in ks]
    if scores.is_cuda:
        return scores.topk(max(ks)).values.gather(-1, torch.tensor([[k - 1] for k in ks], device=scores.device))
    # numpy's partition takes an eighth of the time of torch's topk, which says where each one was too.
    kth = [np.partition(row, V - k)[V - k] for row, k in zip(scores.numpy(), ks, strict=True)]
    return torch.tensor(np.array(kth))[:, None]


def _unlikely(scores: Tensor, top_p: Tensor) -> Tensor:
    """Return which scores (B, V) lie outside the fewest that hold so much probability (B, 1)."""
    # Stable: which of equal scores is dropped must not depend on how many rows are sorted together.
    ascending, order = scores.sort(dim=-1, stable=True)
    dropped = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    dropped[:, -1] = False
    return torch.empty_like(dropped).scatter_(-1, order, dropped)


def _likeliest(logits: Tensor, samplings: Sequence[Sampling], places: Sequence[int]) -> Tensor:
    return logits.argmax(-1)


def _draw(logits: Tensor, samplings: Sequence[Sampling], places: Sequence[int]) -> Tensor:
    seeds, counts = _seeds(samplings, places, logits.device)
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    # The greatest of scores + Gumbel noise is a draw from softmax(scores).
    return (_softened(logits, samplings) + gumbel(seeds[:, None], counts[:, None], tokens)).argmax(-1)


def _draw_among_kept(logits: Tensor, samplings: Sequence[Sampling], places: Sequence[int]) -> Tensor:
    """Draw as `_draw`, without making noise for what is dropped: of Emu3's 32,768 codes 2,048 are drawn among."""
    scores, (seeds, counts) = _softened(logits, samplings), _seeds(samplings, places, logits.device)
    which = kept(scores, [sampling.top_k for sampling in samplings], [sampling.top_p for sampling in samplings])
    rows, tokens = which.nonzero(as_tuple=True)
    noisy = scores[rows, tokens] + gumbel(seeds[rows], counts[rows], tokens)
    sizes = rows.bincount(minlength=len(scores))
    firsts = sizes.cumsum(0) - sizes
    # Side by side in the order of their ids, as `_draw` has them: of equal ones the first is the greatest.
    table = noisy.new_full((len(sizes), int(sizes.max())), -torch.inf)
    table[rows, torch.arange(len(rows), device=rows.device) - firsts[rows]] = noisy
    return tokens[firsts + table.argmax(-1)]


def _sampler_for(sampling: Sampling, size: int) -> Callable[[Tensor, Sequence[Sampling], Sequence[int]], Tensor]:
    """Return the function that chooses a token among `size` under these settings."""
    if sampling.temperature <= 0:
        return _likeliest
    return _draw_among_kept if 0 < sampling.top_k < size or sampling.top_p < 1 else _draw


def _softened(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    return logits / _column([sampling.temperature for sampling in samplings], logits)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _seeds(samplings: Sequence[Sampling], places: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what the noise of each row comes from: its seed and its place, int64 (B,)."""
    seeds = torch.tensor([_signed(sampling.seed) for sampling in samplings], device=device)
    return seeds, torch.tensor(places, device=device)


def gumbel(seeds: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """Return Gumbel noise (float32) that depends on nothing but seed, place and token id, each broadcast."""
    bits = _mix(_mix(_mix(seeds) + places) + tokens)
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
