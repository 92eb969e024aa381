"""Turn prompts into tokens, or score given ones behind them, many at a time.

The engine knows sequences, the cache and the sampler. It knows nothing of images, text or Ray: a family's model
turns inputs into prompts, and whoever called decodes the tokens.

It lives as long as its caller: sequences are submitted at any time and end out of order, so that the slots stay
full from the first row of a run to the last. All work goes through a MemoryGuard: where the device's memory runs out,
less is done at once. A sequence that is too large even by itself starts over once nothing runs beside it, and fails
if memory runs out again.
"""

import logging
from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from functools import partial

import torch
from torch import Tensor

from models.cache.memory import MemoryView, decode_memory_view
from models.cache.slots import Cache
from models.capacity.out_of_memory import OutOfMemory, is_out_of_memory, release_cached_memory
from models.engine.decoder import Decoder, Prompt
from models.engine.graphed import GraphedSteps, can_record, feed
from models.engine.guidance import branches_of
from models.engine.lanes import MOST_TOKENS, Group, Lanes, Readback
from models.engine.memory_guard import MemoryGuard
from models.engine.prefill import Prefix, by_length, in_blocks, prefill
from models.engine.prefixes import Prefixes, kept_bytes
from models.engine.scheduler import Branch, Scheduler, Sequence
from models.engine.scoring import by_feed, score
from models.engine.speculation import choose_in_windows
from models.kernels.graph import record_cuda_graph
from models.stopwatch import Stopwatch

log = logging.getLogger(__name__)

# Tokens of one prefill: enough for full matrix products, few enough that a 65,536-token prompt needs no more
# memory than its cache. A longer prompt goes through in chunks of this size.
PREFILL_TOKENS = 4096
# Steps that are on their way on a device when the host reads what the last of them has chosen. On a CPU there is
# nothing to wait for. A row that ends runs on for so long, into its own slot.
STEPS_LATE = {"cuda": 2}


