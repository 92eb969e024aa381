"""Turn prompts into tokens, many at a time.

The engine knows sequences, the cache and the sampler. It knows nothing of images, text or Ray: a family's model
turns inputs into prompts, and whoever called decodes the tokens.

It lives as long as its caller: sequences are submitted at any time and end out of order, so that the slots stay
full from the first row of a run to the last.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Sequence as Ordered

import torch
from torch import Tensor
from torch.nn import functional as F

from models.engine.cache import Cache, decode_window, prefill_window
from models.engine.decoder import Decoder, Prompt
from models.engine.memory import Memory, MemoryView, decode_view, lasting, prefill_view
from models.engine.sampler import choose
from models.engine.scheduler import Scheduler, Sequence

log = logging.getLogger(__name__)

# Tokens of one prefill: enough for full matrix products, few enough that a 65,536-token prompt needs no more
# memory than its cache. A longer prompt goes through in chunks of this size.
PREFILL_TOKENS = 4096

# A prompt is padded to a multiple of this, and prefilled beside prompts of the same padded length alone. So the
# shapes it is computed in, and with them the last bits of its scores, do not depend on its company.
PREFILL_BLOCK = 16


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
        self._memories: list[Memory | None] = []  # what the running sequences see, and the view made of it
        self._view: MemoryView | None = None

    @property
    def num_waiting(self) -> int:
        """Sequences not yet started."""
        return len(self._scheduler.waiting)

    @property
    def num_running(self) -> int:
        """Sequences being answered."""
        return len(self._scheduler.running)

    @property
    def is_idle(self) -> bool:
        """Whether a step would have nothing to do or to return."""
        return not (self._scheduler.waiting or self._scheduler.running or self._ended)

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; one that cannot fit ends at once, with its error, at the next step."""
        try:
            self._scheduler.submit(sequence)
        except ValueError as error:
            self._fail(sequence, error)

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Start what fits, give every running sequence one more token, return those that have ended."""
        for length, pack in self._packs(self._scheduler.admit()):
            self._prefill(length, pack)
        if self._scheduler.running:
            self._decode()
        ended, self._ended = self._ended, []
        return ended

    def _packs(self, sequences: list[Sequence]) -> Iterator[tuple[int, list[tuple[Sequence, Prompt]]]]:
        """Encode inputs; yield those of one padded length together, as many as a prefill holds."""
        by_length = defaultdict(list)
        for sequence, prompt in self._encoded(sequences):
            padded = -(-sequence.prompt_length // PREFILL_BLOCK) * PREFILL_BLOCK
            by_length[padded].append((sequence, prompt))
        for length, pairs in by_length.items():
            size = max(1, PREFILL_TOKENS // length)
            for first in range(0, len(pairs), size):
                yield length, pairs[first : first + size]

    def _encoded(self, sequences: list[Sequence]) -> list[tuple[Sequence, Prompt]]:
        if not sequences:
            return []
        error = None
        try:
            prompts = self._model.prompt([sequence.model_input for sequence in sequences])
            return list(zip(sequences, prompts, strict=True))
        except Exception as failure:  # whatever it is, it must cost one row and not the batch
            # Without its traceback, which would keep alive all that the batch had encoded so far.
            error = failure.with_traceback(None)
        if len(sequences) == 1:
            self._fail(sequences[0], error)
            return []
        log.warning("a batch of %d prompts failed (%r); trying them one by one", len(sequences), error)
        return [pair for sequence in sequences for pair in self._encoded([sequence])]

    def _prefill(self, length: int, pack: list[tuple[Sequence, Prompt]]) -> None:
        slots = self._scheduler.start([sequence for sequence, _ in pack])
        for sequence, prompt in pack:
            sequence.memory = lasting(prompt.spans)
        lengths = [sequence.prompt_length for sequence, _ in pack]
        embeddings = torch.stack([F.pad(p.embeddings, (0, 0, 0, length - len(p.embeddings))) for _, p in pack])
        # More than one chunk only ever means one prompt (see _packs); the last one made holds its last token.
        for start in range(0, max(lengths), PREFILL_TOKENS):
            chunk = embeddings[:, start : start + PREFILL_TOKENS]
            places = range(start, start + chunk.shape[1])
            view = prefill_view([prompt.spans for _, prompt in pack], places, chunk.device)
            hidden = self._model.decode(chunk, prefill_window(self._cache, slots, places, chunk.device, view))
        rows = torch.arange(len(lengths), device=hidden.device)
        last = torch.tensor([length - 1 - start for length in lengths], device=hidden.device)
        self._append(self._model.logits(hidden[rows, last]), slots)

    def _decode(self) -> None:
        running = self._scheduler.running
        device = self._model.device
        newest = torch.tensor([[sequence.token_ids[-1]] for sequence in running], device=device)
        lengths = [sequence.cached_length for sequence in running]
        memories = [sequence.memory for sequence in running]
        if memories != self._memories:  # only where a sequence came or went: making one moves numbers to the device
            self._memories, self._view = memories, decode_view(memories, device)
        window = decode_window(self._cache, torch.tensor(lengths, device=device), max(lengths), self._view)
        hidden = self._model.decode(self._model.embed(newest), window)
        self._append(self._model.logits(hidden[:, 0]), slice(0, len(running)))

    def _append(self, logits: Tensor, slots: slice) -> None:
        sequences = self._scheduler.running[slots]
        choice = choose(logits, [s.sampling for s in sequences], [len(s.token_ids) for s in sequences])
        ended = [
            slots.start + i
            for i, sequence in enumerate(sequences)
            if sequence.append(choice.token_ids[i], choice.logprobs[i])
        ]
        if ended:
            self._memories, self._view = [], None  # or what nobody sees any more would stay
        # From the back, so that closing one gap does not move a sequence that ends too.
        for slot in reversed(ended):
            sequence = self._scheduler.running[slot]
            if sequence.error is not None:
                self._cache.clear(slot)
            self._ended.append(sequence)
            self._close(slot)

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
