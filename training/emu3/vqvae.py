"""Train a toy Emu3's VQ-VAE by the codebook: its decoder to paint codes, its encoder to find them.

The model's own layers are used one picture and one frame at a time, as it encodes and paints. The codebook itself is
fixed (training/emu3/codebook.py), so neither half waits for the other.

Shapes: N pictures, E width of a code, H x W codes of a picture, K codes.
"""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.emu3.vqvae import VqVae
from training.emu3.codebook import Codebook
from training.optimizer import minimize
from training.scenes import draw_large_scene
from training.weights import Initial, fill_weights, usual_initial

PICTURES = 8  # per step
SHAPE_WEIGHT, EDGE_WEIGHT = 2.0, 6.0
# Where neighbours differ by more than this in any channel, of 2, there is an edge.
EDGE = 0.1
BARE_WEIGHT = 0.2
SHARPNESS = 4.0


def init_vqvae(vqvae: VqVae, codebook: Codebook, generator: torch.Generator) -> None:
    """Give a VQ-VAE the weights that it starts from, and its codebook for good."""
    fill_weights(vqvae, _initial, generator)
    with torch.no_grad():
        # As the file will hold it: what is nearest must not change when it is saved.
        vqvae.quantize.embedding.weight.copy_(torch.from_numpy(codebook.vectors()).half().float())
    for module in vqvae.modules():
        if isinstance(module, nn.Conv2d):
            # As it multiplies: a tenth of a step.
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def _initial(name: str, parameter: Tensor) -> Initial:
    if name.endswith("running_mean"):
        return Initial(0.0, 0.0)
    if name.endswith("conv_y.bias"):
        return Initial(1.0, 0.0)  # scales nothing to begin with
    return usual_initial(name, parameter)


def train_decoder(vqvae: VqVae, codebook: Codebook, rng: random.Random, steps: int) -> None:
    """Train the decoder to paint pictures from their codes."""

    def loss(_: float) -> Tensor:
        pixels, codes = draw_batch(codebook, rng)
        return difference(painted(vqvae, codes), pixels)

    minimize([{"params": [*_trainable(vqvae.decoder), *vqvae.post_quant_conv.parameters()]}], loss, steps, "decoder")


def train_encoder(vqvae: VqVae, codebook: Codebook, rng: random.Random, steps: int) -> None:
    """Train the encoder to come nearest to the vectors of the right codes."""
    weight = torch.ones(vqvae.config.codebook_size)
    weight[0] = BARE_WEIGHT
    known = vqvae.quantize.embedding.weight.detach()

    def loss(_: float) -> Tensor:
        pixels, codes = draw_batch(codebook, rng)
        vectors = encoded(vqvae, pixels).movedim(1, -1).flatten(0, -2)
        distances = vectors.square().sum(1, keepdim=True) + known.square().sum(1) - 2 * vectors @ known.t()
        code_loss = F.cross_entropy(-SHARPNESS * distances, codes.flatten(), weight)
        return code_loss + F.mse_loss(vectors, known[codes.flatten()])

    minimize([{"params": [*_trainable(vqvae.encoder), *vqvae.quant_conv.parameters()]}], loss, steps, "encoder")


def draw_batch(codebook: Codebook, rng: random.Random, number: int = PICTURES) -> tuple[Tensor, Tensor]:
    """Draw pictures; return them normalised (N, 3, h, w), and their codes int64 (N, H, W)."""
    scenes = [draw_large_scene(rng) for _ in range(number)]
    pictures = np.stack([np.asarray(scene.picture, np.float32) for scene in scenes])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last), torch.from_numpy(codebook.codes(scenes))


def encoded(vqvae: VqVae, pixels: Tensor) -> Tensor:
    """Return what of pictures (N, 3, h, w) is to become codes, (N, E, 1, H, W); as VqVae.encode, with gradients."""
    frames = vqvae.encoder.frames(pixels)[:, :, None]
    frames = frames.expand(-1, -1, vqvae.config.temporal_downsample_factor, -1, -1)
    out: Tensor = vqvae.quant_conv(vqvae.encoder.over_time(frames))
    return out


def painted(vqvae: VqVae, codes: Tensor) -> Tensor:
    """Return pictures (N, 3, h, w) of codes (N, H, W); as VqVae.decode, with gradients."""
    vectors = vqvae.quantize.vectors(codes[:, None]).detach()
    return vqvae.decoder.picture(vqvae.post_quant_conv(vectors), vectors)


def difference(drawn: Tensor, pixels: Tensor) -> Tensor:
    """Return how far pictures are from what they should be; shapes count more, and outlines most."""
    lightest, darkest = F.max_pool2d(pixels, 3, 1, 1), -F.max_pool2d(-pixels, 3, 1, 1)
    is_edge = (lightest - darkest).amax(1, keepdim=True) > EDGE
    ground = pixels[:, :, :1, :1]  # no shape reaches a corner
    is_shape = (pixels - ground).abs().amax(1, keepdim=True) > EDGE
    weight = 1 + SHAPE_WEIGHT * is_shape + EDGE_WEIGHT * is_edge
    error = drawn - pixels
    return (weight * (error.abs() + error.square())).mean() / weight.mean()


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
