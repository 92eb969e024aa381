"""What a GPU does with single operations and layers of full size; and how everything on it is timed and printed."""

import json
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.aria.config import TextConfig
from models.aria.moe import MixtureOfExperts
from models.batch_invariant import RepacksWeights
from models.layers import attend
from tests.gpu.released import released_model

DEVICE = torch.device("cuda:0")


def line(name: str, **numbers: Any) -> None:
    """Print one measurement."""
    print(json.dumps({"name": name, **numbers}), flush=True)


@contextmanager
def measuring(name: str) -> Iterator[None]:
    """Print what goes wrong meanwhile as a line, and go on with what follows."""
    try:
        yield
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        line(name, error=f"{type(error).__name__}: {str(error)[:300]}", at=f"{at.filename}:{at.lineno}")
        torch.cuda.empty_cache()


def seconds_of(work: Callable[[], Any], rounds: int = 5) -> float:
    """Return the median seconds of some work, the device's included, after a round that does not count."""
    taken = []
    for _ in range(1 + rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def kernels_of(work: Callable[[], Any]) -> tuple[Counter[str], float]:
    """Return the kernels that some work launches, counted by name, and the seconds in which the device is busy."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        work()
        torch.cuda.synchronize()
    found, busy = Counter[str](), 0.0
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name] += 1
            busy += event.device_time_total / 1e6
    return found, busy


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Return random numbers on the device; zeros would be faster than real ones."""
    return torch.randn(shape, device=DEVICE, dtype=dtype)


def machine() -> None:
    """What the machine is, and the two ceilings: bytes and bfloat16 products a second."""
    with measuring("machine"):
        gpu = torch.cuda.get_device_properties(DEVICE)
        line("machine", gpu=gpu.name, capability=torch.cuda.get_device_capability(DEVICE),
             gib=round(gpu.total_memory / 2**30, 1), torch=torch.__version__, cuda=torch.version.cuda,
             cudnn=torch.backends.cudnn.version(), python=sys.version.split()[0])  # fmt: skip
    with measuring("copy"):
        source, target = drawn(2**30), drawn(2**30)
        line("copy", tb_s=2 * source.nbytes / seconds_of(lambda: target.copy_(source)) / 1e12)
    with measuring("product"):
        left, right = drawn(8192, 8192), drawn(8192, 8192)
        line("product", tflop_s=2 * 8192**3 / seconds_of(lambda: left @ right) / 1e12)


@dataclass(frozen=True)
class Attention:
    """A case of attention in the product: B sequences, H and K heads, T tokens that see S places, C numbers a head."""

    name: str
    B: int
    H: int
    K: int
    T: int
    S: int
    C: int = 128
    is_masked: bool = False

    def call(self) -> Callable[[], Tensor]:
        """Make its tensors; return what attends."""
        query = drawn(self.B, self.H, self.T, self.C)
        key, value = (drawn(self.B, self.K, self.S, self.C) for _ in range(2))
        mask = None
        if self.is_masked:
            lengths = torch.randint(self.S // 2, self.S, (self.B, 1, 1, 1), device=DEVICE)
            mask = (torch.arange(self.S, device=DEVICE) < lengths).expand(-1, -1, self.T, -1)
        return partial(attend, query, key, value, mask)


ATTENTIONS = (
    Attention("decode of 64 Emu3 at 4,096", 64, 32, 8, 1, 4096, is_masked=True),
    Attention("decode of 64 Emu3 at 8,192", 64, 32, 8, 1, 8192, is_masked=True),
    Attention("decode of 256 Aria at 512", 256, 20, 20, 1, 512, is_masked=True),
    Attention("prefill of 13 x 304", 13, 32, 8, 304, 304),
    Attention("prefill of 4,096", 1, 32, 8, 4096, 4096),
    Attention("chunk of 4,096 behind 4,096", 1, 32, 8, 4096, 8192),
    Attention("choices of 64, 32 tokens each", 64, 32, 8, 32, 1024, is_masked=True),
)
NEW_SHAPES = 20


def attention() -> None:
    """Which kernels attend, how fast they read, and what the first call of a new shape costs with cuDNN and without."""
    for has_cudnn in (False, True):
        torch.backends.cuda.enable_cudnn_sdp(has_cudnn)
        for case in ATTENTIONS:
            with measuring(f"{case.name}, cuDNN {has_cudnn}"):
                call = case.call()
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                seconds = seconds_of(call)
                read = 2 * case.B * case.K * case.S * case.C * 2
                line(case.name, cudnn=has_cudnn, ms=seconds * 1e3, gb_s=read / seconds / 1e9,
                     beside_mib=(torch.cuda.max_memory_allocated() - before) / 2**20,
                     kernels=[name[:60] for name in kernels_of(call)[0]])  # fmt: skip
        for name, case in (("decode", ATTENTIONS[0]), ("prefill", ATTENTIONS[3])):
            with measuring(f"first calls, {name}, cuDNN {has_cudnn}"):
                first = []
                for number in range(NEW_SHAPES):
                    longer = 64 * number
                    call = replace(case, S=case.S + longer, T=case.T + (longer if case.T > 1 else 0)).call()
                    torch.cuda.synchronize()
                    started = time.perf_counter()
                    call()
                    torch.cuda.synchronize()
                    first.append((time.perf_counter() - started) * 1e3)
                line(f"first calls, {name}", cudnn=has_cudnn, median_ms=statistics.median(first), most_ms=max(first))
    torch.backends.cuda.enable_cudnn_sdp(False)
    with measuring("decode by own lengths"):
        own_lengths(ATTENTIONS[0])


def own_lengths(case: Attention) -> None:
    """Time flash attention over a cache (slots, length, K, C) that reads to each sequence's own length."""
    B, S = case.B, case.S
    query = drawn(B, case.H, case.C)
    key, value = (drawn(B * S, case.K, case.C) for _ in range(2))
    lengths = torch.randint(S // 2, S, (B,), device=DEVICE, dtype=torch.int32)
    starts = torch.arange(B + 1, device=DEVICE, dtype=torch.int32)
    call = partial(
        torch.ops.aten._flash_attention_forward, query, key, value, starts, starts * S, 1, S, 0.0, False, False,
        seqused_k=lengths,
    )  # fmt: skip
    seconds = seconds_of(call)
    read = 2 * int(lengths.sum()) * case.K * case.C * 2
    line("decode by own lengths", ms=seconds * 1e3, gb_s=read / seconds / 1e9)


EXPERT_ROWS = (64, 256, 4096)


def experts() -> None:
    """Aria's experts: a decode step's and a prefill's rows, in both half precisions; whether a graph can hold them.

    The shared ones are among them.
    """
    config = released_model("aria").config.text
    for dtype in (torch.bfloat16, torch.float16):
        with torch.device("meta"):
            layer = MixtureOfExperts(config)
        read = sum(one.numel() for one in layer.parameters()) * dtype.itemsize
        randomise(layer, lambda _, dtype=dtype: dtype)
        kind = str(dtype).removeprefix("torch.")
        calls = [routed(layer, config, count, dtype) for count in EXPERT_ROWS]
        for count, call in zip(EXPERT_ROWS, calls, strict=True):
            with measuring(f"experts for {count} tokens in {kind}"):
                seconds = seconds_of(call)
                line(f"experts for {count} tokens in {kind}", ms=seconds * 1e3, gb_s=read / seconds / 1e9,
                     launches=kernels_of(call)[0].total())  # fmt: skip
        with measuring(f"experts in a graph in {kind}"):
            line(f"experts in a graph in {kind}", ms=seconds_of(captured(calls[0])) * 1e3)


def routed(layer: MixtureOfExperts, config: TextConfig, count: int, dtype: torch.dtype) -> Callable[[], Any]:
    """Return what sends tokens through a mixture, one of each sequence or many of one; random ones choose evenly."""
    rows = (1, count) if count == max(EXPERT_ROWS) else (count, 1)
    return torch.no_grad()(partial(layer.add_to, *drawn(2, *rows, config.hidden_size, dtype=dtype)))


def captured(call: Callable[[], Any]) -> Callable[[], None]:
    """Capture a call in a graph; return what replays it."""
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def randomise(module: nn.Module, dtype: Callable[[str], torch.dtype]) -> None:
    """Give a module random weights on the device, and lay them out as loading does.

    Args:
        module: Of any device, `meta` too.
        dtype: By a parameter's name.
    """
    for name, parameter in list(module.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        there = torch.empty(parameter.shape, dtype=dtype(name), device=DEVICE).normal_(std=0.02)
        setattr(module.get_submodule(owner), leaf, nn.Parameter(there, requires_grad=False))
    for part in module.modules():
        if isinstance(part, RepacksWeights):
            part.repack_weights()
