"""Who runs, who waits, and when an answer ends.

Running sequences own the first slots without a gap: when one ends, the last one moves into its place.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from math import isnan

from models.engine.memory import Memory
from models.types import Completion, Finish, ModelInput, PromptTooLong, Sampling


@dataclass(eq=False)
class Sequence:
    """A prompt being answered.

    Attributes:
        key: The row's name, for messages.
        model_input: What is asked.
        sampling: How to answer.
        stop_ids: Ids that end the answer.
        stopped: Whether the ids emitted so far hold a stop string; None when there is none to look for.
        completion: The answer in tokens, once ended well.
        error: Why there is none, once ended badly.
        memory: What its new tokens see beside the cache, while it runs.
    """

    key: str
    model_input: ModelInput
    sampling: Sampling
    stop_ids: frozenset[int] = frozenset()
    stopped: Callable[[Ordered[int]], bool] | None = None
    completion: Completion | None = None
    error: Exception | None = None
    memory: Memory | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.model_input.token_ids)

    @property
    def cached_length(self) -> int:
        """Tokens in the cache: all but the newest, which the next step feeds."""
        return self.prompt_length + len(self.token_ids) - 1

    def append(self, token_id: int, logprob: float) -> bool:
        """Take one more token; return whether the answer has ended, well or badly."""
        if isnan(logprob):
            at = len(self.token_ids)
            self.error = ArithmeticError(f"the scores after {at} tokens are not numbers: a wider dtype may hold them")
            return True
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        finish = self._finish(token_id)
        if finish is not None:
            self.completion = Completion(tuple(self.token_ids), tuple(self.logprobs), finish)
        return finish is not None

    def _finish(self, token_id: int) -> Finish | None:
        if token_id in self.stop_ids or (self.stopped is not None and self.stopped(self.token_ids)):
            return "stop"
        return "length" if len(self.token_ids) >= self.sampling.max_new_tokens else None


class Scheduler:
    """The queue and the slots."""

    def __init__(self, slots: int, max_length: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # the sequence at place i owns slot i
        self._slots = slots
        self._max_length = max_length

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            PromptTooLong: Its prompt and the longest answer it may have do not fit a slot.
        """
        needed = sequence.prompt_length + sequence.sampling.max_new_tokens
        if needed > self._max_length:
            raise PromptTooLong(
                f"the prompt has {sequence.prompt_length} tokens and the answer up to "
                f"{sequence.sampling.max_new_tokens}: {needed} together, but max_length is {self._max_length}"
            )
        self.waiting.append(sequence)

    def admit(self) -> list[Sequence]:
        """Return the sequences that may start now. They run only once `start` is told so.

        A few slots are left free until several can be filled: prompts are cheaper together.
        """
        free = self._slots - len(self.running)
        if self.running and free < max(1, self._slots // 16):
            return []
        return [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]

    def start(self, sequences: Ordered[Sequence]) -> slice:
        """Give the next slots to sequences; return them."""
        first = len(self.running)
        self.running += sequences
        return slice(first, len(self.running))

    def end(self, slot: int) -> tuple[int, int] | None:
        """Free a slot; return (source, target) if the last sequence must move to close the gap."""
        # A finished sequence lives on in its caller's hands, and must not keep an image's memory alive there.
        self.running[slot].memory = None
        last = self.running.pop()
        source = len(self.running)
        if slot == source:
            return None
        self.running[slot] = last
        return source, slot
