"""Emu3's VQ-VAE on the device: a picture becomes codes, and codes become a picture. Knows no tokens.

It was made for video: four frames become one code at each place. A picture is a video of four equal frames, and of the
four frames that its codes become the first is the picture. So the part of the encoder that sees single frames sees the
picture once, and the decoder draws one frame only, which no later one has a part in.

It computes in float32. TF32 is off while it encodes: a code is the nearest of thousands, and in half precision another
one is nearest. Its ten bits are enough to paint with, and torch lets a GPU's convolutions take it if nobody objects.
Pictures of different sizes are never padded to one: that would change the codes near the padding, and through the
attention all others.

Shapes: N pictures or videos, T frames, h x w pixels, H x W codes of a frame, C channels, E width of a code.
"""

import threading

import torch
from torch import Tensor, nn

from models.emu3.config import VqConfig
from models.emu3.vqvae_blocks import (
    CausalConv,
    GroupNorm,
    Level,
    MiddleBlock,
    SpatialNorm,
    TimeResnetBlock,
    downsample,
    time_downsample,
    time_upsample,
    upsample,
)
from models.layers import silu

# Distances held at once, 128 MB: those of a 720 x 720 picture to all 32,768 codes would take 1 GB, several times.
DISTANCES = 2**25


class VqVae(nn.Module):
    """Encoder, code book and decoder."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = CodeBook(config)
        self.quant_conv = CausalConv(config.latent_channels, config.embed_dim, side=1)
        self.post_quant_conv = CausalConv(config.embed_dim, config.latent_channels, side=1)

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the codes int64 (N, H, W) of pictures of one size.

        Args:
            pixels: Normalised, float32 (N, C, h, w); h and w are multiples of the spatial factor.
        """
        with full_precision:
            frames = self.encoder.frames(pixels)[:, :, None]  # (N, E, 1, H, W)
            frames = frames.expand(-1, -1, self.config.temporal_downsample_factor, -1, -1)
            return self.codes_of(frames)[:, 0]

    def decode(self, codes: Tensor) -> Tensor:
        """Return pictures float32 (N, C, h, w), normalised as the encoder's.

        Args:
            codes: int64 (N, H, W).
        """
        vectors = self.quantize.vectors(codes[:, None])
        return self.decoder.picture(self.post_quant_conv(vectors), vectors)

    def codes_of(self, frames: Tensor) -> Tensor:
        """Return the codes (N, T / temporal factor, H, W) of encoded frames (N, E, T, H, W)."""
        codes: Tensor = self.quantize(self.quant_conv(self.encoder.over_time(frames)))
        return codes


class Encoder(nn.Module):
    """Frames by themselves, then frames over time."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        top, latent = config.channels[-1], config.latent_channels
        self.conv_in = nn.Conv2d(config.in_channels, config.base_channels, 3, padding=1)
        self.down_block = DownBlock(config)
        self.middle_block = MiddleBlock(top)
        self.norm_out = GroupNorm(top)
        self.conv_out = nn.Conv2d(top, latent, 3, padding=1)
        self.time_conv = nn.ModuleList(time_downsample(latent) for _ in range(num_time_steps(config)))
        self.time_res_stack = nn.ModuleList(TimeResnetBlock(latent) for _ in range(config.num_res_blocks))

    def frames(self, pixels: Tensor) -> Tensor:
        """Map frames (N, C, h, w) to (N, E, H, W), each by itself."""
        x = self.middle_block(self.down_block(self.conv_in(pixels)))
        out: Tensor = self.conv_out(silu(self.norm_out(x)))
        return out

    def over_time(self, frames: Tensor) -> Tensor:
        """Map (N, E, T, H, W) to (N, E, T / temporal factor, H, W)."""
        for halve in self.time_conv:
            frames = silu(halve(frames))
        for block in self.time_res_stack:
            frames = block(frames)
        return frames


class Decoder(nn.Module):
    """Frames over time, then frames by themselves, with the code vectors beside them all the way."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        top, bottom, latent = config.channels[-1], config.channels[0], config.latent_channels
        self.time_res_stack = nn.ModuleList(TimeResnetBlock(latent) for _ in range(config.num_res_blocks))
        self.time_conv = nn.ModuleList(time_upsample(latent) for _ in range(num_time_steps(config)))
        self.conv_in = nn.Conv2d(latent, top, 3, padding=1)
        self.middle_block = MiddleBlock(top, config.embed_dim)
        self.up_block = UpBlock(config)
        self.norm_out = SpatialNorm(bottom, config.embed_dim)
        self.conv_out = nn.Conv2d(bottom, config.out_channels, 3, padding=1)

    def picture(self, latents: Tensor, vectors: Tensor) -> Tensor:
        """Map (N, E, 1, H, W) twice to the first frame of each video, (N, C, h, w)."""
        both = self.over_time(latents, vectors)
        for double in self.time_conv:
            # No later frame has a part in the first, so neither has one in what becomes of it.
            both = silu(double(both)[:, :, :1])
        latents, vectors = both[:, :, 0].chunk(2)
        return self.frames(latents, vectors)

    def over_time(self, latents: Tensor, vectors: Tensor) -> Tensor:
        """Map (N, E, T, H, W) twice to one of (2 N, E, T, H, W), the frames not yet doubled."""
        # One after the other on the batch axis: the reference runs both through the same layers.
        both = torch.cat((latents, vectors))
        for block in self.time_res_stack:
            both = block(both)
        return both

    def frames(self, latents: Tensor, vectors: Tensor) -> Tensor:
        """Map frames (N, E, H, W) twice to (N, C, h, w), each by itself."""
        x = self.middle_block(self.conv_in(latents), vectors)
        x = self.up_block(x, vectors)
        out: Tensor = self.conv_out(silu(self.norm_out(x, vectors)))
        return out


