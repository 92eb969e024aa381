"""The VQ-VAE makes the reference's codes of a picture and its picture of codes, at a quarter of the work."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Emu3VQVAE
from transformers.models.emu3.configuration_emu3 import Emu3VQVAEConfig

from models.emu3 import vqvae
from models.emu3.config import VqConfig
from models.emu3.vqvae import CodeBook, VqVae, full_precision
from models.emu3.vqvae_blocks import BATCH_EPS, GROUP_EPS
from models.layers import silu
from models.weights import ParameterSlice, load_weights
from tests.models.emu3_reference import SMALL_VQ, VQ_SIZES, codes, vq_config, write_vq_reference

RELEASED = VqConfig(32768, 4, 4, 3, 3, 4, 256, (1, 2, 2, 4), 2, (3,), 1024)


@dataclass(frozen=True)
class Pair:
    """The reference's model and ours, of one checkpoint."""

    theirs: Any
    ours: VqVae

    def noise(self, *lead: int, rows: int, columns: int, seed: int = 0) -> Tensor:
        """Return pixels (*lead, C, h, w) of rows x columns codes."""
        config, generator = self.ours.config, torch.Generator().manual_seed(seed)
        factor = config.spatial_factor
        return torch.randn(*lead, config.in_channels, rows * factor, columns * factor, generator=generator)

    def any_codes(self, *shape: int) -> Tensor:
        return torch.randint(self.ours.config.codebook_size, shape, generator=torch.Generator().manual_seed(3))


@cache
def pair(size: str, dtype: torch.dtype = torch.float32) -> Pair:
    with TemporaryDirectory() as folder:
        theirs = write_vq_reference(Path(folder), VQ_SIZES[size])
        with torch.device("meta"):
            ours = VqVae(vq_config(VQ_SIZES[size]))
        load_weights(ours, Path(folder), stored_place, device=lambda _: torch.device("cpu"), dtype=lambda _: dtype)
    return Pair(theirs, ours)


def stored_place(name: str) -> ParameterSlice | None:
    return None if name.endswith("num_batches_tracked") else ParameterSlice(name)


@pytest.fixture(params=VQ_SIZES)
def both(request: pytest.FixtureRequest) -> Pair:
    return pair(request.param)


def assert_same_codes(both: Pair, pixels: Tensor, ours: Tensor) -> None:
    """Compare with the reference's codes; where they differ, say by how little they do."""
    seen: list[Tensor] = []
    hook = both.theirs.quantize.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    theirs = codes(both.theirs, pixels)
    hook.remove()
    places = seen[0].movedim(2, -1).flatten(0, -2)
    nearest = torch.cdist(places, both.theirs.quantize.embedding.weight).topk(2, largest=False).values
    margins = (nearest[:, 1] - nearest[:, 0])[(ours != theirs).flatten()]
    assert torch.equal(ours, theirs), f"{len(margins)} of {ours.numel()} codes differ, by margins {margins.tolist()}"


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (1, 7), (6, 6), (9, 1)])
@torch.inference_mode()
def test_a_picture_has_the_references_codes(both: Pair, rows: int, columns: int) -> None:
    pixels = both.noise(2, rows=rows, columns=columns)
    ours = both.ours.encode(pixels)
    assert ours.shape == (2, rows, columns)
    assert ours.dtype == torch.int64
    assert_same_codes(both, pixels, ours)


def test_the_pictures_of_these_tests_have_many_different_codes(both: Pair) -> None:
    found = codes(both.theirs, both.noise(4, rows=8, columns=8))
    assert len(found.unique()) > min(20, both.ours.config.codebook_size // 2)


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (1, 7), (9, 1)])
@torch.inference_mode()
def test_codes_become_the_references_picture(both: Pair, rows: int, columns: int) -> None:
    asked = both.any_codes(2, rows, columns)
    theirs, ours = both.theirs.decode(asked), both.ours.decode(asked)
    factor = both.ours.config.spatial_factor
    assert ours.shape == (2, both.ours.config.out_channels, rows * factor, columns * factor)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def encode_video(vqvae: VqVae, pixels: Tensor) -> Tensor:
    """Return the codes (N, T / temporal factor, H, W) of videos (N, T, C, h, w), for which the VQ-VAE was made."""
    with full_precision:
        frames = vqvae.encoder.frames(pixels.flatten(0, 1))
        return vqvae.codes_of(frames.view(*pixels.shape[:2], *frames.shape[1:]).transpose(1, 2))


