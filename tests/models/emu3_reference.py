"""Tiny Emu3 checkpoints as transformers 5.23 writes and runs them.

Shapes: N pictures, h x w pixels, H x W codes, E width of a code.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Emu3VQVAE
from transformers.models.emu3.configuration_emu3 import Emu3VQVAEConfig

from models.emu3.config import VqConfig

BOS, EOS, PAD = 1, 2, 0
TEXT = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "rope_parameters": {"rope_theta": 1e6},
    "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "attention_dropout": 0.0,
}  # fmt: skip
SMALL_VQ = {
    "codebook_size": 64, "embed_dim": 4, "latent_channels": 4, "in_channels": 3, "out_channels": 3,
    "temporal_downsample_factor": 4, "base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1,
    "attn_resolutions": [1], "hidden_size": 64,
}  # fmt: skip
# Every number that a configuration can hold differs somewhere from all the others.
VQ_SIZES: dict[str, dict[str, Any]] = {
    "small": SMALL_VQ,
    "released_in_small": SMALL_VQ
    | {"channel_multiplier": [1, 2, 2, 4], "num_res_blocks": 2, "attn_resolutions": [3], "hidden_size": 128,
       "codebook_size": 500},
    "one_level": SMALL_VQ
    | {"base_channels": 64, "channel_multiplier": [1], "num_res_blocks": 3, "attn_resolutions": [], "embed_dim": 3,
       "latent_channels": 3, "temporal_downsample_factor": 2, "codebook_size": 33},
    "attention_where_it_is_finest": SMALL_VQ
    | {"channel_multiplier": [2, 1, 2], "attn_resolutions": [0, 2], "embed_dim": 5, "latent_channels": 5,
       "temporal_downsample_factor": 8, "in_channels": 4, "out_channels": 1},
    "frames_by_themselves": SMALL_VQ
    | {"base_channels": 96, "channel_multiplier": [1, 1], "attn_resolutions": [0, 1], "hidden_size": 96,
       "temporal_downsample_factor": 1, "embed_dim": 2, "latent_channels": 2, "num_res_blocks": 2},
    "attention_at_a_level_that_is_not_there": SMALL_VQ | {"attn_resolutions": [3], "codebook_size": 1000},
}  # fmt: skip


def vocabulary_map(ids: Sequence[int], first_visual: int, num_visual: int) -> dict[str, int]:
    """Return ids by token, as config.json lists them; `ids` are those of the six tokens that pictures are made with."""
    tokens = (
        "<image>", "<|extra_200|>", "<|extra_201|>", "<|image token|>", "<|image start|>", "<|image end|>",
        "<|extra_203|>", "<|extra_204|>",
    )  # fmt: skip
    named = dict(zip(tokens, (*ids, BOS, EOS), strict=True))
    return named | {f"<|visual token {k:06d}|>": first_visual + k for k in range(num_visual)}


def vq_config(vq: Mapping[str, Any]) -> VqConfig:
    """Return a configuration as ours."""
    levels, multiplier = vq["attn_resolutions"], tuple(vq["channel_multiplier"])
    kept = tuple(level for level in levels if level < len(multiplier))
    return VqConfig(**{**vq, "channel_multiplier": multiplier, "attn_resolutions": kept})


def write_vq_reference(folder: Path, vq: Mapping[str, Any]) -> Any:
    """Write a VQ-VAE alone, with random weights; return the reference's model of it."""
    model: Any = Emu3VQVAE(Emu3VQVAEConfig(**vq))
    model.eval()
    randomise(model)
    spread_codes(model)
    model.save_pretrained(folder)
    return model


def tensors_to_fill(model: torch.nn.Module) -> Iterator[tuple[str, Tensor, torch.Generator]]:
    """Yield every parameter and running statistic: ones and zeros would hide that something is left out."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not name.endswith(("num_batches_tracked", "inv_freq")):
            yield name, tensor, generator


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Make every parameter and statistic of a VQ-VAE random."""
    for name, tensor, generator in tensors_to_fill(model):
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.3, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
        else:
            tensor.uniform_(0.5, 1.5, generator=generator)


@torch.no_grad()
def spread_codes(model: Any) -> None:
    """Put the code vectors where pictures of noise are: anywhere else a few of them would be nearest to everything."""
    generator = torch.Generator().manual_seed(2)
    found = []
    hook = model.quantize.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    side = 12 * model.spatial_scale_factor
    noise = torch.randn(4, model.config.in_channels, side, side, generator=generator)
    model.encode(noise, torch.tensor([[side, side]] * 4))
    hook.remove()
    vectors = found[0].movedim(2, -1).flatten(0, -2)  # (places, E)
    book = model.quantize.embedding.weight
    places = torch.randint(len(vectors), (len(book),), generator=generator)
    book.copy_(vectors[places] + 0.1 * vectors.std(0) * torch.randn(book.shape, generator=generator))


@torch.inference_mode()
def codes(model: Any, pixels: Tensor) -> Tensor:
    """Return the reference's codes (N, H, W) of pictures (N, C, h, w), or (N, T, H, W) of videos (N, T, C, h, w)."""
    # It cuts each picture to its size, and each video as if its frames were lines of a picture: the size is for all.
    size = [10**6, 10**6] if pixels.ndim == 5 else list(pixels.shape[-2:])
    return torch.stack(model.encode(pixels, torch.tensor([size] * len(pixels))).image_tokens)
