"""Decode steps as programs of fixed shapes, recorded once and replayed: a GPU then never waits for the host's launches.

A program is for so many lanes, rounded up to a few sizes, one or two tokens or a window, and one way or several of
choosing. What differs from step to step lies on the device already (models/engine/lanes.py). What differs when a branch
comes or goes, which lanes choose how and what they see, is copied into the program's own tensors. Lanes that are no
branch's are computed along: they write into free slots, and what they choose goes to a lane that nobody has.

Shapes: B lanes, S sequences, T tokens.
"""

import logging
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

from torch import Tensor

from models.cache.memory import MemoryView, PlacedMemories, decode_memory_view
from models.cache.slots import Cache, decode_cache_view
from models.capacity.out_of_memory import is_out_of_memory
from models.engine.decoder import Decoder
from models.engine.lanes import Group, Lanes
from models.engine.scheduler import Branch
from models.engine.speculation import choose_in_windows
from models.kernels.graph import Recorder

log = logging.getLogger(__name__)

# Recorded programs keep memory of their own; a run has a few sizes of company, and full slots nearly always.
MOST_PROGRAMS = 24


def feed(
    model: Decoder,
    cache: Cache,
    lanes: Lanes,
    some: slice,
    num_tokens: int,
    lengths: Ordered[int],
    memory_view: MemoryView | None,
) -> Tensor:
    """Feed the pending tokens of some lanes to the decoder; return hidden states (B, T, D).

    Args:
        model: A family's.
        cache: What they have been fed before.
        lanes: All of them.
        some: Neighbours.
        num_tokens: The most that any of them has pending.
        lengths: How many tokens each then has, see decode_cache_view.
        memory_view: What the new tokens see beside.
    """
    tokens, places, positions = (tensor.to(model.device) for tensor in lanes.feed(some, num_tokens))
    view = decode_cache_view(cache, places, positions, lengths, memory_view, some.start)
    return model.decode(model.embed(tokens), view)


@dataclass
class Program:
    """One program: what it reads, what it leaves, and for which company its tensors are filled."""

    groups: list[Group]
    memories: PlacedMemories | None
    company: int
    replay: Callable[[], None] = lambda: None
    chosen: list[Tensor] = field(default_factory=list)


class GraphedSteps:
    """The programs of one engine, made when their shapes are first needed."""

    def __init__(self, model: Decoder, cache: Cache, lanes: Lanes, slots: int, recorder: Recorder) -> None:
        """Start with none.

        Args:
            model: A family's, all of it on one device.
            cache: Read in place.
            lanes: All of them.
            slots: How many there are.
            recorder: Records work on that device.
        """
        self._model, self._cache, self._lanes, self._slots = model, cache, lanes, slots
        self._recorder = recorder
        self._programs: dict[object, Program] = {}
        # By tokens of a step and `in_windows`: nearly always it is this one again.
        self._latest: dict[tuple[int, bool], Program] = {}
        self._refused: str | None = None

    def run(
        self, running: Ordered[Branch], groups: Ordered[Group], company: int, num_tokens: int, *, in_windows: bool
    ) -> list[Tensor] | None:
        """Feed all that run and choose their next tokens.

        Args:
            running: All branches, by slot.
            groups: Those of their sequences that choose, by how they do.
            company: A number that changes when a branch comes or goes.
            num_tokens: The most that any of them feeds.
            in_windows: Whether several tokens are chosen at once; there is one group then.

        Returns:
            What `Lanes.answer` or `choose_in_windows` gives for each group, with columns of no meaning behind; None if
            this step is none that can be recorded.
        """
        if self._refused is not None or not groups:
            return None
        latest = self._latest.get((num_tokens, in_windows))
        if latest is not None and latest.company == company:
            latest.replay()
            return latest.chosen
        size = rounded(len(running), self._slots)
        padded = [(group, rounded(len(group.sequences), self._slots)) for group in groups]
        memories = [branch.memory for branch in running]
        most = max((memory.keys[0].shape[1] for memory in memories if memory is not None), default=0)
        ways = [(group.signature, width) for group, width in padded]
        name = size, num_tokens, in_windows, most and rounded_up(most), *ways
        program = self._programs.get(name)
        if program is None and len(self._programs) == MOST_PROGRAMS:
            return None
        wide = [self._lanes.padded(group, width, running) for group, width in padded]
        view = decode_memory_view([*memories, *[None] * (size - len(memories))], num_tokens, self._model.device)
        assert view is None or isinstance(view, PlacedMemories)
        if program is None:
            program = Program(wide, view and view.up_to(rounded_up(most)), company)
            return self._record(program, name, size, num_tokens, in_windows)
        for own, new in zip(program.groups, wide, strict=True):
            own.take(new)
        if view is not None and program.memories is not None:
            program.memories.take(view)
        program.company = company
        self._latest[num_tokens, in_windows] = program
        program.replay()
        return program.chosen

    def _record(
        self, program: Program, name: object, size: int, num_tokens: int, in_windows: bool
    ) -> list[Tensor] | None:
        """Record a program and run it; None, now and ever after, if this model's steps cannot be recorded."""

        def work() -> list[Tensor]:
            # Read in place, so that no length has a part in it.
            some, groups = slice(0, size), program.groups
            hidden = feed(self._model, self._cache, self._lanes, some, num_tokens, [], program.memories)
            if in_windows:
                return [choose_in_windows(self._model, self._lanes, group, hidden) for group in groups]
            self._lanes.keep(some, hidden)
            return [self._lanes.answer(self._model, group) for group in groups]

        before = self._lanes.copy_state()
        try:
            program.replay, program.chosen = self._recorder(work)
        except RuntimeError as error:
            # What a trial run has written to the cache, the step itself writes again.
            self._lanes.restore(before)
            self._refused = "there was no memory for it" if is_out_of_memory(error) else str(error)
            log.warning("decode steps are launched one operation after the other, not as a graph: %s", self._refused)
            return None
        self._lanes.restore(before)
        log.info("recorded a decode step of %d lanes, %d tokens each", size, num_tokens)
        self._latest[num_tokens, in_windows] = self._programs[name] = program
        program.replay()
        return program.chosen


def can_record(model: Decoder, cache: Cache) -> bool:
    """Whether decode steps can be recorded: on one GPU, where the cache is read in place; say so once."""
    if model.device.type != "cuda":
        return False
    devices = {model.device, *model.cache_shape.devices}
    if len(devices) == 1 and cache.tables:
        log.info("decode steps are recorded as graphs, and read every sequence to its own end")
        return True
    why = f"the layers lie on {len(devices)} GPUs" if len(devices) > 1 else "Triton is not installed"
    log.warning("decode steps are launched one operation after the other, not as a graph: %s", why)
    return False


def rounded(count: int, most: int) -> int:
    """Return a count rounded up to one of few sizes: powers of two, and from 16 on eighths of the most."""
    step = max(8, most // 8)
    size = 1 << max(0, count - 1).bit_length() if count <= step else -(-count // step) * step
    return min(size, most)


def rounded_up(places: int) -> int:
    """Return a number of places rounded up to a power of two."""
    return 1 << max(0, places - 1).bit_length()