def decode_video(vqvae: VqVae, codes: Tensor) -> Tensor:
    """Return the videos (N, T * temporal factor, C, h, w) of codes (N, T, H, W)."""
    with full_precision:
        vectors = vqvae.quantize.vectors(codes)
        both = vqvae.decoder.over_time(vqvae.post_quant_conv(vectors), vectors)
        for double in vqvae.decoder.time_conv:
            both = silu(double(both))
        latents, vectors = both.transpose(1, 2).chunk(2)
        frames = vqvae.decoder.frames(latents.flatten(0, 1), vectors.flatten(0, 1))
        return frames.view(*latents.shape[:2], *frames.shape[1:])


@torch.inference_mode()
def test_a_video_has_the_references_codes_and_becomes_the_references_video(both: Pair) -> None:
    frames = 3 * both.ours.config.temporal_downsample_factor
    pixels = both.noise(2, frames, rows=3, columns=4)
    ours = encode_video(both.ours, pixels)
    assert ours.shape == (2, 3, 3, 4)
    assert_same_codes(both, pixels, ours)
    asked = both.any_codes(2, 3, 3, 4)
    video = decode_video(both.ours, asked)
    assert video.shape[:2] == (2, frames)
    torch.testing.assert_close(video, both.theirs.decode(asked), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_picture_is_the_video_of_it_standing_still(both: Pair) -> None:
    pixels, factor = both.noise(2, rows=4, columns=3), both.ours.config.temporal_downsample_factor
    found = both.ours.encode(pixels)
    assert torch.equal(encode_video(both.ours, pixels[:, None].repeat(1, factor, 1, 1, 1))[:, 0], found)
    first = decode_video(both.ours, found[:, None])[:, 0]
    torch.testing.assert_close(both.ours.decode(found), first, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_company_does_not_change_a_pictures_codes(both: Pair) -> None:
    pixels = both.noise(5, rows=6, columns=5)
    together = both.ours.encode(pixels)
    assert torch.equal(together, torch.cat([both.ours.encode(one[None]) for one in pixels]))


@torch.inference_mode()
def test_padding_would_change_the_codes_of_a_picture(both: Pair) -> None:
    pixels, factor = both.noise(1, rows=6, columns=5), both.ours.config.spatial_factor
    padded = both.ours.encode(nn.functional.pad(pixels, (0, 3 * factor, 0, 0)))[..., :5]
    assert not torch.equal(padded, both.ours.encode(pixels))


@torch.inference_mode()
def test_in_half_precision_a_picture_would_have_other_codes() -> None:
    both = pair("released_in_small")
    pixels = both.noise(4, rows=8, columns=8)
    half = pair("released_in_small", torch.bfloat16).ours.encode(pixels.bfloat16())
    assert not torch.equal(half, both.ours.encode(pixels))


def test_the_norms_keep_from_zero_as_far_as_the_references() -> None:
    theirs = pair("small").theirs
    assert theirs.decoder.norm_out.norm_layer.eps == theirs.encoder.norm_out.eps == GROUP_EPS
    assert theirs.decoder.time_res_stack[0].norm2.eps == theirs.encoder.time_res_stack[0].norm1.eps == BATCH_EPS


def num_frames(module: nn.Module, work: Callable[[], Tensor]) -> int:
    """Return how many frames a module of either model is shown while some work is done."""
    shown: list[int] = []
    hook = module.register_forward_pre_hook(lambda _, args: shown.append(len(args[0])))
    with torch.inference_mode():
        work()
    hook.remove()
    return sum(shown)


def test_single_frames_are_encoded_and_drawn_once_a_picture_and_not_once_for_each_frame_of_a_video() -> None:
    both = pair("released_in_small")
    pixels, asked = both.noise(3, rows=3, columns=4), both.any_codes(3, 3, 4)
    for half in ("encoder", "decoder"):

        def work(model: Any, is_ours: bool, half: str = half) -> Tensor:
            encode = model.encode if is_ours else lambda some: codes(model, some)
            made: Tensor = encode(pixels) if half == "encoder" else model.decode(asked)
            return made

        theirs = num_frames(getattr(both.theirs, half).middle_block, lambda: work(both.theirs, False))
        ours = num_frames(getattr(both.ours, half).middle_block, lambda: work(both.ours, True))
        assert (ours, theirs) == (3, 12)


class Largest(TorchDispatchMode):
    """Watches how large the tensors become that are made under it."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, made.numel() if isinstance(made, Tensor) else 0)
        return made


@pytest.mark.parametrize(("held", "largest"), [(10**9, 70 * 64), (1000, 15 * 64), (1, 70 * 4)])
@torch.inference_mode()
def test_distances_are_held_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch, held: int, largest: int) -> None:
    both = pair("small")
    places = torch.randn(2, 4, 1, 7, 5, generator=torch.Generator().manual_seed(4))
    whole = both.ours.quantize(places)
    monkeypatch.setattr(vqvae, "DISTANCES", held)
    with Largest() as seen:
        assert torch.equal(both.ours.quantize(places), whole)
    assert seen.numbers == largest


def test_of_equally_near_codes_the_first_is_taken() -> None:
    book = CodeBook(vq_config(SMALL_VQ))
    with torch.no_grad():
        book.embedding.weight.zero_()
        book.embedding.weight[[9, 21]] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    places = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1, 1)
    assert book(places).item() == 9
    assert torch.equal(book.vectors(torch.tensor([[[[21]]]])), places)


def test_one_thread_that_is_done_does_not_turn_tf32_on_for_another() -> None:
    convolutions = torch.backends.cudnn
    assert convolutions.allow_tf32
    with full_precision:
        with ThreadPoolExecutor(1) as other:
            other.submit(full_precision.__enter__).result()
            other.submit(full_precision.__exit__).result()
        assert not convolutions.allow_tf32
    assert convolutions.allow_tf32


@torch.inference_mode()
def test_it_encodes_in_whole_float32_on_a_gpu_and_paints_as_torch_chooses() -> None:
    both, seen = pair("small"), []
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    assert before[0], "torch's own choice"
    hooks = [
        part.conv_in.register_forward_hook(lambda *_: seen.append((convolutions.allow_tf32, products.allow_tf32)))
        for part in (both.ours.encoder, both.ours.decoder)
    ]
    both.ours.decode(both.ours.encode(both.noise(1, rows=2, columns=2)))
    encode_video(both.ours, both.noise(1, 4, rows=2, columns=2))
    for hook in hooks:
        hook.remove()
    assert seen == [(False, False), before, (False, False)]
    assert (convolutions.allow_tf32, products.allow_tf32) == before


def test_the_released_size_has_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        ours, theirs = VqVae(RELEASED), Emu3VQVAE(Emu3VQVAEConfig())
    shapes = {name: tuple(one.shape) for name, one in ours.named_parameters()}
    stored = {name: tuple(one.shape) for name, one in theirs.state_dict().items()}
    assert shapes == {name: shape for name, shape in stored.items() if not name.endswith("num_batches_tracked")}
    assert {
        "encoder.conv_in.weight": (256, 3, 3, 3),
        "encoder.down_block.down.1.block.0.nin_shortcut.weight": (512, 256, 1, 1),
        "encoder.down_block.down.3.attn.1.out_proj.weight": (1024, 1024),
        "encoder.conv_out.weight": (4, 1024, 3, 3),
        "encoder.time_conv.1.conv.conv.weight": (4, 4, 4, 3, 3),
        "encoder.time_res_stack.0.norm1.running_var": (4,),
        "quant_conv.conv.weight": (4, 4, 3, 1, 1),
        "quantize.embedding.weight": (32768, 4),
        "decoder.time_conv.0.conv.conv.weight": (4, 4, 3, 3, 3),
        "decoder.up_block.up.3.attn_norms.2.conv_y.weight": (1024, 4, 1, 1),
        "decoder.up_block.up.0.block.0.nin_shortcut.weight": (256, 512, 1, 1),
        "decoder.conv_out.weight": (3, 256, 3, 3),
    }.items() <= shapes.items()
    assert not list(ours.buffers())
