"""A limit for each kind of the engine's work, and the sequences that memory is too short for."""

from collections.abc import Callable
from collections.abc import Sequence as Ordered
from typing import TypeVar

import torch

from models.capacity.out_of_memory import BatchLimit, in_smaller_chunks
from models.engine.scheduler import Branch, Sequence

R = TypeVar("R")
Item = TypeVar("Item", Branch, Sequence)


class MemoryGuard:
    """A limit for each kind of work on how much of it is done at once.

    Attributes:
        too_large: Sequences that memory was too short for one by one. Whoever reads it empties it.
    """

    def __init__(self, device: torch.device, **most: int) -> None:
        """Start with the most, by kind of work."""
        self.too_large: dict[Sequence, None] = {}
        self._device = device
        self._limits = {kind: BatchLimit(kind, limit, device) for kind, limit in most.items()}

    @property
    def num_out_of_memory(self) -> int:
        """Times that memory ran out."""
        return sum(limit.num_out_of_memory for limit in self._limits.values())

    def run(
        self, kind: str, work: Callable[[Ordered[Item]], R], items: Ordered[Item], cost: int = 1
    ) -> list[tuple[Ordered[Item], R]]:
        """Do the work on items in batches that fit; return each batch with its result.

        Args:
            kind: Which limit holds.
            work: Called with a batch; called again with fewer items if memory runs out.
            items: What is left out of the result belongs to sequences that are noted as too large.
            cost: What one item takes of the limit.
        """
        done = []
        for batch, result in self._limits[kind].run_in_batches(work, items, cost):
            if result is not None:
                done.append((batch, result))
            else:
                self.too_large |= {item.sequence if isinstance(item, Branch) else item: None for item in batch}
        return done

    def in_chunks(self, work: Callable[[int], R], most: int, branches: Ordered[Branch]) -> R:
        """Do one piece of work in chunks of so many tokens, or of fewer where memory runs out and nothing runs beside.

        Beside others an answer's last bits would depend on whether there was room for it.
        """
        return in_smaller_chunks(work, most, self._device) if is_by_itself(branches) else work(most)


def is_by_itself(branches: Ordered[Branch]) -> bool:
    """Whether some branches are a single one that nothing runs beside, for want of memory."""
    return len(branches) == 1 and branches[0].sequence.is_alone
