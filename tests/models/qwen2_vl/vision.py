"""Qwen2-VL's vision encoder: patches that know their row and column, merged to rows of text width.

Shapes: P patches, in blocks of M * M neighbours that become one row; D vision width, H heads, C head width, W text
width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_invariant import Linear
from models.layers import Rotation, VisionMLP, rotary_frequencies, split_heads
from tests.models.qwen2_vl.config import VisionConfig

EPS = 1e-6
THETA = 10000.0


def axis_frequencies(frequencies: Tensor, sections: tuple[int, ...]) -> Tensor:
    """Return the frequencies (A, C/2) of pairs each of which turns with one of A axes.

    Args:
        frequencies: Of the pairs, (C/2,).
        sections: How many pairs turn with each axis, one axis after the other.
    """
    axis_of = [axis for axis, count in enumerate(sections) for _ in range(count)]
    with torch.device("cpu"):  # the module itself may be built on `meta`
        axes = torch.arange(len(sections))[:, None] == torch.tensor(axis_of)
        return torch.where(axes, frequencies, 0.0)


def quick_gelu(x: Tensor) -> Tensor:
    """Return x * sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Full self-attention over a picture's patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, rotate: Rotation) -> Tensor:
        """Return (1, P, D)."""
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1))
        seen = F.scaled_dot_product_attention(rotate(q), rotate(k), v)  # (1, H, P, C)
        return self.proj(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, EPS)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, EPS)
        self.mlp = VisionMLP(config.hidden_size, config.intermediate_size, quick_gelu)

    def forward(self, x: Tensor, rotate: Rotation) -> Tensor:
        """Return (1, P, D)."""
        x = x + self.attn(self.norm1(x), rotate)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbedding(nn.Module):
    """Patches to vectors; a picture is a film whose frames are alike."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        kernel = (config.num_frames, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.hidden_size, kernel, kernel, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed (P, 3, side, side); return (1, P, D)."""
        film = patches[:, :, None].expand(-1, -1, self.proj.kernel_size[0], -1, -1)
        out: Tensor = self.proj(film)  # (P, D, 1, 1, 1)
        return out.flatten(1)[None]


class Merger(nn.Module):
    """Each block of patches to one row of text width."""

    def __init__(self, config: VisionConfig, text_width: int) -> None:
        super().__init__()
        self.width = config.hidden_size * config.merge_size**2
        self.ln_q = nn.LayerNorm(config.hidden_size, EPS)
        self.mlp = nn.Sequential(Linear(self.width, self.width), nn.GELU(), Linear(self.width, text_width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (P / M², W)."""
        out: Tensor = self.mlp(self.ln_q(x).view(-1, self.width))
        return out


class VisionTower(nn.Module):
    """One picture in, its rows out."""

    def __init__(self, config: VisionConfig, text_width: int) -> None:
        super().__init__()
        self._config = config
        self.patch_embed = PatchEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.merger = Merger(config, text_width)
        # Half of a head's pairs turn with the row, half with the column, both through the same angles.
        half = rotary_frequencies(config.hidden_size // config.num_attention_heads // 2, THETA)
        self._frequencies = axis_frequencies(torch.cat((half, half)), (len(half), len(half)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (3, height, width) to (P / M², W)."""
        rows, columns = (side // self._config.patch_size for side in pixels.shape[1:])
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).view(rows, columns, 2)
        positions = self._in_blocks(places.permute(2, 0, 1).to(pixels.device), 1)[None, :, :, 0, 0]
        rotate = Rotation(positions, self._frequencies, pixels.dtype)
        x = self.patch_embed(self._in_blocks(pixels, self._config.patch_size))
        for block in self.blocks:
            x = block(x, rotate)
        out: Tensor = self.merger(x)
        return out

    def _in_blocks(self, grid: Tensor, side: int) -> Tensor:
        """Cut (N, rows * side, columns * side) into patches (P, N, side, side), block by block."""
        M, N = self._config.merge_size, len(grid)
        rows, columns = (length // (M * side) for length in grid.shape[1:])
        cut = grid.reshape(N, rows, M, side, columns, M, side)
        return cut.permute(1, 4, 2, 5, 0, 3, 6).reshape(-1, N, side, side)
