"""The few layers that families share: RMS norm, rotary positions, attention.

Shapes: B sequences, T tokens, S tokens attended to, A axes of positions, D model width, H query heads, K key heads,
C head width.
"""

import math
from collections.abc import Callable, Iterable
from copy import copy

import torch
from torch import Tensor, nn
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn import functional as F

from models.batch_invariant import FEW_ROWS, Linear
from models.kernels import are_fused

# Tokens of one decode step: the newest, what a grammar put behind it, and guesses.
FEW_TOKENS = 8


def silu(x: Tensor) -> Tensor:
    """Return x * sigmoid(x); on a CPU a number's result has the same bits wherever it stands.

    torch's own rounds the last few numbers of each piece of work differently, and a piece is what a core gets of the
    whole batch: so a row's bits would depend on its company (measured with torch 2.13; exp and tanh do not).
    """
    if _is_free(x):
        return F.silu(x)
    divisor = (-x).exp_().add_(1)
    return torch.div(x, divisor, out=divisor)


def gated(x: Tensor) -> Tensor:
    """Return silu(gate) * up for both side by side (…, 2 * F), as (…, F)."""
    gate, up = x.chunk(2, dim=-1)
    if are_fused(x):
        from models.kernels import small_steps

        return small_steps.silu_product(gate, up)
    return silu(gate) * up if _is_free(x) else silu(gate).mul_(up)


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU in its tanh form; on a CPU a number's result has the same bits wherever it stands, see silu."""
    if _is_free(x):
        return F.gelu(x, approximate="tanh")
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + inner.tanh())


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Map (B, T, H * C) to (B, H, T, C)."""
    return x.view(*x.shape[:-1], num_heads, -1).transpose(1, 2)


class VisionMLP(nn.Module):
    """Two linear layers and an activation between, as vision encoders have them."""

    def __init__(self, width: int, inner: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, width)
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, D)."""
        return self.fc2(self._activation(self.fc1(x)))


class LayerStack(nn.Module):
    """A stack of layers; it exists to give them their name in the checkpoint."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


def _is_free(x: Tensor) -> bool:
    """Whether bits may depend on company: on a GPU, in half precision, in training."""
    return x.is_cuda or x.requires_grad or x.dtype != torch.float32


class RMSNorm(nn.Module):
    """Root mean square norm, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Norm the last dimension."""
        if are_fused(x):
            from models.kernels import small_steps

            return small_steps.rms_norm(x, self.weight, self.eps)
        return rms_norm(x, self.weight, self.eps)

    def after(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x + y, and its norm."""
        if are_fused(x):
            from models.kernels import small_steps

            return small_steps.add_rms_norm(x, y, self.weight, self.eps)
        total = x + y
        return total, rms_norm(total, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Norm the last dimension of x (…, D), by a weight (D,), in torch's operations."""
    if torch.is_grad_enabled():
        y = x.float()
        y = y * y.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    else:
        # The squares and their sum in one call: beside weights that stream through a CPU's caches, a step of decoding
        # pays for each call more than for what it computes.
        root = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        y = x * root.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
        if y.dtype == x.dtype:
            return torch.mul(y, weight, out=y)
    # Cast back before the weight, not after: the released models do, and in bfloat16
    # the other order changes a quarter of the elements.
    return y.to(x.dtype) * weight


def rotary_frequencies(head_dim: int, theta: float) -> Tensor:
    """Return theta^(-2i / C) for each pair i of a head's C numbers, float32 (C/2,), on the CPU."""
    with torch.device("cpu"):
        # As the reference writes it: theta**-exponents rounds differently, and position 65,000 shows it.
        return 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)