class Engine:
    """Continuous batching over static slots, for one model. Not thread-safe: one thread owns it."""

    def __init__(
        self, model: Decoder, *, slots: int, max_length: int, speculate: int = 1, stopwatch: Stopwatch | None = None
    ) -> None:
        """Allocate the cache.

        Args:
            model: A family's model.
            slots: Sequences answered at once.
            max_length: The longest sequence, prompt and answer together.
            speculate: The most tokens of a drawn picture that a step may bring, see models/engine/speculation.py.
            stopwatch: Gets the seconds of `encode`, `prefill` and `decode`, and prompts' tokens: `asked_tokens`, and of
                these `prefilled_tokens`, which went through the decoder.

        Raises:
            ValueError: A setting is below 1, or longer than the model's positions.
        """
        if slots < 1 or not 1 < max_length <= model.max_position_embeddings:
            raise ValueError(
                f"slots is {slots} and max_length {max_length}; expected at least 1 slot and a length from 2 to "
                f"the checkpoint's max_position_embeddings, {model.max_position_embeddings}"
            )
        self._model = model
        devices = model.cache_shape.devices
        late = STEPS_LATE.get(model.device.type, 0)
        self._window = max(speculate, MOST_TOKENS)
        self._room = (late + (speculate > 1)) * self._window  # how much further a lane may be than the host knows
        self._cache = Cache(model.cache_shape, slots, max_length + self._room)
        if speculate > 1 and late and not self._cache.tables:
            raise ValueError(f"speculate is {speculate}, which takes Triton on a GPU, and there is none; expected 1")
        self._speculates, self._fits_windows = speculate > 1, True
        # Each device works on a part of what runs: while the layers of one have the first, another has the second.
        self._num_parts = len(set(devices))
        self._scheduler = Scheduler(slots, max_length)
        embedding = model.embed(torch.zeros(1, dtype=torch.int64, device=model.device)).detach()
        self._lanes = Lanes(slots, embedding.to(devices[-1]), self._window)
        self._readback = Readback(late * self._num_parts)
        self._graphed = None
        if can_record(model, self._cache):
            self._graphed = GraphedSteps(model, self._cache, self._lanes, slots, record_cuda_graph)
        self._company = 0  # another number for every set of running branches
        self._stopwatch = stopwatch or Stopwatch()
        self._guard = MemoryGuard(
            model.device, encode=slots, prefill=PREFILL_TOKENS, decode=slots, sample=slots, score=PREFILL_TOKENS
        )
        self._ended: list[Sequence] = []
        self._groups: dict[int, list[Group]] = {}  # by part of what runs; empty when a branch has come or gone
        self._memory_views: dict[tuple[int, int, int], MemoryView | None] = {}  # made of what all that run see
        self._prefixes = Prefixes(model, self._guard, kept_bytes(model.cache_shape, slots, max_length))
        self.num_asked = 0  # tokens of prompts that have started, negative ones too
        self._num_copied = 0  # of those, what was copied from a prefix

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
    def num_prefilled(self) -> int:
        """Tokens of prompts that went through the decoder; those of a prefix that several share did so once."""
        return self.num_asked - self._num_copied + self._prefixes.num_computed

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
            if encoded:
                self._choose(self._prefill(encoded))
                self._read(everything=False)
                self._free_slots()
        if self._scheduler.running:
            with self._stopwatch.measure("decode"):
                self._decode_and_choose()
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

    def _prefill(self, encoded: Ordered[tuple[Sequence, Prompt]]) -> list[Branch]:
        """Bring prompts into the cache, and their last hidden states into the lanes; return what has started."""
        prompts = dict(pair for sequence, prompt in encoded for pair in branches_of(sequence, prompt))
        started: list[Branch] = []
        asked, prefilled = self.num_asked, self.num_prefilled
        for prefixes in self._prefixes.packs(prompts, PREFILL_TOKENS):
            for length, branches in by_length(prefixes, self._cache, PREFILL_TOKENS):
                work = partial(self._prefill_batch, prompts, prefixes)
                for some, _ in self._guard.run("prefill", work, branches, cost=max(length, 1)):
                    started += some
        self._stopwatch.add("asked_tokens", self.num_asked - asked)
        self._stopwatch.add("prefilled_tokens", self.num_prefilled - prefilled)
        return started

    def _prefill_batch(
        self, prompts: Mapping[Branch, Prompt], prefixes: Mapping[Branch, Prefix | None], branches: Ordered[Branch]
    ) -> bool:
        """Bring prompts into the cache, behind their prefixes."""
        slots = self._scheduler.next_slots(len(branches))
        some, known = [prompts[branch] for branch in branches], [prefixes[branch] for branch in branches]
        run = partial(prefill, self._model, self._cache, slots, some, known)
        longest = max(in_blocks(branch.prompt_length - branch.prefix_length) for branch in branches)
        try:
            last = self._guard.in_chunks(run, min(longest, PREFILL_TOKENS), branches)
        except Exception:
            self._cache.clear(slots)  # a NaN half way would spoil whoever has the slot next
            raise
        self._lanes.start(self._scheduler.start(branches), branches, last)
        self._change_company()
        self.num_asked += sum(branch.prompt_length for branch in branches)
        self._num_copied += sum(branch.prefix_length for branch in branches)
        return True

    def _decode_and_choose(self) -> None:
        """Feed every branch its sequence's pending tokens, and choose the next ones."""
        running = self._scheduler.running
        if self._speculates and self._fits_windows and self._decode_windows():
            return
        if self._graphed is not None:
            groups, num_tokens = self._groups_of(running, part=0), self._most_pending(running)
            chosen = self._graphed.run(running, groups, self._company, num_tokens, in_windows=False)
            if chosen is not None:
                for group, tensor in zip(groups, chosen, strict=True):
                    self._note(group.sequences, tensor)
                self._read(everything=False)
                return
        size = -(-len(running) // self._num_parts)
        parts = [running[first : first + size] for first in range(0, len(running), size)]
        last = {branch.sequence: number for number, part in enumerate(parts) for branch in part}
        for number, part in enumerate(parts):
            self._guard.run("decode", self._decode_batch, part)
            self._choose([branch for branch in running if last[branch.sequence] == number], part=number)
        self._read(everything=False)

    def _decode_windows(self) -> bool:
        """Feed and choose several tokens of each, where all that run draw pictures; return whether it was done."""
        running = self._scheduler.running
        groups = self._groups_of(running, part=0)
        if len(groups) != 1 or groups[0].lines is None:
            return False
        group, lanes = groups[0], slice(0, len(running))
        if self._graphed is not None:
            recorded = self._graphed.run(running, groups, self._company, self._window, in_windows=True)
            if recorded is not None:
                self._readback.add(group.sequences, recorded[0])
                self._read(everything=False)
                return True
        lengths = [branch.cached_length + self._window for branch in running]
        try:
            hidden = feed(self._model, self._cache, self._lanes, lanes, self._window, lengths, None)
            chosen = choose_in_windows(self._model, self._lanes, group, hidden)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._fits_windows = False
            release_cached_memory(self._model.device)
            log.warning("too little memory for windows of %d tokens: pictures are drawn one by one", self._window)
            return False
        self._readback.add(group.sequences, chosen)
        self._read(everything=False)
        return True

    def _decode_batch(self, branches: Ordered[Branch]) -> bool:
        """Feed some neighbours among the running branches."""
        num_tokens = self._most_pending(branches)
        first = self._scheduler.running.index(branches[0])
        lengths = [branch.cached_length + branch.sequence.num_pending for branch in branches]
        memory_view = self._view_memories(branches, first, num_tokens)
        lanes = slice(first, first + len(branches))
        hidden = feed(self._model, self._cache, self._lanes, lanes, num_tokens, lengths, memory_view)
        self._lanes.keep(lanes, hidden)
        return True

    def _most_pending(self, branches: Ordered[Branch]) -> int:
        """Return the most tokens that any of some branches feeds next."""
        # After windows the host may not know yet whose line ends.
        return MOST_TOKENS if self._speculates else max(branch.sequence.num_pending for branch in branches)

    def _view_memories(self, branches: Ordered[Branch], first: int, num_tokens: int) -> MemoryView | None:
        """Return what the next tokens of branches see beside the cache; making it moves numbers to the device."""
        name = first, len(branches), num_tokens
        if name not in self._memory_views:
            memories = [branch.memory for branch in branches]
            self._memory_views[name] = decode_memory_view(memories, num_tokens, self._model.device)
        return self._memory_views[name]

    def _choose(self, branches: Ordered[Branch], part: int | None = None) -> None:
        """Choose the next token of each sequence of branches, or score its choices.

        Args:
            branches: Whose last hidden states are there.
            part: Which part of all that run they are, if they are one.
        """
        self._score_choices([branch for branch in branches if branch.sequence.is_scored])
        for group in self._groups_of(branches, part):
            for some, chosen in self._guard.run("sample", partial(self._choose_tokens, group), group.sequences):
                self._note(some, chosen)

    def _note(self, sequences: Ordered[Sequence], chosen: Tensor) -> None:
        """Note that the next tokens of sequences have been chosen."""
        for sequence in sequences:
            sequence.count_chosen()
        self._readback.add(sequences, chosen)

    def _groups_of(self, branches: Ordered[Branch], part: int | None) -> list[Group]:
        """Return the sequences of branches whose next tokens are to be chosen, by how that is done."""
        if part is None or self._guard.too_large or part not in self._groups:
            every = dict.fromkeys(branch.sequence for branch in branches if not branch.sequence.is_scored)
            found = self._lanes.groups([s for s in every if s not in self._guard.too_large], self._scheduler.running)
            if part is None or self._guard.too_large:
                return found
            self._groups[part] = found
        return self._groups[part]

    def _choose_tokens(self, group: Group, sequences: Ordered[Sequence]) -> Tensor:
        """Choose the next tokens of some of a group; return ids and log-probabilities, see Lanes.answer."""
        if len(sequences) < len(group.sequences):
            [group] = self._lanes.groups(sequences, self._scheduler.running)
        return self._lanes.answer(self._model, group)

    def _read(self, *, everything: bool) -> None:
        """Take in the tokens that have been chosen; end the sequences that are whole."""
        for sequence, found in self._readback.read(everything=everything):
            if sequence.take(found):
                self._ended.append(sequence)

    def _score_choices(self, branches: Ordered[Branch]) -> None:
        """Score the choices of sequences behind their prompts; with that they end."""
        running = self._scheduler.running
        hidden = {branch: self._lanes.hidden[running.index(branch)] for branch in branches}
        for num_fed, branches in by_feed(hidden).items():
            work = partial(score, self._model, self._cache, running, hidden, num_fed)
            for some, scores in self._guard.run("score", work, branches, cost=1 + num_fed):
                for branch, logprobs in zip(some, scores, strict=True):
                    branch.sequence.choose(logprobs)
                self._ended += [branch.sequence for branch in some]

    def _free_slots(self) -> None:
        """Free the slots of sequences that have ended, and of those that must wait until they are alone."""
        if self._guard.too_large:
            self._read(everything=True)  # or what is under way would come to those that start over
            self._prefixes.forget()
        too_large = [sequence for sequence in self._guard.too_large if not sequence.has_ended]
        self._guard.too_large = {}
        leaving = {*too_large, *self._ended}
        if not leaving:
            return
        self._change_company()
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

    def _change_company(self) -> None:
        """Forget what was made of all that run: somebody comes or goes, and what nobody sees any more must not stay."""
        self._groups, self._memory_views = {}, {}
        self._company += 1

    def _close(self, slot: int) -> None:
        move = self._scheduler.end(slot)
        if move is not None:
            source, target = move
            length = self._scheduler.running[target].cached_length + self._room * self._speculates
            self._cache.move(source, target, min(length, self._cache.length))
            self._lanes.move(source, target)

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
