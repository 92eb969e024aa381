"""Aria's mixture of experts: a router, many small routed experts, and shared ones that see every token.

Shapes: N tokens, D model width, E experts, K experts per token, F width of one routed expert.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.aria.config import TextConfig
from models.batch_invariant import Product, linear, product
from models.layers import gated
from models.llama import SwiGLU

# Rows that a GPU without a kernel for sorted ones multiplies by every expert's matrix. A step reads all of them anyhow,
# and reading them takes about as long as multiplying so many rows: 2 FLOP a row for each number of 2 bytes, where an
# A100 does 150 FLOP for each byte it reads and an H100 300. With more rows the host waits for where each expert's end.
DENSE_ROWS = 256


class Router(nn.Module):
    """Scores every expert for a token."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.moe_num_experts, config.hidden_size))
        self.topk = config.moe_topk
        self._product: Product | None = None

    def repack_weights(self) -> None:
        """Lay the weight out for answering."""
        self._product = product(self.weight.detach(), few_rows=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and weights (N, K) of the chosen experts; the weights are a softmax over the chosen alone."""
        every = linear(x, self.weight) if self._product is None else self._product(x)
        scores, experts = every.topk(self.topk, dim=-1)
        return experts, scores.float().softmax(-1).to(x.dtype)


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

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        """Multiply rows that lie sorted by expert; those of expert e end before row `ends[e]` (int32)."""
        if has_grouped_kernel(x):
            return F.grouped_mm(x, self.weight, offs=ends)
        # On a CPU grouped_mm is this same loop inside (measured equal within 5 %), wants widths in
        # multiples of 16 bytes and cannot be trained through.
        stops = ends.tolist()
        parts = [(expert, x[start:stop]) for expert, (start, stop) in enumerate(pairwise([0, *stops])) if start < stop]
        if self._products:
            return torch.cat([self._products[expert](part) for expert, part in parts])
        return torch.cat([linear(part, self.weight[expert].t()) for expert, part in parts])

    def every(self, x: Tensor) -> Tensor:
        """Multiply rows (N, in), or (E, N, in) of each expert, by every expert's matrix; return (E, N, out)."""
        return x @ self.weight


def has_grouped_kernel(x: Tensor) -> bool:
    """Say whether a GPU multiplies sorted rows by their experts' matrices in one launch.

    torch does for bfloat16 from compute capability 9 on. Elsewhere its grouped_mm makes the host wait for where each
    expert's rows end and launches a product for each (aten/src/ATen/native/cuda/GroupedBlas.cpp).
    """
    return x.is_cuda and x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (9, 0)


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
        if x.is_cuda and N <= DENSE_ROWS and not has_grouped_kernel(x):
            y = self.fc2.every(gated(self.fc1.every(x)))  # (E, N, D)
            return (y[experts, torch.arange(N, device=x.device)[:, None]] * weights[..., None]).sum(1)
        by_expert, order = experts.flatten().sort(stable=True)  # (N * K,)
        # Not bincount: on a GPU it makes the host wait for its result, once a layer.
        every = torch.arange(self.num_experts, device=x.device)
        ends = torch.searchsorted(by_expert, every, right=True, out_int32=True)
        y = self.fc2(gated(self.fc1(x[order // K], ends)), ends)
        back = torch.empty_like(order)
        back[order] = torch.arange(N * K, device=order.device)
        out: Tensor = (y[back].view(N, K, -1) * weights[..., None]).sum(1)
        return out


class MixtureOfExperts(nn.Module):
    """Routed and shared experts together."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)
        # The shared experts are fused into one SwiGLU of their widths together.
        self.shared_experts = SwiGLU(config.hidden_size, config.intermediate_size * config.moe_num_shared_experts)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, D)."""
        tokens = x.flatten(0, -2)
        out: Tensor = self.experts(tokens, *self.router(tokens)) + self.shared_experts(tokens)
        return out.view_as(x)
