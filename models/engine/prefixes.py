"""What several prompts begin with goes through the decoder once: its keys and values are kept a while, and copied.

Where a prompt is cut follows from its own input, never from who else is there, and what comes before the cut goes
through by itself whether somebody shares it or not: so an answer has the same bits in any company. A negative prompt is
a prefix with nothing behind it.

Shapes: K key heads, P tokens, C head width, D model width.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Ordered
from dataclasses import replace
from functools import partial
from itertools import groupby

from models.cache.slots import Cache, CacheShape
from models.engine.decoder import Decoder, Prompt
from models.engine.memory_guard import MemoryGuard, is_by_itself
from models.engine.prefill import PREFILL_BLOCK, Prefix, feed_of, in_blocks, prefill
from models.engine.scheduler import Branch, PrefixName
from models.types import ModelInput

# A shorter beginning costs more as a pass of its own than it saves those who share it.
LEAST_TOKENS = 64
# What is kept is this part of the cache's size and this at most, or a slot's size if that is more.
KEPT_SHARE, MOST_KEPT_BYTES = 8, 2**30


def shared_prefix(given: ModelInput) -> PrefixName | None:
    """Return what an input's prompt begins with as others do: whole blocks, and not all of it."""
    length = min(given.shared_length, len(given.token_ids) - 1) // PREFILL_BLOCK * PREFILL_BLOCK
    if length < LEAST_TOKENS:
        return None
    return PrefixName(length, (given.token_ids[:length].tobytes(), given.image_names, given.layout))


def kept_bytes(shape: CacheShape, slots: int, max_length: int) -> int:
    """Return how much is kept of prefixes, beside the cache."""
    whole, slot = (shape.num_bytes(number, max_length) for number in (slots, 1))
    return max(slot, min(whole // KEPT_SHARE, MOST_KEPT_BYTES))


def negative_prefix(given: ModelInput) -> PrefixName:
    """Return the whole of an input's negative prompt."""
    assert given.negative is not None
    return PrefixName(len(given.negative), given.negative.tobytes())


class Prefixes:
    """Computes what branches begin with, and keeps the latest of it.

    Attributes:
        num_computed: Tokens that went through the decoder for it.
    """

    def __init__(self, model: Decoder, guard: MemoryGuard, kept_bytes: int) -> None:
        """Start with none.

        Args:
            model: A family's model.
            guard: Of its device's memory.
            kept_bytes: At most kept, unless a single one is larger.
        """
        self.num_computed = 0
        self._model = model
        self._guard = guard
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[PrefixName, Prefix] = OrderedDict()
        self._size = 0

    def forget(self) -> None:
        """Let go of what is kept, for memory that is short."""
        self._kept.clear()
        self._size = 0

    def packs(self, prompts: Mapping[Branch, Prompt], chunk_tokens: int) -> Iterator[dict[Branch, Prefix | None]]:
        """Yield branches with their prefixes, None for those without; whoever takes a pack must be done with the last.

        The prefixes of a pack, each counted once, have as many tokens as go through at once, or are a single one: so
        what is held of them beside the kept ones does not grow with the slots. Branches that share one stand together;
        before that comes what will be fed for their choices, see `by_length`. A branch whose prefix finds no memory is
        left out, and its sequence noted as too large.

        Args:
            prompts: Of the branches.
            chunk_tokens: See `prefill`.
        """
        firsts: dict[PrefixName | None, int] = {}
        order = {branch: (feed_of(branch), firsts.setdefault(branch.prefix, len(firsts))) for branch in prompts}
        pack: dict[Branch, Prompt] = {}
        num_tokens = 0
        for _, same in groupby(sorted(order, key=order.__getitem__), key=order.__getitem__):
            branches = list(same)
            num_tokens += branches[0].prefix_length
            if pack and num_tokens > chunk_tokens:
                yield self._find(pack, chunk_tokens)
                pack, num_tokens = {}, branches[0].prefix_length
            pack |= {branch: prompts[branch] for branch in branches}
        yield self._find(pack, chunk_tokens)

    def _find(self, prompts: Mapping[Branch, Prompt], chunk_tokens: int) -> dict[Branch, Prefix | None]:
        wanted = {branch.prefix: branch for branch in prompts if branch.prefix is not None}
        found = {name: self._kept[name] for name in wanted if name in self._kept}
        missing = defaultdict(list)
        for name, branch in wanted.items():
            if name in found:
                self._kept.move_to_end(name)
            else:
                missing[in_blocks(name.length)].append(branch)
        for length, branches in missing.items():
            work = partial(self._compute, prompts, length, chunk_tokens)
            for _, new in self._guard.run("prefill", work, branches, cost=length):
                found |= new
        self._guard.too_large |= {b.sequence: None for b in prompts if b.prefix is not None and b.prefix not in found}
        return {b: found[b.prefix] if b.prefix else None for b in prompts if b.prefix is None or b.prefix in found}

    def _compute(
        self, prompts: Mapping[Branch, Prompt], length: int, chunk_tokens: int, branches: Ordered[Branch]
    ) -> dict[PrefixName, Prefix]:
        """Run prefixes of one padded length through the decoder, in a cache of their own."""
        names = [branch.prefix for branch in branches if branch.prefix is not None]
        pairs = zip(names, branches, strict=True)
        cut = [replace(prompts[branch], embeddings=prompts[branch].embeddings[: name.length]) for name, branch in pairs]
        cache = Cache(self._model.cache_shape, len(names), length)
        run = partial(prefill, self._model, cache, slice(0, len(names)), cut, [None] * len(names))
        hidden = self._guard.in_chunks(run, min(length, chunk_tokens), branches)
        made = {name: Prefix(cache.copied(row, name.length), hidden[row].clone()) for row, name in enumerate(names)}
        self.num_computed += sum(name.length for name in names)
        if is_by_itself(branches):
            return made  # and do not keep it: others would see in its last bits that there was no room
        self._kept |= made
        self._size += sum(prefix.cached.nbytes for prefix in made.values())
        while self._size > self._kept_bytes and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1].cached.nbytes
        return made
