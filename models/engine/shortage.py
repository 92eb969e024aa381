"""Do as much at once as a device's memory allows, and tell when it holds too little for even the least.

What is being computed is not known here.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# What torch says where it has no exception of its own: for the CPU, for a launch, for a library's workspace.
_SAID = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

# So many times less goes well before more is tried again: whoever shares the device may be done by then.
PATIENCE = 64


class OutOfMemory(RuntimeError):
    """A device has too little memory for one prompt that has it to itself."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once, or the same later, may go well; after other errors of a device nothing will."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def give_back(device: torch.device) -> None:
    """Let go of the memory that torch keeps for later: in pieces, it may be what is missing in one."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Ration:
    """How much of one kind of work is done at once: half as much after a shortage, more again after a while without.

    Attributes:
        num_shortages: Times that memory was too short.
    """

    def __init__(self, kind: str, most: int, device: torch.device) -> None:
        """Start with the most.

        Args:
            kind: What it is a ration of, for the log.
            most: What is never exceeded.
            device: Whose memory may run short.
        """
        self.num_shortages = 0
        self._kind = kind
        self._now = self._most = most
        self._device = device
        self._quiet = 0

    def share_out(
        self, work: Callable[[Sequence[T]], R], whole: Sequence[T], each: int = 1
    ) -> list[tuple[Sequence[T], R | None]]:
        """Do the work on everything, a ration at a time, and on halves of that where memory runs short.

        Args:
            work: Done on some; done again on fewer if it fails.
            whole: In its order.
            each: What one of them takes of a ration.

        Returns:
            What was worked on together, and what came of it: None for what memory is too short for by itself.
        """
        size, shortages = max(1, self._now // each), self.num_shortages
        pieces = [whole[first : first + size] for first in range(0, len(whole), size)]
        done = [part for piece in pieces for part in self._halved(work, piece)]
        if self.num_shortages > shortages:
            self._now, self._quiet = max(1, self._now // 2), 0
        elif self._now < self._most:
            self._quiet += 1
            if self._quiet == PATIENCE:
                self._now, self._quiet = min(self._most, self._now * 2), 0
        return done

    def _halved(self, work: Callable[[Sequence[T]], R], whole: Sequence[T]) -> list[tuple[Sequence[T], R | None]]:
        try:
            return [(whole, work(whole))]
        except Exception as failure:
            if not is_out_of_memory(failure):
                raise
            # Without its traceback, which would keep alive all that the work had made so far.
            error = failure.with_traceback(None)
        give_back(self._device)
        self.num_shortages += 1
        if self.num_shortages.bit_count() == 1:  # the 1st, 2nd, 4th, …: a device may be short all the time
            log.warning(
                "shortage %d: no memory to %s %d at once: %s", self.num_shortages, self._kind, len(whole), error
            )
        if len(whole) == 1:
            return [(whole, None)]
        half = len(whole) // 2
        return [*self._halved(work, whole[:half]), *self._halved(work, whole[half:])]
