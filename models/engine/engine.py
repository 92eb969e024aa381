"""Turn prompts into tokens, or score given ones behind them, many at a time.

The engine knows sequences, the cache and the sampler. It knows nothing of images, text or Ray: a family's model
turns inputs into prompts, and whoever called decodes the tokens.

It lives as long as its caller: sequences are submitted at any time and end out of order, so that the slots stay
full from the first row of a run to the last. All work goes through a MemoryGuard: where the device's memory runs out,
less is done at once. A sequence that is too large even by itself starts over once nothing runs beside it, and fails
if memory runs out again.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from functools import partial

import torch
from torch import Tensor

from models.engine.cache import Cache, decode_cache_view
from models.engine.decoder import Decoder, Prompt
from models.engine.guidance import NewBranches, guided, negative_name, new_branches
from models.engine.memory import Memory, MemoryView, decode_memory_view
from models.engine.out_of_memory import MemoryGuard, OutOfMemory, is_out_of_memory
from models.engine.prefill import by_length, prefill
from models.engine.sampler import Choice, choose
from models.engine.scheduler import Branch, Scheduler, Sequence
from models.engine.scoring import by_feed, score
from models.stopwatch import Stopwatch

log = logging.getLogger(__name__)

# Tokens of one prefill: enough for full matrix products, few enough that a 65,536-token prompt needs no more
# memory than its cache. A longer prompt goes through in chunks of this size.
PREFILL_TOKENS = 4096


class Engine:
    """Continuous batching over static slots, for one model. Not thread-safe: one thread owns it."""

    def __init__(self, model: Decoder, *, slots: int, max_length: int, stopwatch: Stopwatch | None = None) -> None:
        """Allocate the cache.

        Args:
            model: A family's model.
            slots: Sequences answered at once.
            max_length: The longest sequence, prompt and answer together.
            stopwatch: Gets the seconds of `encode`, `prefill` and `decode`.

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
        self._stopwatch = stopwatch or Stopwatch()
        self._guard = MemoryGuard(
            model.device, encode=slots, prefill=PREFILL_TOKENS, decode=slots, sample=slots, score=PREFILL_TOKENS
        )
        self._ended: list[Sequence] = []
        self._memories: list[Memory | None] = []  # what the running branches see, and the view made of it
        self._memory_view: MemoryView | None = None
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
        return self._guard.num_out_of_memory

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; one that cannot fit ends at once, with its error, at the next step."""
        try:
            self._scheduler.submit(sequence)
        except ValueError as error:
            self._fail(sequence, error)

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Start what fits, give every running sequence one more token, return those that have ended."""
        with self._stopwatch.measure("encode"):
            encoded = self._encode(self._scheduler.admit())
        with self._stopwatch.measure("prefill"):
            self._answer(self._prefill(encoded))
            self._free_slots()
        if self._scheduler.running:
            with self._stopwatch.measure("decode"):
                self._answer(self._decode())
                self._free_slots()
        ended, self._ended = self._ended, []
        return ended

    def _encode(self, sequences: Ordered[Sequence]) -> list[tuple[Sequence, Prompt]]:
        """Bring inputs onto the device."""
        return [pair for _, pairs in self._guard.run("encode", self._encode_batch, sequences) for pair in pairs]

    def _encode_batch(self, sequences: Ordered[Sequence]) -> list[tuple[Sequence, Prompt]]:
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
        return [pair for sequence in sequences for pair in self._encode([sequence])]

    def _prefill(self, encoded: list[tuple[Sequence, Prompt]]) -> dict[Branch, Tensor]:
        """Bring prompts into the cache; return their last hidden states (D,)."""
        new = new_branches(encoded, lambda name: self._slot_of(name) is not None)
        hidden: dict[Branch, Tensor] = {}
        for length, branches in by_length(new.prompts):
            work = partial(self._prefill_batch, length, new.prompts)
            for _, last in self._guard.run("prefill", work, branches, cost=length):
                hidden |= last
        return hidden | self._copy_negatives(new, hidden)

    def _prefill_batch(
        self, length: int, prompts: Mapping[Branch, Prompt], branches: Ordered[Branch]
    ) -> dict[Branch, Tensor]:
        """Run prompts of one padded length through the decoder; return their last hidden states (D,)."""
        slots = self._scheduler.next_slots(len(branches))
        try:
            some = [prompts[branch] for branch in branches]
            last = prefill(self._model, self._cache, slots, some, length, PREFILL_TOKENS)
        except Exception:
            self._cache.clear(slots)  # a NaN half way would spoil whoever has the slot next
            raise
        self._scheduler.start(branches)
        self.num_prefilled += len(branches)
        return dict(zip(branches, last, strict=True))

    def _copy_negatives(self, new: NewBranches, hidden: Mapping[Branch, Tensor]) -> dict[Branch, Tensor]:
        """Start the branches whose negative prompt another one holds; return their last hidden states (D,)."""
        # Not more than are in the cache; and by itself, or each would keep its whole pack.
        self._negatives = {name: last for name, last in self._negatives.items() if self._slot_of(name) is not None}
        self._negatives |= {name: hidden[branch] for name, branch in new.negative.items() if branch in hidden}
        copied = {}
        for branch in new.shared:
            name = negative_name(branch.sequence)
            source = self._slot_of(name)
            if source is None or name not in self._negatives:
                self._guard.too_large[branch.sequence] = None
                continue
            self._cache.move(source, self._scheduler.start([branch]).start, branch.prompt_length)
            copied[branch] = self._negatives[name]
        return copied

    def _slot_of(self, name: bytes) -> int | None:
        """Return a slot whose branch holds a negative prompt of this name."""
        for slot, branch in enumerate(self._scheduler.running):
            if branch.is_negative and negative_name(branch.sequence) == name:
                return slot
        return None

    def _decode(self) -> dict[Branch, Tensor]:
        """Feed every branch its sequence's pending tokens; return the last hidden states (D,)."""
        hidden: dict[Branch, Tensor] = {}
        for _, last in self._guard.run("decode", self._decode_batch, list(self._scheduler.running)):
            hidden |= last
        return hidden

    def _decode_batch(self, branches: Ordered[Branch]) -> dict[Branch, Tensor]:
        """Feed some neighbours among the running branches; return their last hidden states (D,)."""
        device = self._model.device
        pending = [branch.sequence.pending for branch in branches]
        T = max(map(len, pending))
        tokens = torch.tensor([[*few, *few[-1:] * (T - len(few))] for few in pending], device=device)
        lengths, num_new = [branch.cached_length for branch in branches], [len(few) for few in pending]
        offsets = [branch.offset for branch in branches]
        memory_view = self._view_memories([branch.memory for branch in branches], T)
        first = self._scheduler.running.index(branches[0])
        cache_view = decode_cache_view(self._cache, lengths, num_new, offsets, device, memory_view, first)
        hidden = self._model.decode(self._model.embed(tokens), cache_view)
        rows = torch.arange(len(branches), device=hidden.device)
        last = torch.tensor(num_new, device=hidden.device) - 1
        return dict(zip(branches, hidden[rows, last], strict=True))

    def _view_memories(self, memories: list[Memory | None], num_tokens: int) -> MemoryView | None:
        """Return what the next tokens of branches see beside the cache."""
        if num_tokens > 1:
            return decode_memory_view(memories, num_tokens, self._model.device)
        if memories != self._memories:  # only where a branch came or went: making one moves numbers to the device
            self._memories, self._memory_view = memories, decode_memory_view(memories, 1, self._model.device)
        return self._memory_view

    def _answer(self, hidden: Mapping[Branch, Tensor]) -> None:
        """Choose the next token of each sequence from its branches' last hidden states (D,), or score its choices."""
        self._choose_tokens({branch: last for branch, last in hidden.items() if not branch.sequence.is_scored})
        self._score_choices({branch: last for branch, last in hidden.items() if branch.sequence.is_scored})

    def _choose_tokens(self, hidden: Mapping[Branch, Tensor]) -> None:
        """Choose the next token of each sequence; end those that are whole."""
        branches_of, by_allowed = defaultdict(list), defaultdict(list)
        for branch in hidden:
            branches_of[branch.sequence].append(branch)
        for sequence in branches_of:
            if sequence not in self._guard.too_large:
                by_allowed[sequence.allowed].append(sequence)
        for allowed, sequences in by_allowed.items():
            first = 0 if allowed is None else allowed.start
            work = partial(self._sample, hidden, branches_of, allowed)
            for some, choice in self._guard.run("sample", work, sequences):
                for sequence, token_id, logprob in zip(some, choice.token_ids, choice.logprobs, strict=True):
                    if sequence.append(first + token_id, logprob):
                        self._ended.append(sequence)

    def _sample(
        self,
        hidden: Mapping[Branch, Tensor],
        branches_of: Mapping[Sequence, list[Branch]],
        allowed: range | None,
        sequences: Ordered[Sequence],
    ) -> Choice:
        branches = [branch for sequence in sequences for branch in branches_of[sequence]]
        scores = guided(self._model.logits(torch.stack([hidden[branch] for branch in branches]), allowed), branches)
        return choose(scores, [s.sampling for s in sequences], [len(s.token_ids) for s in sequences])

    def _score_choices(self, hidden: Mapping[Branch, Tensor]) -> None:
        """Score the choices of sequences behind their prompts; with that they end."""
        for num_fed, branches in by_feed(hidden).items():
            work = partial(score, self._model, self._cache, self._scheduler.running, hidden, num_fed)
            for some, scores in self._guard.run("score", work, branches, cost=1 + num_fed):
                for branch, logprobs in zip(some, scores, strict=True):
                    branch.sequence.choose(logprobs)
                self._ended += [branch.sequence for branch in some]

    def _free_slots(self) -> None:
        """Free the slots of sequences that have ended, and of those that must wait until they are alone."""
        too_large, self._guard.too_large = self._guard.too_large, {}
        leaving = {*too_large, *self._ended}
        if not leaving:
            return
        self._memories, self._memory_view = [], None  # or what nobody sees any more would stay
        # From the back, so that closing one gap does not move a branch that leaves too.
        for slot, branch in reversed(list(enumerate(self._scheduler.running))):
            if branch.sequence in leaving:
                if branch.sequence.error is not None or branch.sequence in too_large:
                    self._cache.clear(slot)
                self._close(slot)
        for sequence in too_large:
            if sequence.is_alone:
                self._fail(sequence, _too_large(sequence, self._model.device))
        self._scheduler.put_back([sequence for sequence in too_large if not sequence.is_alone])

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
