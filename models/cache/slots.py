"""The keys and values of every running sequence, allocated once.

A sequence owns a slot: one row of each layer's static tensors. Running sequences always own the first slots, so
that a decode step sees one contiguous view and nothing is gathered. A sequence's tokens lie at the places of its slot
in their order, except for continuations side by side (`tree_cache_view`). Places beyond its length hold what an earlier
sequence left; they are masked. What a token's rotary position is does not depend on its place.

Shapes: B sequences, T tokens, A axes of positions, S places attended to, K key heads, C head width.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from models.cache.memory import Memory, MemoryView
from models.devices import to_device
from models.kernels import are_fused
from models.kernels.in_place import attend_in_place, reads_in_place, tables
from models.layers import Rotation, attend

# Places attended to come in multiples of this, so that shapes recur: kernels and their rounding depend on them.
EXTENT = 64


@dataclass(frozen=True)
class CacheShape:
    """What one token leaves in the cache: a key and a value of (num_heads, head_dim) on each layer's device."""

    devices: tuple[torch.device, ...]
    num_heads: int
    head_dim: int
    dtype: torch.dtype

    @property
    def token_bytes(self) -> int:
        """What one token takes, on all layers together."""
        return 2 * len(self.devices) * self.num_heads * self.head_dim * self.dtype.itemsize

    def num_bytes(self, slots: int, max_length: int) -> int:
        """What a cache takes, on all layers together."""
        return slots * _extent(max_length) * self.token_bytes


