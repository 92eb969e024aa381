"""What the VQ-VAE is built of: residual blocks, attention and resampling, in space and in time.

The decoder's norms differ from the encoder's in that they scale and shift by the code at each place; both take the
codes, so that one block serves both halves. Knows no picture, no code book and no order of blocks.

Shapes: N pictures or frames, C channels, h x w places, T frames, E width of a code, F channels of a next layer.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_invariant import Linear
from models.emu3.config import NUM_GROUPS
from models.layers import silu

GROUP_EPS = 1e-6
BATCH_EPS = 1e-5
KERNEL = 3


class GroupNorm(nn.GroupNorm):
    """A group norm that no codes are told."""

    def __init__(self, channels: int) -> None:
        super().__init__(NUM_GROUPS, channels, GROUP_EPS)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Norm (N, C, h, w)."""
        return super().forward(x)


class SpatialNorm(nn.Module):
    """A group norm whose scale and shift come from the code at each place."""

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        self.norm_layer = GroupNorm(channels)
        self.conv_y = nn.Conv2d(code_channels, channels, 1)
        self.conv_b = nn.Conv2d(code_channels, channels, 1)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Norm (N, C, h, w) by codes (N, E, H, W) of an h x w that is a multiple of theirs."""
        assert codes is not None
        out: Tensor = self.norm_layer(x)
        # The two convolutions see single places, so they need not see each place as often as it is repeated.
        size = x.shape[-2:]
        scale, shift = (F.interpolate(conv(codes), size=size) for conv in (self.conv_y, self.conv_b))
        return out * scale + shift


def norm(channels: int, code_channels: int | None) -> GroupNorm | SpatialNorm:
    """Return the norm of the encoder, or with the width of a code that of the decoder."""
    return GroupNorm(channels) if code_channels is None else SpatialNorm(channels, code_channels)


class ResnetBlock(nn.Module):
    """Twice norm, SiLU and convolution, beside a shortcut."""

    def __init__(self, channels: int, out_channels: int, code_channels: int | None = None) -> None:
        super().__init__()
        self.norm1 = norm(channels, code_channels)
        self.conv1 = nn.Conv2d(channels, out_channels, KERNEL, padding=1)
        self.norm2 = norm(out_channels, code_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, KERNEL, padding=1)
        if channels != out_channels:
            self.nin_shortcut = nn.Conv2d(channels, out_channels, 1)
        self.is_widening = channels != out_channels

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Map (N, C, h, w) to (N, F, h, w)."""
        y = self.conv1(silu(self.norm1(x, codes)))
        y = self.conv2(silu(self.norm2(y, codes)))
        out: Tensor = y + (self.nin_shortcut(x) if self.is_widening else x)
        return out


class Attention(nn.Module):
    """Every place looks at all places of its picture, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to its like."""
        places = x.flatten(2).transpose(1, 2)[:, None]  # (N, 1, h * w, C)
        q, k, v = self.q_proj(places), self.k_proj(places), self.v_proj(places)
        out: Tensor = self.out_proj(F.scaled_dot_product_attention(q, k, v))
        return out.transpose(2, 3).reshape(x.shape)


class MiddleBlock(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, channels: int, code_channels: int | None = None) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, code_channels)
        self.attn_norm = norm(channels, code_channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResnetBlock(channels, channels, code_channels)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Map (N, C, h, w) to its like."""
        x = self.block_1(x, codes)
        x = x + self.attn_1(self.attn_norm(x, codes))
        out: Tensor = self.block_2(x, codes)
        return out


class Resample(nn.Module):
    """Change the size of what comes in, then convolve it."""

    def __init__(self, resize: Callable[[Tensor], Tensor], conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self._resize = resize

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, …) to (N, C, …)."""
        out: Tensor = self.conv(self._resize(x))
        return out


def downsample(channels: int) -> Resample:
    """Return what halves a picture's sides; only the right and the lower border are widened."""
    return Resample(lambda x: F.pad(x, (0, 1, 0, 1)), nn.Conv2d(channels, channels, KERNEL, stride=2))


def upsample(channels: int) -> Resample:
    """Return what doubles a picture's sides."""
    return Resample(lambda x: F.interpolate(x, scale_factor=2.0), nn.Conv2d(channels, channels, KERNEL, padding=1))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention where the level has it, and the way out."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        num_blocks: int,
        is_attended: bool,
        code_channels: int | None = None,
        *,
        downsample: Resample | None = None,
        upsample: Resample | None = None,
    ) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * num_blocks
        self.block = nn.ModuleList(ResnetBlock(*pair, code_channels) for pair in pairwise(widths))
        num_attended = num_blocks if is_attended else 0
        self.attn = nn.ModuleList(Attention(out_channels) for _ in range(num_attended))
        self.attn_norms = nn.ModuleList(norm(out_channels, code_channels) for _ in range(num_attended))
        self.downsample, self.upsample = downsample, upsample

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Map (N, C, h, w) to (N, F, h, w), or to half or double its sides."""
        for i, block in enumerate(self.block):
            x = block(x, codes)
            if self.attn:
                x = x + self.attn[i](self.attn_norms[i](x, codes))
        for resample in (self.downsample, self.upsample):
            x = x if resample is None else resample(x)
        return x


class CausalConv(nn.Module):
    """A convolution over space and time that looks at no later frame."""

    def __init__(
        self, channels: int, out_channels: int, *, frames: int = 3, side: int = KERNEL, stride: int = 1
    ) -> None:
        """Make the convolution.

        Args:
            channels: In.
            out_channels: Out.
            frames: That it sees at once.
            side: Of what it sees of a frame.
            stride: In frames.
        """
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, (frames, side, side), stride=(stride, 1, 1))
        # Two frames before the first whatever `frames` is: the released weights were trained so.
        self.padding = (side // 2,) * 4 + (2, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, h, w) to (N, F, T / stride, h, w)."""
        out: Tensor = self.conv(F.pad(x, self.padding))
        return out


def time_downsample(channels: int) -> Resample:
    """Return what halves the number of frames: its convolution takes every second place in time."""
    return Resample(lambda x: x, CausalConv(channels, channels, frames=4, stride=2))


def time_upsample(channels: int) -> Resample:
    """Return what doubles the number of frames."""
    return Resample(lambda x: x.repeat_interleave(2, dim=2), CausalConv(channels, channels))


class BatchNorm(nn.Module):
    """A batch norm by the statistics of its training, never by those of what comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(channels)) for _ in range(2))
        # Not buffers: models/weights.py fills parameters, and refuses what is left empty.
        self.running_mean, self.running_var = (
            nn.Parameter(torch.empty(channels), requires_grad=False) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Norm (N, C, ...)."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=BATCH_EPS)


class TimeResnetBlock(nn.Module):
    """Twice norm, SiLU and causal convolution, beside what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(channels), BatchNorm(channels)
        self.conv1, self.conv2 = CausalConv(channels, channels), CausalConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, h, w) to its like."""
        y = self.conv1(silu(self.norm1(x)))
        out: Tensor = x + self.conv2(silu(self.norm2(y)))
        return out
