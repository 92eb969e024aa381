"""Choose the next token of each sequence from its scores.

Chance comes from a counter, not from a generator: the noise of a token is a hash of the row's seed, the place in
its answer and the token id. So a row draws alike alone, in any company, in any slot, after any restart.

Shapes: B sequences, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.devices import to_device
from models.kernels import are_fused
from models.types import Sampling

# The likeliest token; one drawn among all; one drawn among those that top-k and top-p leave.
Kind = Literal["likeliest", "drawn", "filtered"]


@dataclass(frozen=True)
class Draws:
    """How B sequences of one kind choose; what they need of their settings, on the device.

    Attributes:
        kind: How.
        seeds: int64 (B, 1).
        temperatures: float32 (B, 1).
        top_k: int64 (B, 1), 0 for all.
        top_p: float32 (B, 1), 1 for all.
        most_k: The greatest of top_k, known to the host; 0 if any keeps all.
        is_cut: Whether any keeps less than all by top_p.
    """

    kind: Kind
    seeds: Tensor
    temperatures: Tensor
    top_k: Tensor
    top_p: Tensor
    most_k: int
    is_cut: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What lies on the device."""
        return self.seeds, self.temperatures, self.top_k, self.top_p

    def repeated(self, times: int) -> "Draws":
        """Return each sequence's settings so many times, one after the other."""
        seeds, temperatures, top_k, top_p = (tensor.repeat_interleave(times, 0) for tensor in self.tensors)
        return Draws(self.kind, seeds, temperatures, top_k, top_p, self.most_k, self.is_cut)

    @property
    def signature(self) -> tuple[object, ...]:
        """What the operations that choose depend on."""
        return self.kind, self.most_k, self.is_cut

    @classmethod
    def of(cls, samplings: Sequence[Sampling], device: torch.device) -> "Draws":
        """Gather settings of one kind; the device is not waited for."""
        ks, ps = [sampling.top_k for sampling in samplings], [sampling.top_p for sampling in samplings]
        whole = [[_signed(sampling.seed) for sampling in samplings], ks]
        seeds, top_k = to_device(torch.tensor(whole), device)[..., None]
        real = [[sampling.temperature for sampling in samplings], ps]
        temperatures, top_p = to_device(torch.tensor(real, dtype=torch.float32), device)[..., None]
        most_k = max(ks) if all(ks) else 0
        return cls(kind_of(samplings[0]), seeds, temperatures, top_k, top_p, most_k, any(p < 1 for p in ps))


def kind_of(sampling: Sampling) -> Kind:
    """Return how a sequence with these settings chooses."""
    if sampling.temperature <= 0:
        return "likeliest"
    return "filtered" if sampling.top_k > 0 or sampling.top_p < 1 else "drawn"


def choose(logits: Tensor, draws: Draws, places: Tensor) -> tuple[Tensor, Tensor]:
    """Choose one token per sequence.

    Args:
        logits: float32 (B, V).
        draws: How.
        places: int64 (B,), counts of tokens already answered.

    Returns:
        Ids, int64 (B,), and their log-probabilities before temperature and filters, float32 (B,).
    """
    if are_fused(logits) and not draws.is_cut:
        from models.kernels import draw

        return draw.draw_tokens(logits, draws.temperatures[:, 0], draws.top_k[:, 0], draws.seeds[:, 0], places)
    return choose_in_torch(logits, draws, places)


def choose_in_torch(logits: Tensor, draws: Draws, places: Tensor) -> tuple[Tensor, Tensor]:
    """Do as `choose` in torch's operations."""
    if draws.kind == "likeliest":
        chosen = logits.argmax(-1)
    else:
        scores = logits / draws.temperatures
        if draws.kind == "drawn":
            chosen = _draw(scores, draws, places)
        else:
            which = kept(scores, draws)
            draw = _draw_masked if logits.is_cuda else _draw_among_kept
            chosen = draw(scores, which, draws, places)
    return chosen, logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)


def kept(scores: Tensor, draws: Draws) -> Tensor:
    """Return which tokens top-k and then top-p leave, bool (B, V).

    top-k keeps ties with the k-th; top-p drops from the unlikeliest while what is dropped has at most 1 - p
    together, and keeps at least one (both as `transformers` does).

    Args:
        scores: float32 (B, V), after temperature.
        draws: Each sequence's settings.
    """
    # Not "at least the k-th": scores that are no numbers stay, as their row's log-probability is to tell of them.
    dropped = scores < _kth(scores, draws)
    if draws.is_cut:
        dropped |= _unlikely(scores.masked_fill(dropped, -torch.inf), draws.top_p) & (draws.top_p < 1)
    return ~dropped


def _kth(scores: Tensor, draws: Draws) -> Tensor:
    """Return the k-th greatest of each row's scores (B, 1), the least where k is 0."""
    V = scores.shape[-1]
    if scores.is_cuda:
        most = min(draws.most_k or V, V)
        ks = torch.where(draws.top_k > 0, draws.top_k, V).clamp(max=most)
        return scores.topk(most).values.gather(-1, ks - 1)
    # numpy's partition takes an eighth of the time of torch's topk, which says where each one was too.
    below = [V - (min(k, V) or V) for k in draws.top_k[:, 0].tolist()]
    kth = [np.partition(row, k)[k] for row, k in zip(scores.numpy(), below, strict=True)]
    return torch.tensor(np.array(kth))[:, None]


def _unlikely(scores: Tensor, top_p: Tensor) -> Tensor:
    """Return which scores (B, V) lie outside the fewest that hold so much probability (B, 1)."""
    # Stable: which of equal scores is dropped must not depend on how many rows are sorted together.
    ascending, order = scores.sort(dim=-1, stable=True)
    dropped = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    dropped[:, -1] = False
    return torch.empty_like(dropped).scatter_(-1, order, dropped)


def _draw(scores: Tensor, draws: Draws, places: Tensor) -> Tensor:
    tokens = torch.arange(scores.shape[-1], device=scores.device)
    # The greatest of scores + Gumbel noise is a draw from softmax(scores).
    return (scores + gumbel(draws.seeds, places[:, None], tokens)).argmax(-1)


def _draw_masked(scores: Tensor, which: Tensor, draws: Draws, places: Tensor) -> Tensor:
    """Draw among what is kept in shapes that do not depend on it: the host need not know them, as a GPU would tell."""
    return _draw(scores.masked_fill(~which, -torch.inf), draws, places)


def _draw_among_kept(scores: Tensor, which: Tensor, draws: Draws, places: Tensor) -> Tensor:
    """Draw as `_draw_masked`, without making noise for what is dropped: of Emu3's 32,768 codes 2,048 are kept."""
    rows, tokens = which.nonzero(as_tuple=True)
    noisy = scores[rows, tokens] + gumbel(draws.seeds[rows, 0], places[rows], tokens)
    sizes = rows.bincount(minlength=len(scores))
    firsts = sizes.cumsum(0) - sizes
    # Side by side in the order of their ids, as `_draw` has them: of equal ones the first is the greatest.
    table = noisy.new_full((len(sizes), int(sizes.max())), -torch.inf)
    table[rows, torch.arange(len(rows), device=rows.device) - firsts[rows]] = noisy
    return tokens[firsts + table.argmax(-1)]


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