class DownBlock(nn.Module):
    """The encoder's levels, from the full resolution on."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        widths, attended = (config.base_channels, *config.channels), config.attn_resolutions
        self.down = nn.ModuleList()
        for i, width in enumerate(config.channels):
            down = downsample(width) if i < len(config.channels) - 1 else None
            self.down.append(Level(widths[i], width, config.num_res_blocks, i in attended, downsample=down))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C, H, W)."""
        for level in self.down:
            x = level(x)
        return x


class UpBlock(nn.Module):
    """The decoder's levels, run from the last to the full resolution, which is the first."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        widths, num_blocks = (*config.channels, config.channels[-1]), config.num_res_blocks + 1
        self.up = nn.ModuleList()
        for i, width in enumerate(config.channels):
            up, is_attended = upsample(width) if i > 0 else None, i in config.attn_resolutions
            self.up.append(Level(widths[i + 1], width, num_blocks, is_attended, config.embed_dim, upsample=up))

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Map (N, C, H, W), with code vectors (N, E, H, W), to (N, C, h, w)."""
        for level in reversed(self.up):
            x = level(x, vectors)
        return x


class CodeBook(nn.Module):
    """The vectors that codes stand for."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.embed_dim)

    def vectors(self, codes: Tensor) -> Tensor:
        """Return the vectors (N, E, T, H, W) of codes (N, T, H, W)."""
        out: Tensor = self.embedding(codes)
        return out.movedim(-1, 1).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest codes int64 (N, T, H, W) of (N, E, T, H, W); of equally near ones the first."""
        places = x.movedim(1, -1)  # (N, T, H, W, E)
        vectors, book = places.flatten(0, -2), self.embedding.weight
        lengths, rows = book.square().sum(1), max(1, DISTANCES // len(book))
        nearest = []
        for i in range(0, len(vectors), rows):
            some = vectors[i : i + rows]
            # As the reference writes it, for its rounding: |x|² + |e|² - 2 x e.
            distances = some.square().sum(1, keepdim=True) + lengths - 2 * (some @ book.t())
            nearest.append(distances.argmin(1))
        return torch.cat(nearest).view(places.shape[:-1])


def num_time_steps(config: VqConfig) -> int:
    """Return how often the number of frames is halved."""
    return config.temporal_downsample_factor.bit_length() - 1


class _WithoutTf32:
    """torch's switches of the whole process: the first thread that enters turns them off, the last one back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._allowed = (False, False)

    def __enter__(self) -> None:
        convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
        with self._lock:
            if self._inside == 0:
                self._allowed = convolutions.allow_tf32, products.allow_tf32
                convolutions.allow_tf32 = products.allow_tf32 = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._allowed


# Keeps a GPU from TF32, which torch allows convolutions by default: its ten bits give other codes.
full_precision = _WithoutTf32()
