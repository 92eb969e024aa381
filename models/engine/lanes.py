"""What a decode step needs of every running branch, on the device: one row, a lane, for each slot of the cache.

Tokens, lengths and places go on from step to step where they lie. The host knows without asking how many tokens each
answer has by now, so it neither waits for a step nor copies anything into it; which tokens they are it reads later
(`Readback`).

Shapes: B lanes, S sequences, T tokens, D model width.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import torch
from torch import Tensor

from models.devices import to_device
from models.engine.decoder import Decoder
from models.engine.guidance import guided
from models.engine.scheduler import Branch, Sequence
from models.sampler import Draws, choose, kind_of

# A step feeds the newest token, and where that ends a line of a picture the token behind it too.
MOST_TOKENS = 2


@dataclass(frozen=True)
class Group:
    """Sequences whose next tokens are chosen together: among the same ids, in the same way.

    Attributes:
        sequences: S of them.
        allowed: The ids that are chosen among; None for all.
        lanes: The lanes of their prompts: int64 (S,), or a slice of neighbours.
        every: Those and behind them, in the same order, the lanes of their negative prompts, if they are guided.
        draws: How each chooses.
        scales: float32 (S, 1), how far each is moved away from its negative prompt's scores; None where none is.
        lines: int64 (2, S), how many choices a line has and the id that closes it; None where there is no grammar.
    """

    sequences: Ordered[Sequence]
    allowed: range | None
    lanes: Tensor | slice
    every: Tensor | slice
    draws: Draws
    scales: Tensor | None
    lines: Tensor | None

    @property
    def signature(self) -> tuple[object, ...]:
        """What the operations that choose depend on, beside how many choose."""
        return self.allowed, self.draws.signature, self.scales is None, self.lines is None

    def take(self, other: "Group") -> None:
        """Copy another group's numbers, of the same shapes, into this one's tensors."""
        mine, theirs = (
            (group.lanes, group.every, group.scales, group.lines, *group.draws.tensors) for group in (self, other)
        )
        for own, new in zip(mine, theirs, strict=True):
            if isinstance(own, Tensor) and isinstance(new, Tensor):
                own.copy_(new)


class Lanes:
    """The rows of all slots.

    Attributes:
        hidden: (slots + 1, D), the last hidden state of each; the last row of all is nobody's.
        tokens: int64 (slots + 1, W), those that are fed next, and guesses of those behind them.
        lengths: int64 (slots + 1,), tokens in the cache.
        num_new: int64 (slots + 1,), tokens that are certain to be fed next.
        places: int64 (slots + 1,), tokens of the answer so far, those included.
    """

    def __init__(self, slots: int, embeddings: Tensor, window: int = MOST_TOKENS) -> None:
        """Allocate them.

        Args:
            slots: How many.
            embeddings: Any (…, D): of that width and type hidden states will be, and where they are the lanes are.
            window: W, MOST_TOKENS at least.
        """
        # One more than there are slots: what stands for nobody may write there.
        self.hidden = embeddings.new_zeros(slots + 1, embeddings.shape[-1])
        self._device = embeddings.device
        self.tokens = torch.zeros(slots + 1, window, dtype=torch.int64, device=self._device)
        # The last one: how far tokens stand beyond their places.
        self._numbers = torch.zeros(4, slots + 1, dtype=torch.int64, device=self._device)
        self.lengths, self.num_new, self.places, self._offsets = self._numbers
        self._steps = torch.arange(window, device=self._device)

    def start(self, slots: slice, branches: Ordered[Branch], hidden: Tensor) -> None:
        """Begin branches whose prompts are in the cache.

        Args:
            slots: Theirs.
            branches: As many.
            hidden: (B, D), the last hidden states of their prompts.
        """
        rows = [[b.prompt_length, 0, 0, b.offset] for b in branches]
        self._numbers[:, slots] = to_device(torch.tensor(rows).T, self._device)
        self.hidden[slots] = hidden

    def move(self, source: int, target: int) -> None:
        """Let a branch go on in another lane."""
        self._numbers[:, target] = self._numbers[:, source]
        self.tokens[target] = self.tokens[source]

    def copy_state(self) -> tuple[Tensor, ...]:
        """Return a copy of all that a step changes."""
        return self._numbers.clone(), self.tokens.clone(), self.hidden.clone()

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take all back that was done since it was copied."""
        for own, before in zip((self._numbers, self.tokens, self.hidden), state, strict=True):
            own.copy_(before)

    def feed(self, lanes: slice, num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next tokens (B, T), their places and their rotary positions.

        Where a branch has fewer than T, its last token stands once more behind it.
        """
        places = self.lengths[lanes, None] + self._steps[:num_tokens]
        return self.tokens[lanes, :num_tokens], places, places + self._offsets[lanes, None]

    def keep(self, lanes: slice, hidden: Tensor) -> None:
        """Keep the last hidden states among those of the tokens that were fed, (B, T, D)."""
        if hidden.shape[1] == 1:
            self.hidden[lanes] = hidden[:, 0]
        else:
            last = (self.num_new[lanes] - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
            self.hidden[lanes] = hidden.gather(1, last)[:, 0]

    def answer(self, model: Decoder, group: Group) -> Tensor:
        """Choose the next tokens of a group's sequences and take them in.

        Returns:
            float64 (S, 5), which holds every number exactly and is brought to the host in one copy: how many tokens the
            answer had and has, how many of those are fed next, the id, and its log-probability.
        """
        hidden = guided(self.hidden[group.every], group.scales)
        scores = model.logits(hidden, group.allowed).to(self._device)
        places = self.places[group.lanes]
        ids, logprobs = choose(scores, group.draws, places)
        if group.allowed is not None:
            ids = ids + group.allowed.start
        answered = places + 1
        if group.lines is None:
            second, num_new = ids, torch.ones_like(ids)
        else:
            columns, closing = group.lines
            is_full = answered % (columns + 1) == columns
            second, num_new = torch.where(is_full, closing, ids), 1 + is_full
            answered = answered + is_full
        numbers = torch.stack((places, answered, num_new, ids), dim=-1)
        found = torch.cat((numbers.double(), logprobs[:, None].double()), dim=-1)
        self.places[group.lanes] = answered  # only now: of neighbours `places` is a view of it
        tokens = torch.stack((ids, *[second] * (self.tokens.shape[1] - 1)), dim=-1)
        if group.scales is not None:
            tokens, num_new = torch.cat((tokens, tokens)), torch.cat((num_new, num_new))
        self.lengths[group.every] += self.num_new[group.every]
        self.num_new[group.every] = num_new
        self.tokens[group.every] = tokens
        return found

    def groups(self, sequences: Ordered[Sequence], running: Ordered[Branch]) -> list[Group]:
        """Return sequences by how their next tokens are chosen.

        Args:
            sequences: Whose prompts are in the cache.
            running: All branches, by slot.
        """
        alike = defaultdict(list)
        for sequence in sequences:
            alike[sequence.allowed, sequence.is_guided, kind_of(sequence.sampling)].append(sequence)
        return [self._group(some, _slots(running)) for some in alike.values()]

    def padded(self, group: Group, width: int, running: Ordered[Branch]) -> Group:
        """Return a group with so many sequences' numbers in tensors of its own; those behind its own are nobody's."""
        filled = [*group.sequences, *[group.sequences[0]] * (width - len(group.sequences))]
        return self._group(filled, _slots(running), len(group.sequences))

    def _group(
        self, sequences: Ordered[Sequence], slots: Mapping[tuple[Sequence, bool], int], own: int | None = None
    ) -> Group:
        """Gather what sequences that choose alike need; with `own`, in tensors alone, and those behind are nobody's."""
        first, device = sequences[0], self._device
        count = len(sequences) if own is None else own
        nobody = [len(self.tokens) - 1] * (len(sequences) - count)
        lanes = every = [slots[sequence, False] for sequence in sequences[:count]] + nobody
        scales = lines = None
        if first.is_guided:
            every = lanes + [slots[sequence, True] for sequence in sequences[:count]] + nobody
            scales = to_device(torch.tensor([[s.sampling.guidance_scale] for s in sequences]), device)
        if first.grammar is not None:
            lines = to_device(torch.tensor([s.grammar.line for s in sequences if s.grammar is not None]).T, device)
        return Group(
            sequences[:count],
            first.allowed,
            _picked(lanes, device, as_slice=own is None),
            _picked(every, device, as_slice=own is None),
            Draws.of([sequence.sampling for sequence in sequences], device),
            scales,
            lines,
        )


def _slots(running: Ordered[Branch]) -> dict[tuple[Sequence, bool], int]:
    return {(branch.sequence, branch.is_negative): slot for slot, branch in enumerate(running)}


def _picked(rows: list[int], device: torch.device, *, as_slice: bool) -> Tensor | slice:
    if as_slice and rows == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return to_device(torch.tensor(rows), device)


class Readback:
    """Brings chosen tokens to the host, some steps late, so that the device always has the next step before it."""

    def __init__(self, late: int) -> None:
        """Start with nothing.

        Args:
            late: How many steps may be on their way when the host goes on.
        """
        self._late = late
        self._underway: deque[tuple[Ordered[Sequence], Tensor, torch.cuda.Event | None]] = deque()

    def add(self, sequences: Ordered[Sequence], chosen: Tensor) -> None:
        """Begin to bring what `Lanes.answer` has found for sequences, a row each; further rows are nobody's."""
        if not chosen.is_cuda:
            self._underway.append((sequences, chosen, None))
            return
        host = torch.empty(chosen.shape, dtype=chosen.dtype, pin_memory=True)
        host.copy_(chosen, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._underway.append((sequences, host, arrived))

    def read(self, *, everything: bool) -> Iterator[tuple[Sequence, list[float]]]:
        """Yield sequences with what was found for each, in order; wait for what is due, or for everything."""
        while len(self._underway) > (0 if everything else self._late):
            sequences, chosen, arrived = self._underway.popleft()
            if arrived is not None:
                arrived.synchronize()
            yield from zip(sequences, chosen[: len(sequences)].tolist(), strict=True)
