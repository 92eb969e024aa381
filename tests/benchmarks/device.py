"""Models of full size on one GPU, ten minutes in all: `python -m tests.benchmarks device`.

Weights are drawn at random on the device, so that nothing has to be brought there. Each section is a process of its
own: one that fails or hangs costs itself alone. Each measurement is a line of JSON that is printed as soon as it is
there; one that fails is a line with its error.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import Family, Sampling
from models.aria.config import TextConfig
from models.aria.moe import MixtureOfExperts
from models.batch_invariant import RepacksWeights
from models.capacity.room import choose_slots
from models.engine import Engine, Sequence
from models.layers import attend
from models.llama import FamilyModel
from models.types import ModelInput
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


def random_model(family: Family) -> FamilyModel:
    """Return a model of full size on the device, as `load_model` leaves one."""
    model = released_model(family)
    torch.backends.cuda.enable_cudnn_sdp(False)
    randomise(model, lambda name: torch.float32 if name.startswith(model.FLOAT32) else torch.bfloat16)
    return model.eval()


@dataclass(frozen=True)
class Decoding:
    """So many sequences with prompts of so many tokens, that are decoded side by side."""

    rows: int
    length: int
    sampling: Sampling


TEXT = Sampling(max_new_tokens=200)
DRAWING = Sampling(temperature=1.0, top_k=2048, guidance_scale=3.0)
DECODINGS: dict[Family, tuple[Decoding, ...]] = {
    "aria": (Decoding(64, 400, TEXT), Decoding(256, 400, TEXT), Decoding(64, 2000, TEXT)),
    "mllama": (Decoding(64, 60, TEXT), Decoding(64, 500, TEXT)),
    "emu3": (Decoding(64, 500, TEXT), Decoding(32, 4000, DRAWING), Decoding(48, 4000, DRAWING)),
}
GRID, PICTURE = (60, 60), (90, 90)  # codes of a picture that is drawn behind a long prompt; of 720 x 720 pixels
LENGTH = 2048


def question(family: Family, model: Any, case: Decoding, number: int) -> Sequence:
    """Return one question of a case; an Mllama's has a picture of its own with the most tiles."""
    random, text = np.random.default_rng(number), model.config.text
    ids = random.integers(text.vocab_size // 100, text.vocab_size // 4, case.length).astype(np.int32)
    if case.sampling.guidance_scale != 1:
        num_tokens = GRID[0] * (GRID[1] + 1) + 3
        given = ModelInput("", ids, layout=GRID, negative=ids[:100], num_new_tokens=num_tokens)
    elif family == "mllama":
        ids[0] = model.config.image_token_index
        tiles, ratio_id = largest_picture(model, number)
        given = ModelInput("", ids, tuple(tiles), (ratio_id,), 1, (str(number),))
    else:
        given = ModelInput("", ids)
    return Sequence(str(number), given, case.sampling)


def drawn_tiles(count: int, side: int, seed: int = 0) -> list[Any]:
    """Return tiles of random pixels."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 255, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def largest_picture(model: Any, seed: int) -> tuple[list[Any], int]:
    """Return the tiles of an Mllama's largest picture, and the id of its grid."""
    vision = model.config.vision
    grids = [rows * columns for rows, columns in vision.aspect_ratios]
    return drawn_tiles(max(grids), vision.image_size, seed), 1 + grids.index(max(grids))


def decode(family: Family, model: FamilyModel, case: Decoding, num_steps: int = 20) -> None:
    """Time the first step of an engine, with all prompts and pictures, then its decoding and what that leaves idle."""
    branches = case.rows * (2 if case.sampling is DRAWING else 1)
    max_length = min(
        model.max_position_embeddings, case.length + 3800 if case.sampling is DRAWING else case.length + 256
    )
    engine = Engine(model, slots=branches, max_length=max_length)
    sequences = [question(family, model, case, number) for number in range(case.rows)]
    for sequence in sequences:
        engine.submit(sequence)
    torch.cuda.synchronize()
    started = time.perf_counter()
    engine.step()
    torch.cuda.synchronize()
    first = time.perf_counter() - started
    for _ in range(5):
        engine.step()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(num_steps):
        engine.step()
    torch.cuda.synchronize()
    step = (time.perf_counter() - started) / num_steps
    kernels, busy = kernels_of(engine.step)
    errors = [str(one.error) for one in sequences if one.error]
    line(f"{family}: decode of {branches} branches behind {case.length} tokens", ms=step * 1e3,
         tokens_s=case.rows / step, launches=kernels.total(), idle=max(0.0, 1 - busy / step),
         first_step_s=first, prompt_tokens_s=case.rows * case.length / first,
         out_of_memory=engine.num_out_of_memory, errors=errors[:1])  # fmt: skip


def family_section(family: Family) -> None:
    """A family's decoding, and what it does with one picture at a time."""
    with torch.inference_mode():
        model = random_model(family)
        line(f"{family}: weights", gib=sum(one.nbytes for one in model.parameters()) / 2**30)
        for case in DECODINGS[family]:
            with measuring(f"{family}: {case}"):
                decode(family, model, case)
            torch.cuda.empty_cache()
        for name, work in pictures(family, model).items():
            with measuring(f"{family}: {name}"):
                line(f"{family}: {name}", ms=seconds_of(work, 3) * 1e3)


def pictures(family: Family, model: Any) -> dict[str, Callable[[], Any]]:
    """Return what a family does with pictures, by what it is."""
    if family == "aria":
        large, small = sorted(model.config.patch_to_query, reverse=True)[:2]
        patch = model.config.vision.patch_size
        return {
            f"encode of {count} x {isqrt(patches) * patch}": partial(
                model.encode, drawn_tiles(count, isqrt(patches) * patch), model.config.patch_to_query[patches]
            )
            for count, patches in ((4, large), (16, small))
        }
    if family == "mllama":
        return {"encode of 4 of the largest pictures": partial(model.encode, [largest_picture(model, 0)] * 4)}
    vocabulary, factor, (rows, columns) = model.config.vocabulary, model.config.vision.spatial_factor, PICTURE
    codes = np.random.default_rng(0).integers(0, model.config.vision.codebook_size, PICTURE) + vocabulary.first_visual
    ids = [*np.pad(codes, ((0, 0), (0, 1))).flatten().tolist(), 0, 0, 0]
    return {
        f"encode of {rows * factor}": partial(model.encode, drawn_tiles(1, rows * factor)),
        f"paint of {rows * factor}": partial(model.decode_picture, (rows, columns), ids),
    }


def memory() -> None:
    """Start the engine of caption_aria.yaml as on 80 GB: how many slots it gets, and whether they hold."""
    torch.cuda.set_per_process_memory_fraction(min(1.0, 79.1 * 2**30 / torch.cuda.mem_get_info()[1]))
    with measuring("slots of Aria on 80 GB"), torch.inference_mode():
        model: Any = random_model("aria")
        share = min(1.0, 79.1 * 2**30 / torch.cuda.mem_get_info()[1])
        slots, why = choose_slots(model, None, LENGTH, share=share)
        line("slots of Aria on 80 GB", slots=slots, why=why)
        decode("aria", model, Decoding(slots, min(1800, LENGTH - 256), TEXT))


# By name, with the seconds that each may take.
SECTIONS: dict[str, tuple[Callable[[], None], int]] = {
    "machine": (machine, 60),
    "attention": (attention, 90),
    "emu3": (partial(family_section, "emu3"), 120),
    "aria": (partial(family_section, "aria"), 120),
    "mllama": (partial(family_section, "mllama"), 90),
    "experts": (experts, 60),
    "memory": (memory, 90),
}


def main() -> None:
    """Run all sections, or those that are named, one after the other."""
    parser = argparse.ArgumentParser(description="Measure models of full size on one GPU.")
    parser.add_argument(
        "sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all if none is named"
    )
    parser.add_argument("--seconds", type=float, default=570, help="for all together")
    parser.add_argument("--here", action="store_true", help="in this process, without limits")
    given = parser.parse_args()
    if unknown := set(given.sections) - SECTIONS.keys():
        parser.error(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(SECTIONS)}")
    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU here: nothing is measured")
    began = time.monotonic()
    for name in given.sections or SECTIONS:
        section, most = SECTIONS[name]
        if given.here:
            section()
            continue
        left = given.seconds - (time.monotonic() - began)
        if left < 20:
            line(name, error=f"left out: of {given.seconds:.0f} seconds {left:.0f} are left")
            continue
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks", "device", name, "--here"], timeout=min(left, most)
            )
            if done.returncode:
                line(name, error=f"ended with exit code {done.returncode}")
        except subprocess.TimeoutExpired as expired:
            line(name, error=f"not done after {expired.timeout:.0f} seconds")


if __name__ == "__main__":
    main()
