"""Attention that reads keys and values where they lie, each row's by its own length: on GPUs that have the kernel.

Elsewhere sequences are read behind a mask, up to a common length, and memories one after the other. What this file says
needs no Triton; the kernel itself is imported by who uses it (models/kernels).

Shapes: B rows, T tokens, H query heads, K key heads, C head width, S places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.devices import to_device
from models.kernels import has_kernels


@dataclass(frozen=True)
class Tables:
    """Where the keys and values of B rows lie, in one layer.

    Attributes:
        keys: int64 (B,), the address of each row's first key; places are C numbers apart.
        values: int64 (B,), of its first value.
        head_strides: int64 (B,), how many numbers lie between one head's first key and the next one's.
    """

    keys: Tensor
    values: Tensor
    head_strides: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """All of it."""
        return self.keys, self.values, self.head_strides

    def rows(self, some: slice | Tensor) -> "Tables":
        """Return those of some rows, given as neighbours or by their numbers."""
        return Tables(self.keys[some], self.values[some], self.head_strides[some])


def reads_in_place(device: torch.device) -> bool:
    """Whether attention on a device reads in place."""
    return device.type == "cuda" and has_kernels()


def tables(keys: Sequence[Tensor] | Tensor, values: Sequence[Tensor] | Tensor) -> Tables:
    """Return where the keys and values (K, S, C) of each of several rows lie, on the device of the first.

    Whoever uses it keeps them alive.
    """
    rows = [
        [key.data_ptr() for key in keys],
        [value.data_ptr() for value in values],
        [key.stride(0) for key in keys],
    ]
    return Tables(*to_device(torch.tensor(rows), keys[0].device))


def attend_in_place(query: Tensor, found: Tables, ends: Tensor, num_heads: int, most: int) -> Tensor:
    """Let queries (B, H, T, C) see the first `ends` (B, T) places of their rows; return (B, T, H * C).

    Args:
        query: In the type of the keys.
        found: Where they lie.
        ends: int64; who sees none gets zeros.
        num_heads: K.
        most: None sees more; the launches depend on it, and not on `ends`.
    """
    from models.kernels.attention import attend_rows

    return attend_rows(query, found.keys, found.values, found.head_strides, ends, num_heads=num_heads, most=most)
