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
from models.engine.scheduler import Lane, Scheduler, Sequence

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
        self._memories: list[Memory | None] = []  # what the running lanes see, and the view made of it
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
        return len({id(lane.sequence) for lane in self._scheduler.running})

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
        self._start(self._encoded(self._scheduler.admit()))
        if self._scheduler.running:
            self._decode()
        ended, self._ended = self._ended, []
        return ended

    def _start(self, encoded: list[tuple[Sequence, Prompt]]) -> None:
        """Bring prompts into the cache and choose their answers' first tokens."""
        own, negative, shared = [], {}, []
        for sequence, prompt in encoded:
            sequence.grammar = prompt.grammar
            own.append((Lane(sequence, len(prompt.embeddings), memory=lasting(prompt.spans)), prompt))
            if not sequence.is_guided:
                continue
            assert prompt.negative is not None
            lane, name = Lane(sequence, len(prompt.negative), is_negative=True), _name(sequence)
            if name in negative or self._slot_of(name) is not None:
                shared.append(lane)
            else:
                negative[name] = (lane, Prompt(prompt.negative))
        hidden: dict[Lane, Tensor] = {}
        for length, pack in _packs([*own, *negative.values()]):
            hidden |= zip((lane for lane, _ in pack), self._prefill(length, pack), strict=True)
        # Not more than are in the cache; and by itself, or each would keep its whole pack.
        self._negatives = {name: last for name, last in self._negatives.items() if self._slot_of(name) is not None}
        self._negatives |= {name: hidden[lane].clone() for name, (lane, _) in negative.items()}
        hidden |= {lane: self._copy(lane) for lane in shared}
        if hidden:
            self._answer(torch.stack(list(hidden.values())), list(hidden))

    def _slot_of(self, name: bytes) -> int | None:
        """Return a slot whose lane holds a negative prompt of this name."""
        lanes = enumerate(self._scheduler.running)
        return next((slot for slot, lane in lanes if lane.is_negative and _name(lane.sequence) == name), None)

    def _copy(self, lane: Lane) -> Tensor:
        """Start a lane whose negative prompt another one holds; return its last hidden state."""
        name = _name(lane.sequence)
        source = self._slot_of(name)
        assert source is not None
        target = self._scheduler.start([lane]).start
        self._cache.move(source, target, lane.prompt_length)
        return self._negatives[name]

    def _encoded(self, sequences: list[Sequence]) -> list[tuple[Sequence, Prompt]]:
        if not sequences:
            return []
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

    def _prefill(self, length: int, pack: list[tuple[Lane, Prompt]]) -> Tensor:
        """Run prompts of one padded length through the decoder; return their last hidden states (B, D)."""
        slots = self._scheduler.start([lane for lane, _ in pack])
        self.num_prefilled += len(pack)
        lengths = [lane.prompt_length for lane, _ in pack]
        embeddings = torch.stack([F.pad(p.embeddings, (0, 0, 0, length - len(p.embeddings))) for _, p in pack])
        # More than one chunk only ever means one prompt (see _packs); the last one made holds its last token.
        for start in range(0, max(lengths), PREFILL_TOKENS):
            chunk = embeddings[:, start : start + PREFILL_TOKENS]
            places = range(start, start + chunk.shape[1])
            view = prefill_view([prompt.spans for _, prompt in pack], places, chunk.device)
            hidden = self._model.decode(chunk, prefill_window(self._cache, slots, places, chunk.device, view))
        rows = torch.arange(len(lengths), device=hidden.device)
        last = torch.tensor([length - 1 - start for length in lengths], device=hidden.device)
        return hidden[rows, last]

    def _decode(self) -> None:
        """Feed every lane its sequence's pending tokens, and choose the next one of each sequence."""
        lanes = list(self._scheduler.running)
        device = self._model.device
        pending = [lane.sequence.pending for lane in lanes]
        T = max(map(len, pending))
        tokens = torch.tensor([[*few, *few[-1:] * (T - len(few))] for few in pending], device=device)
        lengths = [lane.cached_length for lane in lanes]
        window = decode_window(
            self._cache, torch.tensor(lengths, device=device), max(lengths), T, self._view_of(lanes, T)
        )
        hidden = self._model.decode(self._model.embed(tokens), window)
        rows = torch.arange(len(lanes), device=hidden.device)
        last = torch.tensor([len(few) - 1 for few in pending], device=hidden.device)
        self._answer(hidden[rows, last], lanes)

    def _view_of(self, lanes: list[Lane], num_tokens: int) -> MemoryView | None:
        """Return what the next tokens of each lane see beside the cache."""
        memories = [lane.memory for lane in lanes]
        if num_tokens > 1:
            return decode_view(memories, num_tokens, self._model.device)
        if memories != self._memories:  # only where a lane came or went: making one moves numbers to the device
            self._memories, self._view = memories, decode_view(memories, 1, self._model.device)
        return self._view

    def _answer(self, hidden: Tensor, lanes: list[Lane]) -> None:
        """Choose the next token of each sequence from its lanes' hidden states (B, D); end those that are whole."""
        by_choices = defaultdict(list)
        for row, lane in enumerate(lanes):
            by_choices[lane.sequence.choices].append(row)
        ended: set[Sequence] = set()
        for choices, rows in by_choices.items():
            some = hidden if len(rows) == len(lanes) else hidden[rows]
            scores, sequences = _guided(self._model.logits(some, choices), [lanes[row] for row in rows])
            choice = choose(scores, [s.sampling for s in sequences], [len(s.token_ids) for s in sequences])
            first = 0 if choices is None else choices.start
            for sequence, token_id, logprob in zip(sequences, choice.token_ids, choice.logprobs, strict=True):
                if sequence.append(first + token_id, logprob):
                    ended.add(sequence)
                    self._ended.append(sequence)
        if not ended:
            return
        self._memories, self._view = [], None  # or what nobody sees any more would stay
        # From the back, so that closing one gap does not move a lane that ends too.
        for slot, lane in reversed(list(enumerate(self._scheduler.running))):
            if lane.sequence in ended:
                if lane.sequence.error is not None:
                    self._cache.clear(slot)
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