class Rotation:
    """cos and sin of every token's position, made once a forward and used by every layer."""

    def __init__(self, positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> None:
        """Compute the angles in float32.

        Args:
            positions: int (B, T, A) on A axes, or (B, T, 1) for tokens that stand at one number on all of them.
            frequencies: float32 (A, C/2), how far a step on each axis turns each pair; (C/2,) for one axis, see
                rotary_frequencies.
            dtype: Of the activations that will be rotated.
        """
        steps = positions[:, None, ..., None].float() * frequencies.to(positions.device)  # (B, 1, T, A, C/2)
        angles = steps.sum(-2)
        self._cos = angles.cos().repeat(1, 1, 1, 2).to(dtype)
        self._sin = torch.cat((-angles.sin(), angles.sin()), dim=-1).to(dtype)

    def to(self, device: torch.device) -> "Rotation":
        """Return the same for layers on another device."""
        if self._cos.device == device:
            return self
        moved = copy(self)
        moved._cos, moved._sin = self._cos.to(device), self._sin.to(device)
        return moved

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate the pairs (i, i + C/2), which is how the checkpoints are permuted.

        Args:
            x: (B, H, T, C).
        """
        return x * self._cos + x.roll(x.shape[-1] // 2, -1) * self._sin

    def into_cache(self, new: Tensor, num_keys: int, keys: Tensor, values: Tensor, rows: Tensor) -> Tensor:
        """Rotate and write in one launch on a GPU; see models/kernels/small_steps.py: rotate_and_write."""
        from models.kernels import small_steps

        return small_steps.rotate_and_write(new, num_keys, self._cos, self._sin, keys, values, rows)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention with grouped key heads.

    Args:
        query: (B, H, T, C).
        key: (B, K, S, C); H is a multiple of K.
        value: (B, K, S, C).
        mask: True where a key is seen, or what is added to its score, broadcastable to (B, 1, T, S); None means causal:
            the last query sees all keys, the one before it all but one.

    Returns:
        (B, T, H * C).
    """
    B, H, T, C = query.shape
    K = key.shape[1]
    if 1 < T <= FEW_TOKENS and mask is not None and not _is_free(query):
        # One by one, as alone: how a library rounds a token's scores may depend on how many tokens there are.
        return torch.cat([attend(query[:, :, t : t + 1], key, value, mask[:, :, t : t + 1]) for t in range(T)], dim=1)
    if mask is None:
        out = _attend_causally(query, key, value)
    elif T <= FEW_TOKENS or (query.is_cuda and H != K):
        # Few tokens per sequence: the heads of a group stand as queries of one head, so no key is repeated. On a GPU
        # any number: with a mask torch's fast kernels refuse grouped heads, and the slow one keeps all scores.
        grouped = query.reshape(B, K, H // K * T, C)
        seen = mask if T == 1 else mask.repeat(1, 1, H // K, 1)
        out = F.scaled_dot_product_attention(grouped, key, value, attn_mask=seen).view(B, H, T, C)
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=H != K)
    return out.transpose(1, 2).reshape(B, T, H * C)


def _attend_causally(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Let T queries (B, H, T, C) see S keys (B, K, S, C) up to their own, which are the last T of them."""
    (_, H, T, _), (_, K, S, _) = query.shape, key.shape
    if query.is_cuda and query.dtype == torch.float32 and H != K:
        # The kernel that takes grouped heads takes half precision alone.
        key, value = (one.repeat_interleave(H // K, dim=1) for one in (key, value))
        K = H
    if T == S:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=H != K)
    if query.is_cuda and can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, False, H != K)):
        # What torch calls for its `causal_lower_right`, which as an object takes two numbers of the host's memory for
        # each that a mask would have.
        seen: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, is_causal=True)[0]
        return seen
    places = torch.arange(S, device=query.device)
    out = attend(query, key, value, (places <= places[S - T :, None])[None, None])
    return out.view(len(out), T, H, -1).transpose(1, 2)


def attend_all(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Let every query see all keys; the keys are shared by all sequences.

    The keys are read once for all sequences on a GPU, and for few tokens on a CPU, but not where a row's rounding would
    then depend on its company: this is tried (`_keeps_rows`).

    Args:
        query: (B, H, T, C).
        key: (K, S, C), best as `turned` on a CPU; H is a multiple of K.
        value: (K, S, C).

    Returns:
        (B, T, H * C).
    """
    B, H, T, C = query.shape
    K = key.shape[0]
    if not query.is_cuda and T <= FEW_TOKENS and (_is_free(query) or _keeps_rows(key, value, H // K)):
        return _attend_once(query, key, value)
    # The heads of a group stand as further queries of one head, so no key is repeated.
    grouped = query.reshape(B, K, H // K * T, C)
    if query.is_cuda:
        folded = grouped.transpose(0, 1).reshape(1, K, -1, C)
        out = F.scaled_dot_product_attention(folded, key[None], value[None]).view(K, B, -1, C).transpose(0, 1)
    else:
        whole = key.contiguous()  # whose numbers lie side by side, or a slower way would be taken
        out = F.scaled_dot_product_attention(grouped, whole.expand(B, -1, -1, -1), value.expand(B, -1, -1, -1))
    return out.reshape(B, H, T, C).transpose(1, 2).reshape(B, T, H * C)


def turned(key: Tensor) -> Tensor:
    """Return keys (K, S, C) as few queries read them best: on a CPU they lie in memory as (K, C, S)."""
    return key.contiguous() if key.is_cuda else key.transpose(-1, -2).contiguous().transpose(-1, -2)


def _attend_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend as `attend_all` does, all sequences and tokens as rows of one product for each key head."""
    B, H, T, C = query.shape
    K, G = key.shape[0], H // key.shape[0]
    rows = query.reshape(B, K, G, T, C).permute(1, 0, 3, 2, 4).reshape(K, B * T * G, C) * C**-0.5
    found = torch.bmm(torch.bmm(rows, key.transpose(1, 2)).softmax(-1), value)
    return found.view(K, B, T, G, C).permute(1, 2, 0, 3, 4).reshape(B, T, H * C)


# By the shape and strides of keys, heads in a group, threads: what a process has tried once.
_kept: dict[tuple[torch.Size, tuple[int, ...], int, int], bool] = {}


def _keeps_rows(key: Tensor, value: Tensor, num_grouped: int) -> bool:
    """Try whether sequences find the same bits in any number, as for products (models/batch_invariant.py)."""
    name = (key.shape, key.stride(), num_grouped, torch.get_num_threads())
    if name not in _kept:
        K, _, C = key.shape
        query = torch.randn(max(FEW_ROWS), K * num_grouped, 1, C, generator=torch.Generator().manual_seed(0))
        together = _attend_once(query, key, value)
        parts = [part for rows in FEW_ROWS for part in (slice(rows), slice(-rows, None))]
        _kept[name] = all(torch.equal(_attend_once(query[part], key, value), together[part]) for part in parts)
    return _kept[name]
