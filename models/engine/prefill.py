"""Prefill: which prompts go through the decoder together, and how they enter the cache.

Shapes: B prompts, T tokens, A axes of positions, D model width.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

from models.cache.memory import Memory, packed_memory_view, prefill_memory_view
from models.cache.slots import Cache, packed_cache_view, prefill_cache_view
from models.devices import to_device
from models.engine.decoder import Decoder, Prompt
from models.engine.scheduler import Branch

# A prompt is padded to a multiple of this, and on a CPU prefilled beside prompts of the same padded length alone. So
# the shapes it is computed in, and with them the last bits of its scores, do not depend on its company.
PREFILL_BLOCK = 16
# Where a cache is read in place, prompts of at most so many tokens go through together whatever their lengths, packed
# as blocks. Longer ones fill the device by themselves, and there attention in larger blocks is faster.
MOST_PACKED = 2048


def in_blocks(num_tokens: int) -> int:
    """Return a number of tokens padded to whole blocks."""
    return -(-num_tokens // PREFILL_BLOCK) * PREFILL_BLOCK


@dataclass(frozen=True, eq=False)
class Prefix:
    """What the first tokens of a prompt leave behind: in the cache, and as their last hidden state (D,)."""

    cached: Memory
    hidden: Tensor


def by_length(branches: Iterable[Branch], cache: Cache, most: int) -> list[tuple[int, list[Branch]]]:
    """Return the branches whose prompts may go together, with the padded length of what is behind their prefixes.

    Where prompts are packed that is the mean, and all of a pack have at most `most` such tokens together. Those that
    are scored follow those that are answered, ordered by what will be fed for their choices: so they get neighbouring
    slots.
    """
    found = defaultdict(list)
    for branch in branches:
        rest = in_blocks(branch.prompt_length - branch.prefix_length)
        found[feed_of(branch), branch.prefix_length, rest].append(branch)
    groups = [(kind[-1], found[kind]) for kind in sorted(found)]
    return _packs(groups, most) if cache.tables else groups


def _packs(groups: Iterable[tuple[int, list[Branch]]], most: int) -> list[tuple[int, list[Branch]]]:
    """Return neighbours of groups together, as far as they may be packed."""
    packs: list[tuple[int, list[Branch]]] = []  # with all their tokens
    is_open = False
    for length, group in groups:
        if length == 0 or max(branch.prompt_length for branch in group) > MOST_PACKED:
            packs.append((length * len(group), group))
            is_open = False
            continue
        for branch in group:
            if is_open and packs[-1][0] + length <= most:
                packs[-1] = packs[-1][0] + length, [*packs[-1][1], branch]
            else:
                packs.append((length, [branch]))
            is_open = True
    return [(total // len(pack), pack) for total, pack in packs]


def feed_of(branch: Branch) -> int:
    """Return how many tokens are fed for a branch's choices, padding included."""
    return in_blocks(branch.sequence.token_tree.num_tokens)


def prefill(
    model: Decoder,
    cache: Cache,
    slots: slice,
    prompts: Sequence[Prompt],
    prefixes: Sequence[Prefix | None],
    chunk_tokens: int,
) -> Tensor:
    """Run prompts through the decoder; return their last hidden states (B, D).

    Args:
        model: A family's model.
        cache: Where their keys and values go.
        slots: One for each prompt.
        prompts: As `by_length` puts them together; a single one if it is more than a chunk.
        prefixes: What is known of each, None for nothing.
        chunk_tokens: Tokens that go through at once.
    """
    firsts = []
    for prefix, same in groupby(range(len(prefixes)), prefixes.__getitem__):
        rows = [slots.start + row for row in same]
        first = 0 if prefix is None else cache.fill(slice(rows[0], rows[-1] + 1), prefix.cached)
        firsts += [first] * len(rows)
    rests = [prompt.embeddings[first:] for prompt, first in zip(prompts, firsts, strict=True)]
    length = in_blocks(max(map(len, rests)))
    if length == 0:
        return torch.stack([prefix.hidden for prefix in prefixes if prefix is not None])
    if cache.tables and length <= chunk_tokens and max(len(one.embeddings) for one in prompts) <= MOST_PACKED:
        return _prefill_packed(model, cache, slots, prompts, firsts)
    padded = torch.stack([F.pad(rest, (0, 0, 0, length - len(rest))) for rest in rests])  # (B, T, D)
    # The last chunk that is made holds the last token.
    for start in range(0, max(map(len, rests)), chunk_tokens):
        chunk = padded[:, start : start + chunk_tokens]
        places = range(first + start, first + start + chunk.shape[1])
        view = prefill_memory_view([prompt.spans for prompt in prompts], places, chunk.device)
        positions = None
        if any(prompt.positions is not None for prompt in prompts):
            positions = _positions(prompts, [places] * len(prompts)).to(chunk.device)
        hidden = model.decode(chunk, prefill_cache_view(cache, slots, places, chunk.device, view, positions))
    return torch.stack([hidden[row, len(rest) - 1 - start] for row, rest in enumerate(rests)])


def _prefill_packed(
    model: Decoder, cache: Cache, slots: slice, prompts: Sequence[Prompt], firsts: Sequence[int]
) -> Tensor:
    """Run prompts through the decoder, from their first places on, in blocks one behind the other; see `prefill`.

    A block has tokens of one prompt and stands as a sequence of its own, with that prompt's slot.
    """
    blocks: list[tuple[int, range]] = []  # whose, and which places
    packed, last = [], []
    for row, (prompt, first) in enumerate(zip(prompts, firsts, strict=True)):
        rest = prompt.embeddings[first:]
        last.append(len(blocks) * PREFILL_BLOCK + len(rest) - 1)
        starts = range(first, len(prompt.embeddings), PREFILL_BLOCK)
        blocks += [(row, range(start, start + PREFILL_BLOCK)) for start in starts]
        packed.append(F.pad(rest, (0, 0, 0, len(starts) * PREFILL_BLOCK - len(rest))))
    tokens = torch.cat(packed).view(len(blocks), PREFILL_BLOCK, -1)  # (B, T, D)
    rows, places = zip(*blocks, strict=True)
    own = [prompts[row] for row in rows]
    view = packed_cache_view(
        cache,
        torch.tensor(rows) + slots.start,
        torch.tensor([list(some) for some in places]),
        _positions(own, places),
        packed_memory_view([prompt.spans for prompt in own], places, tokens.device),
        tokens.device,
    )
    hidden = model.decode(tokens, view)
    return hidden.flatten(0, 1)[to_device(torch.tensor(last), hidden.device)]


def _positions(prompts: Sequence[Prompt], places: Sequence[range]) -> Tensor:
    """Return where the tokens at some places of each prompt stand, int (B, T, A) on the CPU."""
    rows = [
        torch.arange(some.start, some.stop)[:, None] if prompt.positions is None else _padded(prompt.positions, some)
        for prompt, some in zip(prompts, places, strict=True)
    ]
    num_axes = max(row.shape[1] for row in rows)
    return torch.stack([row.expand(-1, num_axes) for row in rows])


def _padded(positions: Tensor, places: range) -> Tensor:
    """Return some of the positions (T, A); what stands behind the last one is padding, wherever that is."""
    some = positions[places.start : places.stop]
    return F.pad(some, (0, 0, 0, len(places) - len(some)))