class Cache:
    """Keys and values (slots, K, length, C) of each layer; `length` is max_length rounded up to whole extents.

    Attributes:
        tables: Where each slot's lie, layer by layer, for kernels that read them in place; empty without such kernels.
    """

    def __init__(self, shape: CacheShape, slots: int, max_length: int) -> None:
        self.length = _extent(max_length)
        size = (slots, shape.num_heads, self.length, shape.head_dim)
        # Zeros, not empty: a masked place has weight 0, and 0 times an accidental NaN is NaN (see `clear`).
        self.keys, self.values = (
            [torch.zeros(size, dtype=shape.dtype, device=device) for device in shape.devices] for _ in range(2)
        )
        in_place = reads_in_place(shape.devices[0])
        self.tables = [tables(*both) for both in zip(self.keys, self.values, strict=True)] if in_place else []

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` places of one slot to another."""
        for store in (*self.keys, *self.values):
            store[target, :, :length] = store[source, :, :length]

    def copied(self, slot: int, length: int) -> Memory:
        """Return a copy of the first `length` places of a slot, nothing else of whose memory is kept alive."""
        keys, values = (
            tuple(store[slot, :, :length].clone() for store in stores) for stores in (self.keys, self.values)
        )
        return Memory(keys, values)

    def fill(self, slots: slice, memory: Memory) -> int:
        """Copy the same keys and values to the first places of several slots; return how many places."""
        length = memory.keys[0].shape[1]
        for store, same in zip((*self.keys, *self.values), (*memory.keys, *memory.values), strict=True):
            store[slots, :, :length] = same
        return length

    def clear(self, slots: int | slice) -> None:
        """Forget slots whose sequence held NaN: left behind the mask, it would spoil the next sequence there."""
        for store in (*self.keys, *self.values):
            store[slots].zero_()


class CacheView:
    """The cache as one forward pass uses it: where it writes and what it may see. Each layer calls `attend` once.

    Attributes:
        positions: int (B, T, A), where each token stands for the decoder's rotary positions.
        mask: (B or 1, 1, T, S), True where a token sees a place, or what is added to its score, 0 or -inf; None when it
            sees all places up to its own.
        memory: What tokens see beside their own sequence; None when none of them sees anything.
    """

    def __init__(
        self,
        cache: Cache,
        slots: slice | Tensor,
        positions: Tensor,
        extents: Sequence[int],
        mask: Tensor | None,
        memory: MemoryView | None,
        rows: Tensor | None = None,
        ends: Tensor | None = None,
    ) -> None:
        """Keep what one forward needs.

        Args:
            cache: The cache.
            slots: Of the sequences; int (B,) where they are read in place and are no neighbours.
            positions: See the attributes.
            extents: How many places of its slot each sequence attends to; one number if all of them to as many.
            mask: See the attributes.
            memory: See the attributes.
            rows: Where sequences write at places of their own, int (B * K * T), in a layer's store seen as
                (slots * K * length, C); elsewhere all write just before their extent.
            ends: int (B, T), how many places each token sees, where they are read in place; there is no mask then.
        """
        self._ends = ends
        self._rows = rows
        self._cache = cache
        self._slots = slots
        self._runs = _runs(extents, len(positions))
        assert max(extents) <= cache.length
        self.mask = mask
        self.positions = positions
        self.memory = memory

    def to(self, device: torch.device) -> "CacheView":
        """Return the same for layers on another device."""
        if self.positions.device == device:
            return self
        moved = copy(self)
        moved.positions = self.positions.to(device)
        moved._slots = self._slots.to(device) if isinstance(self._slots, Tensor) else self._slots
        moved._rows = None if self._rows is None else self._rows.to(device)
        moved._ends = None if self._ends is None else self._ends.to(device)
        moved.mask = None if self.mask is None else self.mask.to(device)
        moved.memory = None if self.memory is None else self.memory.to(device)
        return moved

    def attend_new(self, layer: int, new: Tensor, num_keys: int, rotate: Rotation) -> Tensor:
        """Rotate the new queries and keys of one layer, then `attend`; return (B, T, H * C).

        Args:
            layer: Its place in the cache.
            new: (B, H + 2 * K, T, C), queries, keys and values of each token.
            num_keys: K.
            rotate: By the tokens' positions.
        """
        if self._ends is not None and self._rows is not None and are_fused(new):
            stores = self._cache.keys[layer], self._cache.values[layer]
            return self._in_place(layer, rotate.into_cache(new, num_keys, *stores, self._rows), self._ends)
        rotated, values = rotate(new[:, :-num_keys]), new[:, -num_keys:]  # together: half as many small steps
        return self.attend(layer, rotated[:, :-num_keys], rotated[:, -num_keys:], values)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Write the new keys and values of one layer, then let the tokens see what they may.

        Sequences that attend to as many places go together: each then sees what it would see alone, in the same shapes.

        Args:
            layer: Its place in the cache.
            query: (B, H, T, C).
            keys: (B, K, T, C).
            values: (B, K, T, C).

        Returns:
            (B, T, H * C).
        """
        stores = self._cache.keys[layer], self._cache.values[layer]
        for store, new in zip(stores, (keys, values), strict=True):
            self.write(store, new)
        if self._ends is not None:
            return self._in_place(layer, query, self._ends)
        if self.mask is None:
            [(_, extent)] = self._runs
            if extent > keys.shape[2]:  # else they see each other alone
                keys, values = (store[self._slots, :, :extent] for store in stores)
            return attend(query, keys, values, None)
        if len(self._runs) == 1:
            seen_keys, seen_values = (store[self._slots, :, : self.mask.shape[-1]] for store in stores)
            return attend(query, seen_keys, seen_values, self.mask)
        found = []
        for run, extent in self._runs:
            seen_keys, seen_values = (store[self._slots, :, :extent][run] for store in stores)
            found.append(attend(query[run], seen_keys, seen_values, self.mask[run, ..., :extent]))
        return torch.cat(found)

    def _in_place(self, layer: int, query: Tensor, ends: Tensor) -> Tensor:
        placed, [(_, most)] = self._cache.tables[layer].rows(self._slots), self._runs
        return attend_in_place(query, placed, ends, self._cache.keys[layer].shape[1], most)

    def write(self, store: Tensor, new: Tensor) -> None:
        """Put new keys or values (B, K, T, C) into a layer's store."""
        if self._rows is None:
            [(_, extent)] = self._runs
            store[self._slots, :, extent - new.shape[2] : extent] = new
        else:
            C = new.shape[-1]
            store.view(-1, C).index_copy_(0, self._rows, new.reshape(-1, C))


def prefill_cache_view(
    cache: Cache,
    slots: slice,
    places: range,
    device: torch.device,
    memory: MemoryView | None = None,
    positions: Tensor | None = None,
) -> CacheView:
    """Return the view of some tokens of prompts.

    From the start several prompts go together, padded on the right: a causal token sees no padding after it.
    A later chunk of a long prompt sees all that came before.

    Args:
        cache: The cache.
        slots: Where the prompts are put.
        places: Of the tokens in their prompts, one after the other.
        device: Where the tokens' embeddings are.
        memory: What the tokens see beside, on that device.
        positions: Where they stand, int (B, T, A) on that device; None for their places.
    """
    own = torch.arange(places.start, places.stop, device=device)[:, None]
    mask = None
    # A GPU has kernels that know without a mask what a later chunk sees; one token of a prompt is seen through a mask
    # anyhow, as in decoding.
    if len(places) == 1 or (places.start > 0 and device.type == "cpu"):
        mask = (torch.arange(places.stop, device=device) <= own)[None, None]
    if positions is None:
        positions = own.expand(slots.stop - slots.start, len(places), 1)
    return CacheView(cache, slots, positions, [places.stop], mask, memory)


def packed_cache_view(
    cache: Cache, slots: Tensor, places: Tensor, positions: Tensor, memory: MemoryView | None, device: torch.device
) -> CacheView:
    """Return the view of blocks of prompts' tokens, each seeing all of its prompt before it; read in place.

    All tensors are on the CPU; they are brought to the device, and the device is not waited for.

    Args:
        cache: With tables.
        slots: int (B,), where each block's prompt is put.
        places: int (B, T), of the tokens in their prompts.
        positions: int (B, T, A), where they stand.
        memory: What the tokens see beside, on the device.
        device: Where the tokens' embeddings are.
    """
    K = cache.keys[0].shape[1]
    rows = _rows(cache, places, slots[:, None, None] * K + torch.arange(K)[:, None])
    there = [to_device(tensor, device) for tensor in (slots, positions, rows, places + 1)]
    return CacheView(cache, there[0], there[1], [int(places.max()) + 1], None, memory, rows=there[2], ends=there[3])


def decode_cache_view(
    cache: Cache,
    places: Tensor,
    positions: Tensor,
    lengths: Sequence[int],
    memory: MemoryView | None = None,
    first: int = 0,
) -> CacheView:
    """Return the view of the next tokens of each of B slots.

    Where a sequence has fewer than the others, what is written behind them is overwritten before anyone sees it.

    Args:
        cache: The cache.
        places: int (B, T), where each new token is put.
        positions: int (B, T), where each stands.
        lengths: How many places each sequence then has, as the host counts them.
        memory: What the tokens see beside.
        first: The first of the slots.
    """
    slots = slice(first, first + len(places))
    rows = _rows(cache, places, _heads(cache, slots, places.device))
    if cache.tables:
        return CacheView(cache, slots, positions[..., None], [cache.length], None, memory, rows, ends=places + 1)
    extents = _extents(lengths, cache)
    # As numbers, which attention would else make of it in each layer.
    mask = torch.zeros(*places.shape, max(extents), dtype=cache.keys[0].dtype, device=places.device)  # (B, T, S)
    mask.masked_fill_(torch.arange(max(extents), device=places.device) > places[..., None], -torch.inf)
    return CacheView(cache, slots, positions[..., None], extents, mask[:, None], memory, rows)


def tree_cache_view(
    cache: Cache,
    lengths: Tensor,
    places: Tensor,
    positions: Tensor,
    sees: Tensor,
    memory: MemoryView | None,
    first: int,
) -> CacheView:
    """Return the view of several continuations of each of B slots, side by side behind what the slot holds.

    All tensors are on the CPU, and so is what the view makes of them.

    Args:
        cache: The cache.
        lengths: int (B,), tokens of each sequence in the cache.
        places: int (B, T), where each new token is put, counted from there.
        positions: int (B, T), where each stands.
        sees: bool (B, T, T), which of the new places each sees beside the sequence.
        memory: What the tokens see beside.
        first: The first of the slots.
    """
    B, T = places.shape
    extents = _extents((lengths + places.amax(-1) + 1).tolist(), cache)
    extent = max(extents)
    new = torch.arange(extent) - lengths[:, None]  # (B, S), counted from where a sequence ends
    among_new = sees.gather(2, new.clamp(0, T - 1)[:, None].expand(B, T, extent)) & (new < T)[:, None]
    mask = among_new | (new < 0)[:, None]  # (B, T, S)
    slots = slice(first, first + B)
    rows = _rows(cache, lengths[:, None] + places, _heads(cache, slots, places.device))
    return CacheView(cache, slots, positions[..., None], extents, mask[:, None], memory, rows)


def _extent(length: int) -> int:
    return -(-length // EXTENT) * EXTENT


def _extents(lengths: Sequence[int], cache: Cache) -> list[int]:
    """Return how many places each sequence attends to, or one number if all of them to as many, in one call.

    In float32 on a CPU each attends to its own, so that its bits do not depend on the others. In half precision one
    call is faster as long as it does not read more than twice what it must; a GPU always makes one.
    """
    extents = [_extent(length) for length in lengths]
    store, most = cache.keys[0], max(extents)
    if store.device.type == "cpu" and (store.dtype == torch.float32 or most * len(extents) > 2 * sum(extents)):
        return extents
    return [most]


def _runs(extents: Sequence[int], num_rows: int) -> list[tuple[slice, int]]:
    """Return neighbours that attend to as many places, with that number."""
    if len(extents) == 1:
        return [(slice(num_rows), extents[0])]
    firsts = [row for row in range(num_rows) if row == 0 or extents[row] != extents[row - 1]]
    return [(slice(first, last), extents[first]) for first, last in pairwise([*firsts, num_rows])]


def _heads(cache: Cache, slots: slice, device: torch.device) -> Tensor:
    """Return the number, among all of a layer's, of each head of neighbouring slots, int (B, K, 1)."""
    K = cache.keys[0].shape[1]
    return torch.arange(slots.start * K, slots.stop * K, device=device).view(-1, K, 1)


def _rows(cache: Cache, places: Tensor, heads: Tensor) -> Tensor:
    """Return where the new tokens at `places` (B, T) of each slot lie in a layer's store; see CacheView and _heads."""
    return (heads * cache.length + places[:, None]).flatten()
