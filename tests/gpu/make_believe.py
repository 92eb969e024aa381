"""A make-believe CUDA for a torch without one: the numbers are right, and what a GPU would see is counted.

A `CudaTensor` says that it lies on cuda:0 and keeps its numbers on the CPU. Whatever is done with one passes through
`_run`, so the product takes its own branches for GPUs (`is_cuda`, `device.type`) and a `Log` tells of every kernel that
would be launched, every copy to the device and every time the host would wait, with the product's line.

What it does not know: times, streams, how a GPU's kernels round, and what a kernel of torch launches within itself.
"""

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from inspect import unwrap
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from models import layers
from models.aria.moe import choose_experts
from models.emu3.model import Emu3Model
from models.engine import engine
from models.engine.engine import Engine
from models.layers import rms_norm
from models.sampler import Draws, Kind, choose_in_torch

attention: Any = pytest.importorskip("models.kernels.attention", reason="Triton, for our kernels, is not installed")
experts: Any = pytest.importorskip("models.kernels.experts", reason="Triton, for our kernels, is not installed")
draw: Any = pytest.importorskip("models.kernels.draw", reason="Triton, for our kernels, is not installed")
small_steps: Any = pytest.importorskip("models.kernels.small_steps", reason="Triton, for our kernels, is not installed")

CUDA = torch.device("cuda:0")
MEMORY = 2**37  # that it says it has, all of it free
LAUNCH, COPY, WAIT = "launch", "copy", "wait"
# A pageable copy to the device waits for it as well: the host's memory must have been read before it may change.
WAITING = (COPY, WAIT)

# Their results' shapes or values are needed on the host.
READ_BY_HOST = {
    "_local_scalar_dense", "nonzero", "bincount", "equal", "masked_select", "unique_consecutive", "_unique2",
    "repeat_interleave",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Beside views, what launches nothing.
ALLOCATING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}
# Methods under torch.inference_mode, whose tensors can be no part of a tensor of our own.
UNDER_INFERENCE_MODE = ((Engine, "step"), (Emu3Model, "decode_picture"))


@dataclass(frozen=True)
class Seen:
    """One thing that a GPU would see.

    Attributes:
        kind: LAUNCH, COPY or WAIT.
        name: The operation.
        line: The product's line that asks for it.
        shapes: Of the tensors that a launch is given.
    """

    kind: str
    name: str
    line: str
    shapes: tuple[tuple[int, ...], ...] = ()


@dataclass
class Log:
    """What a GPU would see, in order."""

    seen: list[Seen] = field(default_factory=list)

    @property
    def num_launches(self) -> int:
        """How many kernels are launched."""
        return sum(one.kind == LAUNCH for one in self.seen)

    def waits(self) -> Counter[str]:
        """Count by line and operation how often the host waits."""
        return Counter(f"{one.line} {one.name}" for one in self.seen if one.kind in WAITING)

    def launches(self) -> Counter[str]:
        """Count launches by line and operation."""
        return Counter(f"{one.line} {one.name}" for one in self.seen if one.kind == LAUNCH)


_logs: list[Log] = []
_pinned: set[int] = set()  # where pinned memory of the host begins


def _note(kind: str, name: str, given: Any = ()) -> None:
    if _logs:
        shapes = tuple(tuple(one.shape) for one in _tensors(given))
        for log in _logs:
            log.seen.append(Seen(kind, name, _line(), shapes))


def _line() -> str:
    """Return the innermost line of the product, as engine/engine.py:210."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if file := _file(frame.f_code.co_filename):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


@cache
def _file(path: str) -> str:
    """Return a file's path below `models`, or nothing for one of another room."""
    folder, _, file = path.rpartition("/models/")
    return "" if "site-packages" in folder or folder.endswith("/tests") else file if folder else ""


class CudaTensor(Tensor):
    """A tensor that says it lies on a GPU; `numbers` has what it holds, on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "CudaTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=CUDA,
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})

    def tolist(self) -> Any:
        _note(WAIT, "tolist")
        return self.numbers.tolist()

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"CudaTensor({tuple(self.shape)}, {self.dtype})"


def _tensors(given: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments, those in lists too."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (list, tuple)):
        for one in given:
            yield from _tensors(one)
    elif isinstance(given, dict):
        yield from _tensors(list(given.values()))


def _mapped(change: Callable[[Tensor], Tensor], given: Any) -> Any:
    """Return arguments or results with their tensors changed."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, (list, tuple)):
        return type(given)([_mapped(change, one) for one in given])
    return {name: _mapped(change, one) for name, one in given.items()} if isinstance(given, dict) else given


def _inside(tensor: Tensor) -> Tensor:
    return tensor.numbers if isinstance(tensor, CudaTensor) else tensor


