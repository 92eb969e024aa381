"""A make-believe CUDA for a torch without one: the numbers are right, and what a GPU would see is counted.

A `CudaTensor` says that it lies on cuda:0 and keeps its numbers on the CPU. Whatever is done with one passes through
cuda_tensor.py, so the product takes its own branches for GPUs (`is_cuda`, `device.type`), and a `Log` of seen.py tells
of every kernel that would be launched, every copy to the device and every time the host would wait, with the product's
line. Here stands what torch and our own kernels do on a GPU.

What it does not know: times, streams, how a GPU's kernels round, and what a kernel of torch launches within itself.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from models import layers
from models.aria.moe import choose_experts
from models.emu3.model import Emu3Model
from models.engine import engine
from models.engine.engine import Engine
from models.layers import rms_norm
from models.sampler import Draws, Kind, choose_in_torch
from tests.gpu.cuda_tensor import CudaMode, CudaTensor, forget_pinned, inside, one_launch
from tests.gpu.seen import LAUNCH, WAIT, note, watched

attention: Any = pytest.importorskip("models.kernels.attention", reason="Triton, for our kernels, is not installed")
experts: Any = pytest.importorskip("models.kernels.experts", reason="Triton, for our kernels, is not installed")
draw: Any = pytest.importorskip("models.kernels.draw", reason="Triton, for our kernels, is not installed")
small_steps: Any = pytest.importorskip("models.kernels.small_steps", reason="Triton, for our kernels, is not installed")

MEMORY = 2**37  # that it says it has, all of it free
# Methods under torch.inference_mode, whose tensors can be no part of a tensor of our own.
UNDER_INFERENCE_MODE = ((Engine, "step"), (Emu3Model, "decode_picture"))


class _Event:
    """A mark in the stream; whoever waits for it may have work on its way behind it, but waits."""

    def record(self) -> None:
        """Set it."""

    def synchronize(self) -> None:
        note(WAIT, "event")


def _attend_rows(query: Tensor, keys: Tensor, values: Tensor, strides: Tensor, ends: Tensor, **sizes: int) -> Tensor:
    """Do as models.kernels.attention does with its two launches."""
    note(LAUNCH, "attend_rows", (query, ends))
    note(LAUNCH, "attend_rows", (query, ends))
    with _disable_current_modes():  # what follows is no launch
        return CudaTensor(_row_by_row(*map(inside, (query, keys, values, strides, ends)), **sizes))


def _row_by_row(
    query: Tensor, keys: Tensor, values: Tensor, strides: Tensor, ends: Tensor, num_heads: int, most: int
) -> Tensor:
    found = []
    for row, (own, stride) in enumerate(zip(ends, strides.tolist(), strict=True)):
        size = min(int(own.max()), most)
        places = [_at(int(table[row]), num_heads, stride, size, query) for table in (keys, values)]
        seen = torch.arange(size) < own[:, None]
        found.append(F.scaled_dot_product_attention(query[row], *places, attn_mask=seen, enable_gqa=True).nan_to_num())
    return torch.stack(found).transpose(1, 2).flatten(2)


def _add_mixture(
    x: Tensor, normed: Tensor, scores: Tensor, num_chosen: int, *weights_and_shared: Tensor, few_rows: bool
) -> Tensor:
    """Do as models.kernels.experts does with its four launches, pair by pair with torch's operations."""
    for _ in range(4):
        note(LAUNCH, "add_mixture", (x, scores))
    with _disable_current_modes():  # what follows is no launch
        x, normed, scores, fc1, fc2, shared = map(inside, (x, normed, scores, *weights_and_shared))
        ids, weights = choose_experts(scores, num_chosen)
        gate, up = (normed[:, None, None] @ fc1[ids]).chunk(2, -1)  # (N, K, 1, F)
        y = ((F.silu(gate) * up) @ fc2[ids])[:, :, 0]
        return CudaTensor(x + ((y * weights[..., None]).sum(1) + shared))


def _at(address: int, num_heads: int, stride: int, size: int, like: Tensor) -> Tensor:
    """Return (heads, size, width) numbers that lie at an address."""
    width = like.shape[-1]
    count = (num_heads - 1) * stride + size * width
    held = (ctypes.c_char * max(1, count * like.element_size())).from_address(address)
    flat = torch.frombuffer(held, dtype=like.dtype, count=count) if count else like.new_empty(0)
    return flat.as_strided((num_heads, size, width), (stride, width, 1))


