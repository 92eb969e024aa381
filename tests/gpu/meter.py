"""Count the bytes that a make-believe GPU would hold, now and at most, and answer for torch.cuda with them."""

import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Meter(TorchDispatchMode):
    """Bytes of the tensors on CUDA that are made while it is on, until they are gone.

    Attributes:
        now: Those that are there.
        most: The most that were since `most` was last set.
    """

    def __init__(self, total: int, there: Iterable[Tensor]) -> None:
        """Start.

        Args:
            total: Bytes of the GPU.
            there: What lies on it already.
        """
        super().__init__()
        self.now = self.most = 0
        self._total = total
        self._held: set[int] = set()
        for tensor in there:
            self._add(tensor.untyped_storage())

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = [*args[1:], *kwargs.values()]
        is_copy = op.overloadpacket in (torch.ops.aten.to, torch.ops.aten._to_copy) and args[0].device.type == "cpu"
        if is_copy and any(isinstance(one, torch.device) and one.type == "cuda" for one in asked):
            # Real numbers cannot be copied to where there are only shapes.
            dtype = next((one for one in asked if isinstance(one, torch.dtype)), args[0].dtype)
            out = torch.empty(args[0].shape, dtype=dtype, device="cuda")
        else:
            out = op(*args, **kwargs)
        for one in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(one, Tensor) and one.device.type == "cuda":
                self._add(one.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name in self._held:
            return
        self._held.add(name)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, name, size)

    def _drop(self, name: int, size: int) -> None:
        self._held.discard(name)
        self.now -= size

    def answer(self, patch: pytest.MonkeyPatch) -> None:
        """Let torch.cuda say what is counted here."""
        patch.setattr(torch.cuda, "memory_allocated", lambda _: self.now)
        patch.setattr(torch.cuda, "memory_reserved", lambda _: self.now)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda _: self.most)
        patch.setattr(torch.cuda, "mem_get_info", lambda _: (self._total - self.now, self._total))
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: setattr(self, "most", self.now))
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
