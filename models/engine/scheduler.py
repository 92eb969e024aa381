"""Who runs, who waits, and when an answer ends.

A running sequence has one branch; under classifier-free guidance it has two, one for its prompt and one for the
negative prompt. Each branch owns a slot of the cache. Running branches own the first slots without a gap: when one
ends, the last one moves into its slot.
"""

from collections import deque
from collections.abc import Callable, Hashable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum, isnan
from typing import NamedTuple

from models.cache.memory import Memory
from models.engine.decoder import Grammar
from models.token_tree import TokenTree, build_token_tree
from models.types import Completion, FinishReason, ModelInput, PromptTooLong, Sampling


@dataclass(eq=False)
class Sequence:
    """A prompt being answered.

    Attributes:
        key: The row's name, for messages.
        model_input: What is asked.
        sampling: How to answer.
        stop_ids: Ids that end the answer.
        stop_condition: Whether the ids emitted so far hold a stop string; None when there is none to look for.
        completion: The answer in tokens, once ended well.
        error: Why there is none, once ended badly.
        grammar: What the answer's tokens follow, while it runs.
        num_chosen: Tokens of the answer that are chosen or come by themselves, known to the host yet or not.
        num_pending: Of those, the newest, which the next step feeds.
        is_alone: Whether nothing runs beside it, as there was too little memory for that.
    """

    key: str
    model_input: ModelInput
    sampling: Sampling
    stop_ids: frozenset[int] = frozenset()
    stop_condition: Callable[[Ordered[int]], bool] | None = None
    completion: Completion | None = None
    error: Exception | None = None
    grammar: Grammar | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    num_chosen: int = 0
    num_pending: int = 0
    is_alone: bool = False

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.model_input.token_ids)

    @property
    def is_guided(self) -> bool:
        """Whether its scores are moved away from those under a negative prompt."""
        return self.model_input.negative is not None and self.sampling.guidance_scale != 1

    @property
    def num_branches(self) -> int:
        """Slots that it takes."""
        return 2 if self.is_guided else 1

    @property
    def longest_prompt(self) -> int:
        """Tokens of the prompt, or of the negative one if that is longer."""
        negative = self.model_input.negative
        return max(self.prompt_length, len(negative)) if self.is_guided and negative is not None else self.prompt_length

    @property
    def most_new_tokens(self) -> int:
        """The most tokens that the answer may have; for choices, those of their tree and one that ends it."""
        if self.is_scored:
            return self.token_tree.num_tokens + 1
        fixed = self.model_input.num_new_tokens
        return self.sampling.max_new_tokens if fixed is None else fixed

    @property
    def is_scored(self) -> bool:
        """Whether given choices are scored in place of an answer."""
        return bool(self.model_input.choices)

    @cached_property
    def token_tree(self) -> TokenTree:
        """What is fed to score its choices."""
        return build_token_tree([ids.tolist() for ids in self.model_input.choices])

    @property
    def has_ended(self) -> bool:
        """Whether there is an answer, or an error in its place."""
        return self.completion is not None or self.error is not None

    @property
    def allowed(self) -> range | None:
        """The ids that the next token is chosen among; None for all."""
        return None if self.grammar is None else self.grammar.choices

    def count_chosen(self) -> None:
        """Count one more chosen token, and what comes by itself before the next one, whatever they are."""
        self.num_pending = 1
        if self.grammar is not None:
            columns, _ = self.grammar.line
            self.num_pending += (self.num_chosen + 1) % (columns + 1) == columns
        self.num_chosen += self.num_pending

    def take(self, found: Ordered[float]) -> bool:
        """Take what a step has found, known to the host only now; return whether the answer ends with it.

        Args:
            found: How many tokens the answer had and has, how many of those are fed next, then W ids, -1 for none, and
                their log-probabilities.
        """
        before, after, num_pending = map(int, found[:3])
        if after >= self.num_chosen:  # unless the host knows further steps by rule
            self.num_chosen, self.num_pending = after, num_pending
        width = (len(found) - 3) // 2
        for number, (token_id, logprob) in enumerate(zip(found[3:][:width], found[3:][width:], strict=True)):
            if token_id < 0 or self.has_ended:
                break
            # What came by itself stands there already.
            if before + number >= len(self.token_ids) and self.append(int(token_id), logprob):
                return True
        return False

    def append(self, token_id: int, logprob: float) -> bool:
        """Take one more chosen token and what follows it by itself; return whether the answer ends with it."""
        if self.has_ended:
            return False
        if isnan(logprob):
            at = len(self.token_ids)
            self.error = ArithmeticError(f"the scores after {at} tokens are not numbers: a wider dtype may hold them")
            return True
        forced = () if self.grammar is None else self.grammar.forced(len(self.token_ids) + 1)
        self.token_ids += (token_id, *forced)
        self.logprobs += (logprob, *(0.0 for _ in forced))
        finish_reason = self._finish(token_id)
        if finish_reason is not None:
            self.completion = Completion(tuple(self.token_ids), tuple(self.logprobs), finish_reason)
        return finish_reason is not None

    def choose(self, logprobs: Ordered[Ordered[float]]) -> None:
        """End with the likeliest choice, the first of equals.

        Args:
            logprobs: Of each token of each choice.
        """
        totals = [fsum(of_tokens) for of_tokens in logprobs]
        if any(map(isnan, totals)):
            self.error = ArithmeticError("the scores of the choices are not numbers: a wider dtype may hold them")
            return
        best = totals.index(max(totals))
        ids = tuple(self.model_input.choices[best].tolist())
        self.completion = Completion(ids, tuple(logprobs[best]), "stop", choice_logprobs=tuple(totals))

    def _finish(self, token_id: int) -> FinishReason | None:
        if self.grammar is not None:
            return "stop" if self.grammar.is_over(len(self.token_ids)) else None
        if token_id in self.stop_ids or (self.stop_condition is not None and self.stop_condition(self.token_ids)):
            return "stop"
        return "length" if len(self.token_ids) >= self.sampling.max_new_tokens else None


