"""Turn prompts into tokens, many at a time.

The engine knows sequences, the cache and the sampler. It knows nothing of images, text or Ray: a family's model
turns inputs into prompts, and whoever called decodes the tokens.

It lives as long as its caller: sequences are submitted at any time and end out of order, so that the slots stay
full from the first row of a run to the last.
"""

import logging
from collections.abc import Sequence as Ordered

import torch
from torch import Tensor

from models.engine.cache import Cache, decode_window, prefill_window
from models.engine.decoder import Decoder, Prompt
from models.engine.sampler import choose
from models.engine.scheduler import Scheduler, Sequence

log = logging.getLogger(__name__)

# Tokens of one prefill: enough for full matrix products, few enough that a 65,536-token prompt needs no more
# memory than its cache. A longer prompt goes through in chunks of this size.
PREFILL_TOKENS = 4096


class Engine:
    """Continuous batching over static slots, for one model on one device. Not thread-safe: one thread owns it."""

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
        self._cache = Cache(model.cache_shape, slots, max_length, model.device)
        self._scheduler = Scheduler(slots, max_length)
        self._ended: list[Sequence] = []

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
        for sequences, prompts in self._prompted(self._scheduler.admit()):
            self._prefill(sequences, prompts)
        if self._scheduler.running:
            self._decode()
        ended, self._ended = self._ended, []
        return ended

    def _prompted(self, sequences: list[Sequence]) -> list[tuple[list[Sequence], list[Prompt]]]:
        """Encode inputs and pack them into prefills of similar length."""
        pairs = sorted(self._encoded(sequences), key=lambda pair: pair[0].prompt_length)
        packs: list[tuple[list[Sequence], list[Prompt]]] = []
        for sequence, prompt in pairs:
            # Sorted, so this prompt is the longest so far and sets the width of the pack.
            if packs and (len(packs[-1][0]) + 1) * sequence.prompt_length <= PREFILL_TOKENS:
                packs[-1][0].append(sequence)
                packs[-1][1].append(prompt)
            else:
                packs.append(([sequence], [prompt]))
        return packs

    def _encoded(self, sequences: list[Sequence]) -> list[tuple[Sequence, Prompt]]:
        if not sequences:
            return []
        try:
            prompts = self._model.prompt([sequence.model_input for sequence in sequences])
        except Exception as error:  # whatever it is, it must cost one row and not the batch
            if len(sequences) == 1:
                self._fail(sequences[0], error)
                return []
            log.warning("a batch of %d prompts failed (%r); trying them one by one", len(sequences), error)
            return [pair for sequence in sequences for pair in self._encoded([sequence])]
        return list(zip(sequences, prompts, strict=True))

    def _prefill(self, sequences: list[Sequence], prompts: list[Prompt]) -> None:
        slots = self._scheduler.start(sequences)
        lengths = [sequence.prompt_length for sequence in sequences]
        embeddings = torch.nn.utils.rnn.pad_sequence([prompt.embeddings for prompt in prompts], batch_first=True)
        # More than one chunk only ever means one prompt (see _prompted), so the last chunk holds its last token.
        for start in range(0, embeddings.shape[1], PREFILL_TOKENS):
            chunk = embeddings[:, start : start + PREFILL_TOKENS]
            hidden = self._model.decode(chunk, prefill_window(self._cache, slots, chunk.shape[1], start))
        rows = torch.arange(len(lengths), device=hidden.device)
        last = torch.tensor([length - 1 - start for length in lengths], device=hidden.device)
        self._append(self._model.logits(hidden[rows, last]), slots)

    def _decode(self) -> None:
        running = self._scheduler.running
        newest = torch.tensor([[sequence.token_ids[-1]] for sequence in running], device=self._model.device)
        lengths = [sequence.cached_length for sequence in running]
        window = decode_window(self._cache, torch.tensor(lengths, device=self._model.device), max(lengths))
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