def _packs(lanes: Ordered[tuple[Lane, Prompt]]) -> Iterator[tuple[int, list[tuple[Lane, Prompt]]]]:
    """Yield prompts of one padded length together, as many as a prefill holds."""
    by_length = defaultdict(list)
    for lane, prompt in lanes:
        by_length[-(-lane.prompt_length // PREFILL_BLOCK) * PREFILL_BLOCK].append((lane, prompt))
    for length, pairs in by_length.items():
        size = max(1, PREFILL_TOKENS // length)
        for first in range(0, len(pairs), size):
            yield length, pairs[first : first + size]


def _guided(logits: Tensor, lanes: Ordered[Lane]) -> tuple[Tensor, list[Sequence]]:
    """Return each sequence's scores (S, V) from its lanes' (B, V), and the sequences.

    Guided scores are s c + (1 - s) u of the raw ones (Ho and Salimans 2022): taking their log-softmax first, as the
    authors' script does, moves all scores of a row alike and changes no probability.
    """
    sequences = [lane.sequence for lane in lanes if not lane.is_negative]
    negative = {lane.sequence: row for row, lane in enumerate(lanes) if lane.is_negative}
    if not negative:
        return logits, sequences
    scores = logits[[row for row, lane in enumerate(lanes) if not lane.is_negative]]
    places = [place for place, sequence in enumerate(sequences) if sequence in negative]
    other = logits[[negative[sequences[place]] for place in places]]
    scale = torch.tensor([[sequences[place].sampling.guidance_scale] for place in places], device=logits.device)
    guided = scores if len(places) == len(sequences) else scores[places]
    guided.sub_(other).mul_(scale).add_(other)
    if guided is not scores:
        scores[places] = guided
    return scores, sequences


def _name(sequence: Sequence) -> bytes:
    """Return what tells one negative prompt from another."""
    negative = sequence.model_input.negative
    assert negative is not None
    return negative.tobytes()
