"""Aria's mixture of experts: a router, many small routed experts, and shared ones that see every token.

Shapes: B sequences, T tokens, N tokens of all of them, D model width, E experts, K experts per token, F width of one
routed expert.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.aria.config import TextConfig
from models.batch_invariant import Joined, Linear, Product, linear, product
from models.kernels import are_fused
from models.layers import FEW_TOKENS, gated
from models.llama import SwiGLU


class GroupedWeight(nn.Module):
    """One matrix per expert, stored (E, in, out): y = x @ weight[e]."""

    def __init__(self, num_experts: int, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, width_in, width_out))
        self._products: list[Product] = []

    def repack_weights(self) -> None:
        """Lay each expert's matrix out on a CPU; they then stand in place of the parameter."""
        if self.weight.device.type == "cpu":
            self._products = [product(matrix.t(), few_rows=True) for matrix in self.weight.detach()]
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor, stops: list[int]) -> Tensor:
        """Multiply rows that lie sorted by expert; those of expert e end before row `stops[e]`."""
        # torch's grouped_mm is this same loop on a CPU and on GPUs before compute capability 9 (measured equal within
        # 5 %), wants widths in multiples of 16 bytes and cannot be trained through.
        parts = [(expert, x[start:stop]) for expert, (start, stop) in enumerate(pairwise([0, *stops])) if start < stop]
        if self._products:
            return torch.cat([self._products[expert](part) for expert, part in parts])
        return torch.cat([linear(part, self.weight[expert].t()) for expert, part in parts])


class Experts(nn.Module):
    """The routed experts. fc1 holds gate and up side by side, gate first."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        E, D, width = config.moe_num_experts, config.hidden_size, config.intermediate_size
        self.num_experts = E
        self.fc1 = GroupedWeight(E, D, 2 * width)
        self.fc2 = GroupedWeight(E, width, D)

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sum (N, D) of each token's K experts. No expert has a capacity; no token is dropped."""
        N, K = experts.shape
        by_expert, order = experts.flatten().sort(stable=True)  # (N * K,)
        stops = by_expert.bincount(minlength=self.num_experts).cumsum(0).tolist()
        y = self.fc2(gated(self.fc1(x[order // K], stops)), stops)
        back = torch.empty_like(order)
        back[order] = torch.arange(N * K, device=order.device)
        out: Tensor = (y[back].view(N, K, -1) * weights[..., None]).sum(1)
        return out


class MixtureOfExperts(nn.Module):
    """Routed and shared experts together."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.intermediate_size * config.moe_num_shared_experts
        self.router = Linear(config.hidden_size, config.moe_num_experts, bias=False)
        self.experts = Experts(config)
        # The shared experts are fused into one SwiGLU of their widths together.
        self.shared_experts = SwiGLU(config.hidden_size, width)
        self._widths, self._num_chosen = [config.moe_num_experts, 2 * width], config.moe_topk
        self._scores_gate_up = Joined(self.router, self.shared_experts.gate_proj, self.shared_experts.up_proj)

    def repack_weights(self) -> None:
        """Lay out as one what sees the input whatever is chosen: the router and the shared experts."""
        self._scores_gate_up.repack_weights()

    def add_to(self, x: Tensor, normed: Tensor) -> Tensor:
        """Return x (B, T, D) with what the experts make of its norm."""
        tokens = normed.flatten(0, -2)
        scores, gate_up = torch.split(self._scores_gate_up(tokens), self._widths, dim=-1)
        shared = self.shared_experts.down_proj(gated(gate_up))
        if are_fused(x):
            from models.kernels.experts import add_mixture

            weights, few_rows = (self.experts.fc1.weight, self.experts.fc2.weight), x.shape[1] <= FEW_TOKENS
            rows = x.flatten(0, -2)
            return add_mixture(rows, tokens, scores, self._num_chosen, *weights, shared, few_rows=few_rows).view_as(x)
        routed: Tensor = self.experts(tokens, *choose_experts(scores, self._num_chosen))
        return x + (routed + shared).view_as(x)


def choose_experts(scores: Tensor, num_chosen: int) -> tuple[Tensor, Tensor]:
    """Return ids and weights (N, K) of the experts with the greatest scores (N, E).

    The weights are a softmax over the chosen alone.
    """
    best, experts = scores.topk(num_chosen, dim=-1)
    return experts, best.float().softmax(-1).to(scores.dtype)
