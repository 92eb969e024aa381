"""Aria's vision encoder: a tower over any grid of patches, and the projector that turns it into a few text-width rows.

A tile carries only the valid patches of its canvas (models/aria/processor.py). In the reference the canvas's other
patches are masked as keys everywhere and their own rows are thrown away, so leaving them out is exact.

Shapes: N tiles of one size, P = rows * columns patches, D vision width, Q queries, W text width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.aria.config import VisionConfig
from models.batch_invariant import Linear, Product, linear, product
from models.layers import LayerStack, VisionMLP, gelu_tanh, split_heads


def position_buckets(side: int) -> list[Tensor]:
    """Return, for each number n of patches from 0 to `side`, the trained positions (n,) they stand at.

    This is the expression that the model was trained with, to the last bit of its float32 rounding: it is not
    floor(i * side / n), from which 5 of the 70 sizes differ.
    """
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    # The step comes from a tensor's count of patches and so is a float32; Python's 1 / n would give floor after all.
    steps = [1 / torch.tensor(max(n, 1)) for n in range(side + 1)]
    return [
        torch.bucketize(torch.arange(0, 1 - 1e-6, step.item()), boundaries, right=True)[:n]
        for n, step in enumerate(steps)
    ]


class Embeddings(nn.Module):
    """Patches to vectors, with a trained position for each place of the full grid."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)
        with torch.device("cpu"):  # the module itself may be built on `meta`
            self._buckets = position_buckets(self.side)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed (N, 3, height, width), both sides multiples of the patch; return (N, P, D)."""
        x = self.patch_embedding(pixels)  # (N, D, rows, columns)
        rows, columns = (self._buckets[n] for n in x.shape[-2:])
        ids = (rows[:, None] * self.side + columns).flatten().to(x.device)
        out: Tensor = x.flatten(2).transpose(1, 2) + self.position_embedding(ids)
        return out


def _attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Let each query (N, Q, D) look at every key (N, P, D), head by head; return (N, Q, D)."""
    q, k, v = (split_heads(x, num_heads) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Full self-attention over a tile's patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (Linear(D, D) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, P, D)."""
        return self.out_proj(_attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.num_heads))


class EncoderLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = VisionMLP(config.hidden_size, config.intermediate_size, gelu_tanh)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, P, D)."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class VisionTower(nn.Module):
    """Patches in, the residual stream of the feature layer out.

    The checkpoint's post_layernorm is not here: it was never trained (the released file holds zeros).
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = LayerStack(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        # Layer -1 is the output of the last one, 0 the embeddings, as in a list of all hidden states.
        self.num_used = config.feature_layer % (config.num_hidden_layers + 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (N, 3, height, width) to (N, P, D)."""
        x: Tensor = self.embeddings(pixels)
        for layer in self.encoder.layers[: self.num_used]:
            x = layer(x)
        return x


class MultiheadAttention(nn.Module):
    """Attention with its three projections in one matrix, as torch's module of that name stores them."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = Linear(width, width)
        self._products: list[Product] = []

    def repack_weights(self) -> None:
        """Lay each of the three matrices out; they then stand in place of the parameter."""
        pairs = zip(self.in_proj_weight.detach().chunk(3), self.in_proj_bias.detach().chunk(3), strict=True)
        self._products = [product(weight, bias) for weight, bias in pairs]
        self.in_proj_weight = nn.Parameter(self.in_proj_weight.new_empty(0), requires_grad=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return (N, Q, D) for a query (N, Q, D), key and value (N, P, D)."""
        rows = (query, key, value)
        if self._products:
            q, k, v = (multiply(x) for multiply, x in zip(self._products, rows, strict=True))
        else:
            weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
            q, k, v = (linear(x, weight, bias) for x, weight, bias in zip(rows, weights, biases, strict=True))
        return self.out_proj(_attend(q, k, v, self.num_heads))


class CrossAttention(nn.Module):
    """Trained queries look at the patches, through two stacked projections each (the outer ones without bias)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (Linear(width, width, bias=False) for _ in range(3))
        self.multihead_attn = MultiheadAttention(width, num_heads)
        self.linear = Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)
        self.layer_norm_kv = nn.LayerNorm(width)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """Return (N, Q, D) for queries (N, Q, D) and features (N, P, D)."""
        features = self.layer_norm_kv(features)
        q = self.q_proj(self.layer_norm(queries))
        return self.linear(self.multihead_attn(q, self.k_proj(features), self.v_proj(features)))


class FeedForward(nn.Module):
    """Vision width to text width."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.linear_in = Linear(width, text_width, bias=False)
        self.linear_out = Linear(text_width, text_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, Q, W)."""
        return self.linear_out(gelu_tanh(self.linear_in(x)))


class Projector(nn.Module):
    """Patches to Q rows of text width; Q depends on the canvas, valid or not."""

    def __init__(self, config: VisionConfig, num_queries: int, text_width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(num_queries, config.hidden_size))
        self.cross_attn = CrossAttention(config.hidden_size, config.num_attention_heads)
        self.layer_norm = nn.LayerNorm(config.hidden_size)
        self.feed_forward = FeedForward(config.hidden_size, text_width)

    def forward(self, features: Tensor, num_queries: int) -> Tensor:
        """Project (N, P, D) to (N, num_queries, W)."""
        queries = self.query[:num_queries].expand(len(features), -1, -1)
        out: Tensor = self.feed_forward(self.layer_norm(self.cross_attn(queries, features)))
        return out
