"""Mllama's vision encoder: the tiles of a picture through a local encoder, then through a global one.

It was trained on a fixed number of tiles. Where a picture has fewer, the missing ones are blank, are looked at by
the real ones, and must be there: dropping them changes what the real tiles become. Only tokens that stand for nothing
(of missing tiles, and those that fill every tile up to a multiple of 8) do not look at each other. So the tokens stand
in the order [real, other], and the mask of the reference becomes two attentions without a mask: real tokens look at
all, the others at real ones.

Shapes: N pictures with one number of real tiles, M tiles of a picture, P tokens of a tile (its patches and one for the
whole), S tokens of a picture (fillers included), R of them real, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_invariant import Linear
from models.layers import LayerStack, VisionMLP, split_heads
from models.mllama.config import VisionConfig

# Tokens of a tile come in multiples of this: 1601 become 1608. The fillers are looked at, so they belong to what was
# trained. (A square plus one is never such a multiple, so there are always some.)
TOKEN_MULTIPLE = 8


class TileEmbedding(nn.Module):
    """A trained vector for each tile of each grid, behind a gate."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.max_num_tiles = config.max_num_tiles
        self.embedding = nn.Embedding(len(config.aspect_ratios) + 1, config.max_num_tiles * config.hidden_size)
        self.gate = nn.Parameter(torch.empty(1))

    def forward(self, ratio_ids: Tensor) -> Tensor:
        """Return what is added to each token of a tile (N, M, 1, D)."""
        vectors = self.embedding(ratio_ids).unflatten(-1, (self.max_num_tiles, 1, -1))
        out: Tensor = self.gate.tanh() * vectors
        return out


class PositionalEmbedding(nn.Module):
    """A trained vector for each place of a tile; one gate turns it down and a second one, for the tile, up."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        size = config.num_tokens * config.hidden_size
        self.embedding = nn.Parameter(torch.empty(config.num_tokens, config.hidden_size))
        self.gate = nn.Parameter(torch.empty(1))
        self.tile_embedding = nn.Embedding(len(config.aspect_ratios) + 1, config.max_num_tiles * size)

    def forward(self, x: Tensor, ratio_ids: Tensor) -> Tensor:
        """Add to (N, M, P, D) what belongs to each token's place in its tile, and to its tile's place in the grid."""
        gate = self.gate.tanh()
        x = x + (1 - gate) * self.embedding
        out: Tensor = x + gate * self.tile_embedding(ratio_ids).view_as(x)
        return out


class Attention(nn.Module):
    """Self-attention in which real tokens look at all, and the others at real ones."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (Linear(D, D, bias=False) for _ in range(4))

    def forward(self, x: Tensor, num_real: int) -> Tensor:
        """Return (N, S, D)."""
        q, k, v = (
            split_heads(proj(x), self.num_heads) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )  # (N, H, S, C)
        looking = F.scaled_dot_product_attention(q[:, :, :num_real], k, v)
        if num_real < x.shape[1]:
            others = F.scaled_dot_product_attention(q[:, :, num_real:], k[:, :, :num_real], v[:, :, :num_real])
            looking = torch.cat((looking, others), dim=2)
        return self.o_proj(looking.transpose(1, 2).flatten(2))


class LocalLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.mlp = VisionMLP(config.hidden_size, config.intermediate_size, F.gelu)

    def forward(self, x: Tensor, num_real: int) -> Tensor:
        """Return (N, S, D)."""
        x = x + self.self_attn(self.input_layernorm(x), num_real)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class GlobalLayer(LocalLayer):
    """The same with a gate on each half."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(config)
        self.gate_attn = nn.Parameter(torch.empty(1))
        self.gate_ffn = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, num_real: int) -> Tensor:
        """Return (N, S, D)."""
        x = x + self.gate_attn.tanh() * self.self_attn(self.input_layernorm(x), num_real)
        out: Tensor = x + self.gate_ffn.tanh() * self.mlp(self.post_attention_layernorm(x))
        return out


class VisionModel(nn.Module):
    """Tiles in; the final output and the inputs of some local layers out, side by side."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        D = config.hidden_size
        self.patch_embedding = nn.Conv2d(3, D, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(D))
        self.gated_positional_embedding = PositionalEmbedding(config)
        self.pre_tile_positional_embedding = TileEmbedding(config)
        self.post_tile_positional_embedding = TileEmbedding(config)
        self.layernorm_pre = nn.LayerNorm(D)
        self.layernorm_post = nn.LayerNorm(D)
        self.transformer = LayerStack(LocalLayer(config) for _ in range(config.num_hidden_layers))
        self.global_transformer = LayerStack(GlobalLayer(config) for _ in range(config.num_global_layers))

    def forward(self, pixels: Tensor, ratio_ids: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pixels: (N, real tiles, 3, side, side), normalised.
            ratio_ids: int (N,), which grid each picture has.

        Returns:
            (N, M, P, output_size), the missing tiles after the real ones. Nobody should look at missing ones; they
            come along because tests compare them.
        """
        x = self._embedded(pixels, ratio_ids)  # (N, M, P, D)
        N, M, P, D = x.shape
        num_real = pixels.shape[1] * P
        fillers = -P % TOKEN_MULTIPLE
        x = torch.cat((x.flatten(1, 2), x.new_zeros(N, M * fillers, D)), dim=1)  # (N, S, D)
        inputs: dict[int, Tensor] = {}
        for place, layer in enumerate(self.transformer.layers):
            if place in self.config.intermediate_layers:
                inputs[place] = x[:, : M * P]
            x = layer(x, num_real)
        after = self.post_tile_positional_embedding(ratio_ids)  # (N, M, 1, D)
        after = torch.cat([after.expand(-1, -1, n, -1).flatten(1, 2) for n in (P, fillers)], dim=1)
        x = self.layernorm_post(x) + after
        for layer in self.global_transformer.layers:
            x = layer(x, num_real)
        # A feature's intermediate numbers lie layer by layer within each channel, not channel by channel in each layer.
        between = torch.stack([inputs[place] for place in self.config.intermediate_layers], dim=-1).flatten(-2)
        return torch.cat((x[:, : M * P], between), dim=-1).view(N, M, P, -1)

    def _embedded(self, pixels: Tensor, ratio_ids: Tensor) -> Tensor:
        """Return the tokens (N, M, P, D) of real and missing tiles."""
        N, tiles = pixels.shape[:2]
        M = self.config.max_num_tiles
        patches = self.patch_embedding(pixels.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (N, tiles))
        # A missing tile is zeros after normalising, which the convolution, having no bias, leaves zeros.
        patches = torch.cat((patches, patches.new_zeros(N, M - tiles, *patches.shape[2:])), dim=1)
        patches = patches + self.pre_tile_positional_embedding(ratio_ids)
        whole = self.class_embedding.expand(N, M, 1, -1)
        x = self.gated_positional_embedding(torch.cat((whole, patches), dim=2), ratio_ids)
        out: Tensor = self.layernorm_pre(x)
        return out