def _record(work: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
    """Record work as a CUDA graph does: refuse what waits or copies; what is replayed fills the same results again."""
    work()  # the trial run
    with watched() as log:
        results = [tensor.clone() for tensor in work()]
    if log.waits():
        raise RuntimeError(f"operation not permitted when stream is capturing: {dict(log.waits())}")

    def replay() -> None:
        for result, new in zip(results, work(), strict=True):
            result.copy_(new)

    return replay, results


def pretend_gpu(patch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> None:
    """Let torch say that it has a GPU, where it is asked for what nobody computes."""
    patch.setattr(torch.cuda, "_lazy_init", lambda: None)  # there is nothing to initialise
    patch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    patch.setattr(torch.cuda, "Event", _Event)
    patch.setattr(layers, "can_use_flash_attention", lambda params: True)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "set_sync_debug_mode"):
        patch.setattr(torch.cuda, name, lambda *_: None)
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved"):
        patch.setattr(torch.cuda, name, lambda *_: 0)
    patch.setattr(torch.cuda, "mem_get_info", lambda *_: (MEMORY, MEMORY))


@contextmanager
def device_guard() -> Iterator[None]:
    """Let tensors say that they lie on CUDA: torch asks a table of guards to make their device the current one.

    The CPU's guard, which does nothing, stands in CUDA's place meanwhile (c10/core/impl/DeviceGuardImplInterface.h and
    DeviceType.h). FakeTensorMode needs no more than that. It does not know which GPU is the current one: `.to("cuda")`
    leaves a tensor on the CPU, and `.to("cuda:0")` does not.
    """
    (library,) = (Path(torch.__file__).parent / "lib").glob("libc10.[sd]*")
    guards = (ctypes.c_void_p * 2).in_dll(ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE")
    cpu, cuda = guards
    guards[1] = cpu
    try:
        yield
    finally:
        guards[1] = cuda


def _add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x + y, rms_norm(x + y, weight, eps)


def rotate_and_write(
    new: Tensor, num_keys: int, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, rows: Tensor
) -> Tensor:
    """Do as models.kernels.small_steps does, in torch's operations."""
    turned = new * cos + new.roll(new.shape[-1] // 2, -1) * sin
    for store, heads in ((keys, turned[:, -2 * num_keys : -num_keys]), (values, new[:, -num_keys:])):
        store.view(-1, store.shape[-1])[rows] = heads.flatten(0, 2)
    return turned[:, : -2 * num_keys].contiguous()


def _draw_tokens(
    logits: Tensor, temperatures: Tensor, top_k: Tensor, seeds: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    kind: Kind = "likeliest" if not temperatures.any() else "filtered" if top_k.any() else "drawn"
    columns = (column[:, None] for column in (seeds, temperatures, top_k, torch.ones_like(temperatures)))
    return choose_in_torch(logits, Draws(kind, *columns, most_k=0, is_cut=False), places)


# What the kernels of models/kernels/small_steps.py do, by name.
SMALL_STEPS: dict[str, Callable[..., Any]] = {
    "rms_norm": rms_norm,
    "add_rms_norm": _add_rms_norm,
    "silu_product": lambda gate, up: F.silu(gate) * up,
    "rotate_and_write": rotate_and_write,
}


@contextmanager
def make_believe(capability: tuple[int, int] = (9, 0)) -> Iterator[None]:
    """Have a GPU, cuda:0, of a compute capability; what is made in here must not be used outside."""
    lifts_cpu = torch._C._only_lift_cpu_tensors()
    with device_guard(), torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        pretend_gpu(patch, capability)
        patch.setattr(F, "scaled_dot_product_attention", one_launch("attention", F.scaled_dot_product_attention))
        patch.setattr(attention, "attend_rows", _attend_rows)
        patch.setattr(experts, "add_mixture", _add_mixture)
        for name, in_torch in SMALL_STEPS.items():
            patch.setattr(small_steps, name, one_launch(name, in_torch))
        patch.setattr(draw, "draw_tokens", one_launch("draw_tokens", _draw_tokens))
        patch.setattr(engine, "record_cuda_graph", _record)
        patch.setattr(torch, "inference_mode", torch.no_grad)
        for kind, name in UNDER_INFERENCE_MODE:
            patch.setattr(kind, name, unwrap(getattr(kind, name)))
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") then copies, and is seen
        try:
            with CudaMode():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts_cpu)
            forget_pinned()
