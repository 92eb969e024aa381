"""What tokens look at beside their own sequence: keys and values made once, of an image say, and shared by all who ask.

A family whose decoder has cross-attention gives its prompts spans of tokens and the memory that each of them sees.
What a memory was made of is not known here.

Shapes: B sequences, T tokens, S places of a memory, H query heads, K key heads, C head width.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.layers import attend_all


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys and values (K, S, C) of each cross-attention layer, on that layer's device."""

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


Place = tuple[tuple[int, ...], slice, Memory]  # rows of a batch, tokens of them, what these see


class Sight:
    """Which memory each token of one forward sees; a token that sees none gets zeros."""

    def __init__(self, places: Sequence[Place], num_rows: int, num_tokens: int, device: torch.device) -> None:
        self._places = places
        self._on = device
        sees = torch.zeros(num_rows, num_tokens, 1, dtype=torch.bool)
        for rows, tokens, _ in places:
            sees[list(rows), tokens] = True
        # Rows are picked by tensors made once here and not in every layer; all rows need no picking.
        self._rows = [None if len(rows) == num_rows else torch.tensor(rows, device=device) for rows, _, _ in places]
        self.sees = sees.to(device)

    def to(self, device: torch.device) -> "Sight":
        """Return the same for layers on another device."""
        B, T, _ = self.sees.shape
        return self if device == self._on else Sight(self._places, B, T, device)

    def look(self, layer: int, query: Tensor) -> Tensor:
        """Return what queries (B, H, T, C) find in one layer's memories, (B, T, H * C)."""
        B, H, T, C = query.shape
        out = query.new_zeros(B, T, H * C)
        for (_, tokens, memory), rows in zip(self._places, self._rows, strict=True):
            asking = query[:, :, tokens] if rows is None else query[rows, :, tokens]
            found = attend_all(asking, memory.keys[layer], memory.values[layer])
            out[slice(None) if rows is None else rows, tokens] = found
        return out


def prefill_sight(spans: Sequence[Sequence[Span]], start: int, length: int, device: torch.device) -> Sight | None:
    """Return what the tokens at places `start` to `start + length` of several prompts see; None if nothing."""
    rows_of = defaultdict(list)
    for row, several in enumerate(spans):
        for first, stop, memory in _clipped(several, start, length):
            rows_of[first, stop, memory].append(row)
    places = [(tuple(rows), slice(first, stop), memory) for (first, stop, memory), rows in rows_of.items()]
    return Sight(places, len(spans), length, device) if places else None


def decode_sight(memories: Sequence[Memory | None], device: torch.device) -> Sight | None:
    """Return what one more token of each sequence sees; None if nothing."""
    rows_of = defaultdict(list)
    for row, memory in enumerate(memories):
        if memory is not None:
            rows_of[memory].append(row)
    places = [(tuple(rows), slice(0, 1), memory) for memory, rows in rows_of.items()]
    return Sight(places, len(memories), 1, device) if places else None


def lasting(spans: Sequence[Span]) -> Memory | None:
    """Return what every token after a prompt sees."""
    return next((span.memory for span in spans if span.stop is None), None)


def _clipped(spans: Sequence[Span], start: int, length: int) -> Iterator[tuple[int, int, Memory]]:
    """Yield spans as places of a chunk, those that have any there."""
    for span in spans:
        first = max(span.start - start, 0)
        stop = length if span.stop is None else min(span.stop - start, length)
        if first < stop:
            yield first, stop, span.memory
