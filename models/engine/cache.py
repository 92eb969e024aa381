"""The keys and values of every running sequence, allocated once.

A sequence owns a slot: one row of each layer's static tensors. Running sequences always own the first slots, so
that a decode step sees one contiguous view and nothing is gathered. Position p of a sequence lies at place p of
its slot; whatever lies behind its length is left over from somebody else and masked.

Shapes: B sequences, T tokens, S places attended to, K key heads, C head width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Places attended to come in multiples of this, so that shapes recur: kernels and their rounding depend on them.
EXTENT = 64


@dataclass(frozen=True)
class CacheShape:
    """What one token leaves in the cache: `num_layers` times a key and a value of (num_heads, head_dim)."""

    num_layers: int
    num_heads: int
    head_dim: int
    dtype: torch.dtype


class Cache:
    """Keys and values (num_layers, slots, K, length, C); `length` is max_length rounded up to whole extents."""

    def __init__(self, shape: CacheShape, slots: int, max_length: int, device: torch.device) -> None:
        length = -(-max_length // EXTENT) * EXTENT
        size = (shape.num_layers, slots, shape.num_heads, length, shape.head_dim)
        # Zeros, not empty: a masked place has weight 0, and 0 times an accidental NaN is NaN (see `clear`).
        self.keys = torch.zeros(size, dtype=shape.dtype, device=device)
        self.values = torch.zeros(size, dtype=shape.dtype, device=device)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` places of one slot to another."""
        for store in (self.keys, self.values):
            store[:, target, :, :length] = store[:, source, :, :length]

    def clear(self, slot: int) -> None:
        """Forget a slot whose sequence held NaN: left behind the mask, it would spoil the next sequence there."""
        for store in (self.keys, self.values):
            store[:, slot].zero_()


class Window:
    """What one forward writes to the cache and what it may see. Give `keys` and `values` of every layer once.

    Attributes:
        positions: int (B, T), place of each token in its sequence.
        mask: bool (B or 1, 1, T, S), True where a token sees a place; None when it is causal over the new tokens.
    """

    def __init__(self, cache: Cache, slots: slice, positions: Tensor, extent: int, mask: Tensor | None) -> None:
        self._cache = cache
        self._slots = slots
        self._extent = extent
        self.positions = positions
        self.mask = mask

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (B, K, T, C) of one layer; return those to attend to (B, K, S, C)."""
        all_keys, all_values = self._cache.keys[layer, self._slots], self._cache.values[layer, self._slots]
        if keys.shape[2] == 1:
            rows = torch.arange(keys.shape[0], device=keys.device)
            all_keys[rows, :, self.positions[:, 0]] = keys[:, :, 0]
            all_values[rows, :, self.positions[:, 0]] = values[:, :, 0]
        else:
            new = slice(self._extent - keys.shape[2], self._extent)
            all_keys[:, :, new] = keys
            all_values[:, :, new] = values
        if self.mask is None:
            return keys, values
        return all_keys[:, :, : self._extent], all_values[:, :, : self._extent]


def prefill_window(cache: Cache, slots: slice, length: int, start: int = 0) -> Window:
    """Return the window of a prompt's `length` tokens from place `start` on.

    From the start several prompts go together, padded on the right: a causal token sees no padding after it.
    A later chunk of a long prompt sees all that came before.
    """
    device = cache.keys.device
    positions = torch.arange(start, start + length, device=device)
    extent = start + length
    mask = None
    if start > 0 or length == 1:
        mask = (torch.arange(extent, device=device) <= positions[:, None])[None, None]
    return Window(cache, slots, positions.expand(slots.stop - slots.start, length), extent, mask)


def decode_window(cache: Cache, lengths: Tensor, longest: int) -> Window:
    """Return the window of one more token for each of the first B slots.

    Args:
        cache: The cache.
        lengths: int (B,), tokens of each sequence in the cache so far.
        longest: The greatest of them, known to the host.
    """
    extent = -(-(longest + 1) // EXTENT) * EXTENT
    places = torch.arange(extent, device=lengths.device)
    mask = (places <= lengths[:, None])[:, None, None]
    return Window(cache, slice(0, len(lengths)), lengths[:, None], extent, mask)
