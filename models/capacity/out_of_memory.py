"""Do as much at once as a device's memory allows, and find out what is too large even by itself."""

import logging
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from typing import TypeVar

import torch

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# What torch says where it has no exception of its own: for the CPU, for a launch, for a library's workspace.
_MESSAGES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

# The fewest tokens of a prompt that go through at once: so few take next to nothing beside the weights.
LEAST_CHUNK = 64

# A limit grows again after so many calls without an error: whoever shares the device may be done by then.
CALLS_BEFORE_GROWTH = 64


def in_smaller_chunks(work: Callable[[int], R], most: int, device: torch.device) -> R:
    """Do one piece of work in chunks of `most` tokens, or of half as many each time that memory runs out.

    Raises:
        Exception: Memory ran out even for chunks of less than twice LEAST_CHUNK, or something else went wrong.
    """
    while True:
        try:
            return work(most)
        except Exception as failure:
            if not is_out_of_memory(failure) or most < 2 * LEAST_CHUNK:
                raise
            log.warning("no memory to prefill %d tokens of a prompt at once; trying half as many", most)
        most //= 2
        release_cached_memory(device)


class OutOfMemory(RuntimeError):
    """A device has too little memory for one prompt that has it to itself."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch, or the same one later, may go well; after other errors of a device nothing will."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def release_cached_memory(device: torch.device) -> None:
    """Give back the memory that torch keeps for later: it is in pieces, and one large piece may be missing."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class BatchLimit:
    """How much of one kind of work is done at once: halved when memory runs out, doubled again after a while.

    Attributes:
        num_out_of_memory: Times that memory ran out.
    """

    def __init__(self, kind: str, most: int, device: torch.device) -> None:
        """Start with the most.

        Args:
            kind: What is done, for the log.
            most: Never exceeded.
            device: Whose memory may run out.
        """
        self.num_out_of_memory = 0
        self._kind = kind
        self._now = self._most = most
        self._device = device
        self._quiet_calls = 0

    def run_in_batches(
        self, work: Callable[[Ordered[T]], R], items: Ordered[T], cost: int = 1
    ) -> list[tuple[Ordered[T], R | None]]:
        """Do the work on all items in batches within the limit, and on halves of a batch where memory runs out.

        Args:
            work: Called with a batch; called again with fewer items if memory runs out.
            items: In their order.
            cost: What one item takes of the limit.

        Returns:
            Each batch with its result: None for an item that is too large even by itself.
        """
        size, before = max(1, self._now // cost), self.num_out_of_memory
        batches = [items[first : first + size] for first in range(0, len(items), size)]
        done = [part for batch in batches for part in self._run_or_halve(work, batch)]
        if self.num_out_of_memory > before:
            self._now, self._quiet_calls = max(1, self._now // 2), 0
        elif self._now < self._most:
            self._quiet_calls += 1
            if self._quiet_calls == CALLS_BEFORE_GROWTH:
                self._now, self._quiet_calls = min(self._most, self._now * 2), 0
        return done

    def _run_or_halve(self, work: Callable[[Ordered[T]], R], batch: Ordered[T]) -> list[tuple[Ordered[T], R | None]]:
        try:
            return [(batch, work(batch))]
        except Exception as failure:
            if not is_out_of_memory(failure):
                raise
            # Without its traceback, which would keep alive all that the work had made so far.
            error = failure.with_traceback(None)
        release_cached_memory(self._device)
        self.num_out_of_memory += 1
        if self.num_out_of_memory.bit_count() == 1:  # the 1st, 2nd, 4th, …: it may go on all the time
            log.warning(
                "out of memory (%d times): no memory to %s %d at once: %s",
                self.num_out_of_memory, self._kind, len(batch), error,
            )  # fmt: skip
        if len(batch) == 1:
            return [(batch, None)]
        half = len(batch) // 2
        return [*self._run_or_halve(work, batch[:half]), *self._run_or_halve(work, batch[half:])]