def _run(op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Do an operation on the CPU, and note what it would be on a GPU."""
    name, device = op.overloadpacket.__name__, kwargs.get("device")
    given = list(_tensors((args, kwargs)))
    owners = {id(one.numbers): one for one in given if isinstance(one, CudaTensor)}
    goes_to = None if device is None else torch.device(device).type
    is_there = goes_to == "cuda" or (bool(owners) and goes_to != "cpu")
    if owners or is_there:
        _note_operation(op, name, args, kwargs, is_there)
    plain = _mapped(_inside, kwargs)
    if device is not None:
        plain["device"] = torch.device("cpu")
    if name in ("_pin_memory", "is_pinned"):  # without an accelerator torch pins nothing
        return _pin(args[0].clone()) if name == "_pin_memory" else _is_pinned(args[0])
    is_pinned = plain.pop("pin_memory", None) is True
    out = KERNELS.get(name, op)(*_mapped(_inside, list(args)), **plain)
    if is_pinned:
        _pin(out)
    if not is_there:
        return out
    if name == "_to_copy" and out is _inside(args[0]):
        out = out.clone()
    return _mapped(lambda one: owners[id(one)] if id(one) in owners else CudaTensor(one), out)


def _note_operation(op: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], is_there: bool) -> None:
    if name == "_to_copy":
        _note_copy(name, args[0], is_there, args[0], bool(kwargs.get("non_blocking")))
        return
    if name == "copy_":
        target, source, is_async = (*args, False)[:3]
        host = target if isinstance(source, CudaTensor) else source
        _note_copy(name, source, isinstance(target, CudaTensor), host, is_async)
        return
    if name in READ_BY_HOST:
        _note(WAIT, name)
    beside = [one for one in _tensors((args, kwargs)) if not isinstance(one, CudaTensor) and one.dim()]
    if name in INDEXING:
        _note_indices(name, args[1])
        beside = [one for one in beside if all(one is not index for index in args[1])]
    if beside:
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found cuda:0 and cpu")
    if not (op.is_view or name in ALLOCATING or name == "_local_scalar_dense"):
        _note(LAUNCH, name, args)


def _note_copy(name: str, source: Tensor, goes_there: bool, host: Tensor, is_async: bool) -> None:
    """Note a copy: within the GPU a launch; to or from the host's memory a wait, unless that is pinned."""
    if isinstance(source, CudaTensor) and goes_there:
        _note(LAUNCH, name, source)
    elif isinstance(host, CudaTensor) or not (is_async and _is_pinned(host)):
        _note(COPY if goes_there else WAIT, name)


def _note_indices(name: str, indices: Sequence[Tensor | None]) -> None:
    for index in indices:
        if index is not None and not isinstance(index, CudaTensor):
            _note(COPY, f"{name} by an index on the CPU")
        elif index is not None and index.dtype in (torch.bool, torch.uint8):
            _note(WAIT, f"{name} by a mask")


def _pin(tensor: Tensor) -> Tensor:
    _pinned.add(tensor.untyped_storage().data_ptr())
    return tensor


def _is_pinned(tensor: Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in _pinned


class _Event:
    """A mark in the stream; whoever waits for it may have work on its way behind it, but waits."""

    def record(self) -> None:
        """Set it."""

    def synchronize(self) -> None:
        _note(WAIT, "event")


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


def one_launch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is one kernel on a GPU: run on the numbers, noted as one launch."""

    def launch(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(one, CudaTensor) for one in _tensors((args, kwargs))):
            return function(*args, **kwargs)
        _note(LAUNCH, name, (args, kwargs))
        return _mapped(CudaTensor, function(*_mapped(_inside, list(args)), **_mapped(_inside, kwargs)))

    return launch


def _attend_rows(
    query: Tensor, keys: Tensor, values: Tensor, head_strides: Tensor, ends: Tensor, *, num_heads: int, most: int
) -> Tensor:
    """Do as models.kernels.attention does with its two launches, row by row with torch's operations."""
    _note(LAUNCH, "attend_rows", (query, ends))
    _note(LAUNCH, "attend_rows", (query, ends))
    query, keys, values, head_strides, ends = map(_inside, (query, keys, values, head_strides, ends))
    found = []
    for row, own in enumerate(ends):
        size, stride = min(int(own.max()), most), int(head_strides[row])
        places = [_at(int(table[row]), num_heads, stride, size, query) for table in (keys, values)]
        seen = torch.arange(size) < own[:, None]
        found.append(F.scaled_dot_product_attention(query[row], *places, attn_mask=seen, enable_gqa=True).nan_to_num())
    return CudaTensor(torch.stack(found).transpose(1, 2).flatten(2))


def _add_mixture(
    x: Tensor,
    normed: Tensor,
    scores: Tensor,
    num_chosen: int,
    fc1: Tensor,
    fc2: Tensor,
    shared: Tensor,
    *,
    few_rows: bool,
) -> Tensor:
    """Do as models.kernels.experts does with its four launches, pair by pair with torch's operations."""
    for _ in range(4):
        _note(LAUNCH, "add_mixture", (x, scores))
    x, normed, scores, fc1, fc2, shared = map(_inside, (x, normed, scores, fc1, fc2, shared))
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


def _flash(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor | int, ...]:
    """Attend as torch's flash attention does where it is causal: the last query sees all keys.

    Of what it returns beside, nothing is looked at.
    """
    T, S = query.shape[2], key.shape[2]
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    out, none = F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True), torch.empty(0)
    return out, none, none, none, T, S, none, none, none


# What a CPU has no kernel for.
KERNELS: dict[str, Callable[..., Any]] = {"_scaled_dot_product_flash_attention": _flash}


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
            with _Mode():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts_cpu)
            _pinned.clear()


@contextmanager
def watched() -> Iterator[Log]:
    """Log what a GPU sees meanwhile."""
    log = Log()
    _logs.append(log)
    try:
        yield log
    finally:
        _logs.remove(log)
