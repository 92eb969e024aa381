"""Turn prompts into tokens, or score given ones behind them, many at a time.

The engine knows sequences, the cache and the sampler. It knows nothing of images, text or Ray: a family's model
turns inputs into prompts, and whoever called decodes the tokens.

It lives as long as its caller: sequences are submitted at any time and end out of order, so that the slots stay
full from the first row of a run to the last. Where the device's memory runs short, less goes through at once; a prompt
that fails by itself starts over when all others have ended, and fails only if memory runs out again.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Ordered
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from models.engine.cache import Cache, decode_cache_view
from models.engine.decoder import Decoder, Prompt
from models.engine.guidance import guided, negative_name, new_branches
from models.engine.memory import Memory, MemoryView, decode_memory_view
from models.engine.out_of_memory import BatchLimit, OutOfMemory, is_out_of_memory
from models.engine.prefill import by_length, prefill
from models.engine.sampler import Choice, choose
from models.engine.scheduler import Branch, Scheduler, Sequence
from models.engine.scoring import by_feed, score

log = logging.getLogger(__name__)

One = TypeVar("One", Branch, Sequence)
R = TypeVar("R")

# Tokens of one prefill: enough for full matrix products, few enough that a 65,536-token prompt needs no more
# memory than its cache. A longer prompt goes through in chunks of this size.
PREFILL_TOKENS = 4096


class Engine:
    """Continuous batching over static slots, for one model. Not thread-safe: one thread owns it."""

    def __init__(self, model: Decoder, *, slots: int, max_length: int) -> None:
        """Allocate the cache.

        Args:
            model: A family's model.
            slots: Sequences answered at once.
            max_length: The longest sequence, prompt and answer together.

        Raises:
            ValueError: A setting is below 1, or longer than the model's positions.
        """
        if slots < 1 or not 1 < max_length <= model.max_position_embeddings:
            raise ValueError(
                f"slots is {slots} and max_length {max_length}; expected at least 1 slot and a length from 2 to "
                f"the checkpoint's max_position_embeddings, {model.max_position_embeddings}"
            )
        self._model = model
        self._cache = Cache(model.cache_shape, slots, max_length)
        self._scheduler = Scheduler(slots, max_length)
        self._ended: list[Sequence] = []
        self._short: dict[Sequence, None] = {}  # those that memory was too short for one by one, in this step
        self._encodes = BatchLimit("encode", slots, model.device)
        self._prefills = BatchLimit("prefill", PREFILL_TOKENS, model.device)
        self._decodes = BatchLimit("decode", slots, model.device)
        self._choices = BatchLimit("choose tokens of", slots, model.device)
        self._scores = BatchLimit("score", PREFILL_TOKENS, model.device)
        self._memories: list[Memory | None] = []  # what the running branches see, and the view made of it
        self._view: MemoryView | None = None
        self._negatives: dict[bytes, Tensor] = {}  # last hidden state (D,) of negative prompts in the cache
        self.num_prefilled = 0  # prompts that went through the decoder; a negative one shared by many counts once

    @property
    def num_waiting(self) -> int:
        """Sequences not yet started."""
        return len(self._scheduler.waiting)

    @property
    def num_running(self) -> int:
        """Sequences being answered."""
        return len({id(branch.sequence) for branch in self._scheduler.running})

    @property
    def is_idle(self) -> bool:
        """Whether a step would have nothing to do or to return."""
        return not (self._scheduler.waiting or self._scheduler.running or self._ended)

    @property
    def num_out_of_memory(self) -> int:
        """Times that the device had too little memory for what was tried at once."""
        limits = (self._encodes, self._prefills, self._decodes, self._choices, self._scores)
        return sum(one.num_out_of_memory for one in limits)

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; one that cannot fit ends at once, with its error, at the next step."""
        try:
            self._scheduler.submit(sequence)
        except ValueError as error:
            self._fail(sequence, error)

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Start what fits, give every running sequence one more token, return those that have ended."""
        self._start(self._encoded(self._scheduler.admit()))
        self._leave()
        if self._scheduler.running:
            self._decode()
            self._leave()
        ended, self._ended = self._ended, []
        return ended

    def _start(self, encoded: list[tuple[Sequence, Prompt]]) -> None:
        """Bring prompts into the cache and choose their answers' first tokens."""
        new = new_branches(encoded, lambda name: self._slot_of(name) is not None)
        hidden = self._prefilled(new.prompts)
        # Not more than are in the cache; and by itself, or each would keep its whole pack.
        self._negatives = {name: last for name, last in self._negatives.items() if self._slot_of(name) is not None}
        self._negatives |= {name: hidden[branch] for name, branch in new.negative.items() if branch in hidden}
        for branch in new.shared:
            if negative_name(branch.sequence) in self._negatives:
                hidden[branch] = self._copy(branch)
            else:
                self._short[branch.sequence] = None
        self._answer({branch: last for branch, last in hidden.items() if not branch.sequence.is_scored})
        self._score({branch: last for branch, last in hidden.items() if branch.sequence.is_scored})

    def _slot_of(self, name: bytes) -> int | None:
        """Return a slot whose branch holds a negative prompt of this name."""
        branches = enumerate(self._scheduler.running)
        return next(
            (slot for slot, branch in branches if branch.is_negative and negative_name(branch.sequence) == name), None
        )

    def _copy(self, branch: Branch) -> Tensor:
        """Start a branch whose negative prompt another one holds; return its last hidden state."""
        source = self._slot_of(name := negative_name(branch.sequence))
        assert source is not None
        self._cache.move(source, self._scheduler.start([branch]).start, branch.prompt_length)
        return self._negatives[name]

    def _encoded(self, sequences: Ordered[Sequence]) -> list[tuple[Sequence, Prompt]]:
        return [pair for _, pairs in self._share_out(self._encodes, self._prompts, sequences) for pair in pairs]

    def _prompts(self, sequences: Ordered[Sequence]) -> list[tuple[Sequence, Prompt]]:
        try:
            prompts = self._model.prompt([sequence.model_input for sequence in sequences])
            return list(zip(sequences, prompts, strict=True))
        except Exception as failure:  # whatever it is, it must cost one row and not the batch
            if is_out_of_memory(failure):
                raise
            # Without its traceback, which would keep alive all that the batch had encoded so far.
            error = failure.with_traceback(None)
        if len(sequences) == 1:
            self._fail(sequences[0], error)
            return []
        log.warning("a batch of %d prompts failed (%r); trying them one by one", len(sequences), error)
        return [pair for sequence in sequences for pair in self._encoded([sequence])]

    def _share_out(
        self, limit: BatchLimit, work: Callable[[Ordered[One]], R], whole: Ordered[One], each: int = 1
    ) -> list[tuple[Ordered[One], R]]:
        """Do some work on branches or sequences, note those that failed for want of memory by themselves."""
        done = []
        for some, made in limit.run_in_batches(work, whole, each):
            if made is not None:
                done.append((some, made))
            else:
                self._short |= {one.sequence if isinstance(one, Branch) else one: None for one in some}
        return done

    def _prefilled(self, prompts: Mapping[Branch, Prompt]) -> dict[Branch, Tensor]:
        """Run prompts through the decoder; return the last hidden states (D,) of those that memory sufficed for."""
        hidden: dict[Branch, Tensor] = {}
        for length, branches in by_length(prompts):
            for _, last in self._share_out(self._prefills, partial(self._prefill, length, prompts), branches, length):
                hidden |= last
        return hidden

    def _prefill(
        self, length: int, prompts: Mapping[Branch, Prompt], branches: Ordered[Branch]
    ) -> dict[Branch, Tensor]:
        """Run prompts of one padded length through the decoder; return their last hidden states (D,)."""
        slots = self._scheduler.next_slots(len(branches))
        try:
            last = prefill(
                self._model, self._cache, slots, [prompts[branch] for branch in branches], length, PREFILL_TOKENS
            )
        except Exception:
            self._cache.clear(slots)  # a NaN half way would spoil whoever has the slot next
            raise
        self._scheduler.start(branches)
        self.num_prefilled += len(branches)
        return dict(zip(branches, last, strict=True))

    def _decode(self) -> None:
        """Feed every branch its sequence's pending tokens, and choose the next one of each sequence."""
        hidden: dict[Branch, Tensor] = {}
        for _, last in self._share_out(self._decodes, self._forward, list(self._scheduler.running)):
            hidden |= last
        self._answer(hidden)

    def _forward(self, branches: Ordered[Branch]) -> dict[Branch, Tensor]:
        """Feed some neighbours among the running branches; return their last hidden states (D,)."""
        device = self._model.device
        pending = [branch.sequence.pending for branch in branches]
        T = max(map(len, pending))
        tokens = torch.tensor([[*few, *few[-1:] * (T - len(few))] for few in pending], device=device)
        lengths, num_new = [branch.cached_length for branch in branches], [len(few) for few in pending]
        view = self._view_of(branches, T)
        first = self._scheduler.running.index(branches[0])
        cache_view = decode_cache_view(self._cache, lengths, num_new, device, view, first)
        hidden = self._model.decode(self._model.embed(tokens), cache_view)
        rows = torch.arange(len(branches), device=hidden.device)
        last = torch.tensor(num_new, device=hidden.device) - 1
        return dict(zip(branches, hidden[rows, last], strict=True))

    def _view_of(self, branches: Ordered[Branch], num_tokens: int) -> MemoryView | None:
        """Return what the next tokens of each branch see beside the cache."""
        memories = [branch.memory for branch in branches]
        if num_tokens > 1:
            return decode_memory_view(memories, num_tokens, self._model.device)
        if memories != self._memories:  # only where a branch came or went: making one moves numbers to the device
            self._memories, self._view = memories, decode_memory_view(memories, 1, self._model.device)
        return self._view

    def _answer(self, hidden: Mapping[Branch, Tensor]) -> None:
        """Choose the next token of each sequence from its branches' hidden states (D,); end those that are whole."""
        branches_of = defaultdict(list)
        for branch in hidden:
            branches_of[branch.sequence].append(branch)
        by_allowed = defaultdict(list)
        for sequence in branches_of:
            if sequence not in self._short:
                by_allowed[sequence.allowed].append(sequence)
        for allowed, sequences in by_allowed.items():
            first = 0 if allowed is None else allowed.start
            choose_for = partial(self._choose, hidden, branches_of, allowed)
            for some, choice in self._share_out(self._choices, choose_for, sequences):
                for sequence, token_id, logprob in zip(some, choice.token_ids, choice.logprobs, strict=True):
                    if sequence.append(first + token_id, logprob):
                        self._ended.append(sequence)

    def _choose(
        self,
        hidden: Mapping[Branch, Tensor],
        branches_of: Mapping[Sequence, list[Branch]],
        allowed: range | None,
        sequences: Ordered[Sequence],
    ) -> Choice:
        branches = [branch for sequence in sequences for branch in branches_of[sequence]]
        scores = guided(self._model.logits(torch.stack([hidden[branch] for branch in branches]), allowed), branches)
        return choose(scores, [s.sampling for s in sequences], [len(s.token_ids) for s in sequences])

    def _score(self, hidden: Mapping[Branch, Tensor]) -> None:
        """Score the choices of sequences, whose prompts' last hidden states (D,) are given; with that they end."""
        for num_fed, branches in by_feed(hidden).items():
            work = partial(score, self._model, self._cache, self._scheduler.running, hidden, num_fed)
            for some, scores in self._share_out(self._scores, work, branches, 1 + num_fed):
                for branch, logprobs in zip(some, scores, strict=True):
                    branch.sequence.choose(logprobs)
                self._ended += [branch.sequence for branch in some]

    def _leave(self) -> None:
        """Free the slots of those that have ended, and of those that must wait until they have the device alone."""
        leaving = {*self._short, *self._ended}
        if not leaving:
            return
        self._memories, self._view = [], None  # or what nobody sees any more would stay
        # From the back, so that closing one gap does not move a branch that leaves too.
        for slot, branch in reversed(list(enumerate(self._scheduler.running))):
            if branch.sequence in leaving:
                if branch.sequence.error is not None or branch.sequence in self._short:
                    self._cache.clear(slot)
                self._close(slot)
        for sequence in self._short:
            if sequence.is_alone:
                self._fail(sequence, _too_large(sequence, self._model.device))
        self._scheduler.put_back([sequence for sequence in self._short if not sequence.is_alone])
        self._short = {}

    def _close(self, slot: int) -> None:
        move = self._scheduler.end(slot)
        if move is not None:
            source, target = move
            self._cache.move(source, target, self._scheduler.running[target].cached_length)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        sequence.error = error
        self._ended.append(sequence)


def run_all(engine: Engine, sequences: Ordered[Sequence]) -> None:
    """Submit sequences and step until every one has ended."""
    for sequence in sequences:
        engine.submit(sequence)
    while not engine.is_idle:
        engine.step()


def _too_large(sequence: Sequence, device: torch.device) -> OutOfMemory:
    # Without torch's own words, which say how much was free: a row's error is to be the same in each run.
    tokens, tiles = sequence.longest_prompt, len(sequence.model_input.tiles)
    return OutOfMemory(
        f"the {device.type} has too little memory for a prompt of {tokens} tokens and {tiles} tiles, even alone"
    )
