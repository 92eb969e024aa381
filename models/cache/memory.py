"""Cross-attention memories: keys and values made once, of an image for example, and shared by all who ask about it.

A family whose decoder has cross-attention gives its prompts spans of tokens and the memory that each of them sees.

Shapes: B sequences, T tokens, S places of a memory, H query heads, K key heads, C head width.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.devices import to_device
from models.kernels.in_place import attend_in_place, reads_in_place, tables
from models.layers import attend_all


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys and values (K, S, C) of each layer that attends to them, on that layer's device."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """What it occupies."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


@dataclass(frozen=True)
class Span:
    """The tokens from place `start` to before `stop`, or every token from `start` on, see one memory."""

    start: int
    stop: int | None
    memory: Memory


Seen = tuple[tuple[int, ...], slice, Memory]  # rows of a batch, tokens of them, what these see


class MemoryView(Protocol):
    """Which memory each token of one forward sees; a token that sees none gets zeros.

    Attributes:
        attends: bool (B, T, 1), whether a token sees any.
    """

    attends: Tensor

    def to(self, device: torch.device) -> "MemoryView":
        """Return the same for layers on another device."""

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Return what queries (B, H, T, C) find in one layer's memories, (B, T, H * C)."""


class SeenMemories:
    """A view for any tokens: memory by memory, those who see the same together."""

    def __init__(self, seen: Sequence[Seen], num_rows: int, num_tokens: int, device: torch.device) -> None:
        self._seen = seen
        sees = torch.zeros(num_rows, num_tokens, 1, dtype=torch.bool)
        for rows, tokens, _ in seen:
            sees[list(rows), tokens] = True
        self.attends = sees.to(device)
        self._rows = [_picked(rows, device) for rows, _, _ in seen]
        self._elsewhere: dict[torch.device, SeenMemories] = {}

    def to(self, device: torch.device) -> MemoryView:
        """See MemoryView; made once, since one view serves many steps."""
        if device == self.attends.device:
            return self
        if device not in self._elsewhere:
            B, T, _ = self.attends.shape
            self._elsewhere[device] = SeenMemories(self._seen, B, T, device)
        return self._elsewhere[device]

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """See MemoryView."""
        B, H, T, C = query.shape
        out = query.new_zeros(B, T, H * C)
        for (_, tokens, memory), rows in zip(self._seen, self._rows, strict=True):
            out[rows, tokens] = attend_all(query[rows][:, :, tokens], memory.keys[layer], memory.values[layer])
        return out


def prefill_memory_view(spans: Sequence[Sequence[Span]], places: range, device: torch.device) -> MemoryView | None:
    """Return what the tokens at some places of several prompts see; None if nothing."""
    return packed_memory_view(spans, [places] * len(spans), device)


def packed_memory_view(
    spans: Sequence[Sequence[Span]], places: Sequence[range], device: torch.device
) -> MemoryView | None:
    """Return what tokens at as many places of several prompts see, each prompt's at its own; None if nothing."""
    clipped = [_clipped(several, own) for several, own in zip(spans, places, strict=True)]
    return _view(clipped, len(places[0]), device)


class PlacedMemories:
    """A view for the next tokens of sequences, each with a memory of its own size, all of them in one call.

    For devices that read memories in place.
    """

    def __init__(self, memories: Sequence[Memory | None], num_tokens: int, device: torch.device) -> None:
        some = next(memory for memory in memories if memory is not None)
        self._memories = [memory or some for memory in memories]  # kept alive; who has none sees no place of another's
        sizes = [0 if memory is None else memory.keys[0].shape[1] for memory in memories]
        self._num_heads, self._most = some.keys[0].shape[0], max(sizes)
        self._tables = [
            tables([memory.keys[layer] for memory in self._memories], [m.values[layer] for m in self._memories])
            for layer in range(len(some.keys))
        ]
        self._ends = to_device(torch.tensor(sizes)[:, None].expand(-1, num_tokens), device)
        self.attends = self._ends[..., None] > 0

    def up_to(self, most: int) -> "PlacedMemories":
        """Return the same, launched for memories of so many places."""
        wider = copy(self)
        wider._most = most
        return wider

    def take(self, other: "PlacedMemories") -> None:
        """See what another view of as many sequences sees, in this one's tensors."""
        self._memories = other._memories
        mine, theirs = (
            (view._ends, view.attends, *(tensor for table in view._tables for tensor in table.tensors))
            for view in (self, other)
        )
        for own, new in zip(mine, theirs, strict=True):
            own.copy_(new)

    def to(self, device: torch.device) -> MemoryView:
        """See MemoryView; the tables lie where the layers do already."""
        moved = copy(self)
        moved._ends, moved.attends = self._ends.to(device), self.attends.to(device)
        return moved

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """See MemoryView."""
        return attend_in_place(query, self._tables[layer], self._ends, self._num_heads, self._most)


def decode_memory_view(memories: Sequence[Memory | None], num_tokens: int, device: torch.device) -> MemoryView | None:
    """Return what the next tokens of each sequence see; None if nothing."""
    if reads_in_place(device):
        return None if all(memory is None for memory in memories) else PlacedMemories(memories, num_tokens, device)
    return _view([[] if memory is None else [(0, num_tokens, memory)] for memory in memories], num_tokens, device)


def _view(
    seen: Sequence[Iterable[tuple[int, int, Memory]]], num_tokens: int, device: torch.device
) -> MemoryView | None:
    """Return the view in which each row's tokens see memories; rows that see alike go together."""
    rows_of = defaultdict(list)
    for row, several in enumerate(seen):
        for first, stop, memory in several:
            rows_of[first, stop, memory].append(row)
    found = [(tuple(rows), slice(first, stop), memory) for (first, stop, memory), rows in rows_of.items()]
    return SeenMemories(found, len(seen), num_tokens, device) if found else None


def answer_memory(spans: Sequence[Span]) -> Memory | None:
    """Return the memory that every token after a prompt sees, if any."""
    return next((span.memory for span in spans if span.stop is None), None)


def _clipped(spans: Sequence[Span], places: range) -> Iterator[tuple[int, int, Memory]]:
    """Yield spans as tokens of a chunk, those that have any there."""
    for span in spans:
        first = max(span.start - places.start, 0)
        stop = len(places) if span.stop is None else min(span.stop - places.start, len(places))
        if first < stop:
            yield first, stop, span.memory


def _picked(rows: tuple[int, ...], device: torch.device) -> slice | Tensor:
    """Return rows as an index; neighbours, which those who share an image mostly are, need no copy."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)
