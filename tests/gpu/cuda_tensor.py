"""A tensor that says it lies on a GPU: its numbers lie on the CPU, and whatever is done with them is noted."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from tests.gpu.seen import COPY, LAUNCH, WAIT, note, tensors_in

CUDA = torch.device("cuda:0")

# Their results' shapes or values are needed on the host.
READ_BY_HOST = {
    "_local_scalar_dense", "nonzero", "bincount", "equal", "masked_select", "unique_consecutive", "_unique2",
    "repeat_interleave",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Beside views, what launches nothing.
ALLOCATING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}

_pinned: set[int] = set()  # where pinned memory of the host begins


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
        note(WAIT, "tolist")
        return self.numbers.tolist()

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self) -> str:
        return f"CudaTensor({tuple(self.shape)}, {self.dtype})"


def mapped(change: Callable[[Tensor], Tensor], given: Any) -> Any:
    """Return arguments or results with their tensors changed."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, (list, tuple)):
        return type(given)([mapped(change, one) for one in given])
    return {name: mapped(change, one) for name, one in given.items()} if isinstance(given, dict) else given


def inside(tensor: Tensor) -> Tensor:
    return tensor.numbers if isinstance(tensor, CudaTensor) else tensor


def _run(op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Do an operation on the CPU, and note what it would be on a GPU."""
    name, device = op.overloadpacket.__name__, kwargs.get("device")
    if name in ("_pin_memory", "is_pinned"):  # without an accelerator torch pins nothing
        return _pin(args[0].clone()) if name == "_pin_memory" else _is_pinned(args[0])
    owners = {id(one.numbers): one for one in tensors_in((args, kwargs)) if isinstance(one, CudaTensor)}
    goes_to = None if device is None else torch.device(device).type
    is_there = goes_to == "cuda" or (bool(owners) and goes_to != "cpu")
    if not owners and not is_there:
        out = op(*args, **kwargs | {"pin_memory": False} if "pin_memory" in kwargs else kwargs)
        return _pin(out) if kwargs.get("pin_memory") is True else out
    _note_operation(op, name, args, kwargs, is_there)
    plain = mapped(inside, kwargs)
    if device is not None:
        plain["device"] = torch.device("cpu")
    is_pinned = plain.pop("pin_memory", None) is True
    out = KERNELS.get(name, op)(*mapped(inside, list(args)), **plain)
    if is_pinned:
        _pin(out)
    if not is_there:
        return out
    if name == "_to_copy" and out is inside(args[0]):
        out = out.clone()
    return mapped(lambda one: owners[id(one)] if id(one) in owners else CudaTensor(one), out)


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
        note(WAIT, name)
    beside = [one for one in tensors_in((args, kwargs)) if not isinstance(one, CudaTensor) and one.dim()]
    if name in INDEXING:
        _note_indices(name, args[1])
        beside = [one for one in beside if all(one is not index for index in args[1])]
    if beside:
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found cuda:0 and cpu")
    if not (op.is_view or name in ALLOCATING or name == "_local_scalar_dense"):
        note(LAUNCH, name, args)


def _note_copy(name: str, source: Tensor, goes_there: bool, host: Tensor, is_async: bool) -> None:
    """Note a copy: within the GPU a launch; to or from the host's memory a wait, unless that is pinned."""
    if isinstance(source, CudaTensor) and goes_there:
        note(LAUNCH, name, source)
    elif isinstance(host, CudaTensor) or not (is_async and _is_pinned(host)):
        note(COPY if goes_there else WAIT, name)


def _note_indices(name: str, indices: Sequence[Tensor | None]) -> None:
    for index in indices:
        if index is not None and not isinstance(index, CudaTensor):
            note(COPY, f"{name} by an index on the CPU")
        elif index is not None and index.dtype in (torch.bool, torch.uint8):
            note(WAIT, f"{name} by a mask")


def _pin(tensor: Tensor) -> Tensor:
    _pinned.add(tensor.untyped_storage().data_ptr())
    return tensor


def forget_pinned() -> None:
    """Let no address of pinned memory be known any more."""
    _pinned.clear()


def _is_pinned(tensor: Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in _pinned


class CudaMode(TorchDispatchMode):
    """Let whatever is made meanwhile lie where it is asked for."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


def one_launch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is one kernel on a GPU: run on the numbers, noted as one launch."""

    def launch(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(one, CudaTensor) for one in tensors_in((args, kwargs))):
            return function(*args, **kwargs)
        note(LAUNCH, name, (args, kwargs))
        with _disable_current_modes():  # what it does within is no launch
            out = function(*mapped(inside, list(args)), **mapped(inside, kwargs))
        return mapped(CudaTensor, out)

    return launch


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