class PrefixName(NamedTuple):
    """The first tokens of a prompt: how many, and their ids with all that says what stands in the places of images."""

    length: int
    content: Hashable


@dataclass(eq=False)
class Branch:
    """What owns a slot: a sequence's prompt, or its negative prompt, with the answer's tokens behind it.

    Attributes:
        sequence: Whose it is.
        prompt_length: Tokens before the answer's.
        is_negative: Whether the prompt is the negative one.
        memory: What its new tokens see beside the cache.
        offset: How far they stand beyond their places in it.
        prefix: What its prompt begins with as others do; None where that is nothing worth a pass of its own.
    """

    sequence: Sequence
    prompt_length: int
    is_negative: bool = False
    memory: Memory | None = None
    offset: int = 0
    prefix: PrefixName | None = None

    @property
    def prefix_length(self) -> int:
        """Tokens that it begins with as others do."""
        return self.prefix.length if self.prefix else 0

    @property
    def cached_length(self) -> int:
        """Tokens in the cache: all but the pending ones."""
        return self.prompt_length + self.sequence.num_chosen - self.sequence.num_pending


class Scheduler:
    """The queue and the slots."""

    def __init__(self, slots: int, max_length: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Branch] = []  # the branch at place i owns slot i
        self._slots = slots
        self._max_length = max_length

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            PromptTooLong: Its prompt and the longest answer it may have do not fit a slot.
            ValueError: It needs more slots than there are.
        """
        needed = sequence.longest_prompt + sequence.most_new_tokens
        if needed > self._max_length:
            what = "its choices" if sequence.is_scored else "the answer up to"
            raise PromptTooLong(
                f"the prompt has {sequence.longest_prompt} tokens and {what} "
                f"{sequence.most_new_tokens}: {needed} together, but max_length is {self._max_length}"
            )
        if sequence.num_branches > self._slots:
            raise ValueError(f"guidance takes {sequence.num_branches} slots, but slots is {self._slots}")
        self.waiting.append(sequence)

    def admit(self) -> list[Sequence]:
        """Return the sequences that may start now. They run only once `start` is told so.

        A few slots are left free until several can be filled: prompts are cheaper together.
        """
        free = self._slots - len(self.running)
        if self.running and (free < max(1, self._slots // 16) or self.running[0].sequence.is_alone):
            return []
        if self.waiting and self.waiting[0].is_alone:
            return [] if self.running else [self.waiting.popleft()]
        admitted = []
        while self.waiting and self.waiting[0].num_branches <= free and not self.waiting[0].is_alone:
            admitted.append(self.waiting.popleft())
            free -= admitted[-1].num_branches
        return admitted

    def put_back(self, sequences: Ordered[Sequence]) -> None:
        """Let sequences start over before all that wait, each once nothing else runs."""
        for sequence in reversed(sequences):
            sequence.is_alone = True
            sequence.token_ids, sequence.logprobs, sequence.grammar = [], [], None
            sequence.num_chosen = sequence.num_pending = 0
            self.waiting.appendleft(sequence)

    def next_slots(self, num_branches: int) -> slice:
        """Return the slots that the next branches will have."""
        return slice(len(self.running), len(self.running) + num_branches)

    def start(self, branches: Ordered[Branch]) -> slice:
        """Give the next slots to branches; return them."""
        slots = self.next_slots(len(branches))
        self.running += branches
        return slots

    def end(self, slot: int) -> tuple[int, int] | None:
        """Free a slot; return (source, target) if the last branch must move to close the gap."""
        last = self.running.pop()
        source = len(self.running)
        if slot == source:
            return None
        self.running[slot] = last
        return source, slot
