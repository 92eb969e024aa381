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

from models.cache.memory import Memory, prefill_memory_view
from models.cache.slots import Cache, prefill_cache_view
from models.engine.decoder import Decoder, Prompt
from models.engine.scheduler import Branch

# A prompt is padded to a multiple of this, and prefilled beside prompts of the same padded length alone. So the
# shapes it is computed in, and with them the last bits of its scores, do not depend on its company.
PREFILL_BLOCK = 16


def in_blocks(num_tokens: int) -> int:
    """Return a number of tokens padded to whole blocks."""
    return -(-num_tokens // PREFILL_BLOCK) * PREFILL_BLOCK


@dataclass(frozen=True, eq=False)
class Prefix:
    """What the first tokens of a prompt leave behind: in the cache, and as their last hidden state (D,)."""

    cached: Memory
    hidden: Tensor


def by_length(branches: Iterable[Branch]) -> list[tuple[int, list[Branch]]]:
    """Return the branches whose prompts may go together, with the padded length of what is behind their prefixes.

    Those that are scored follow those that are answered, ordered by what will be fed for their choices: so they get
    neighbouring slots.
    """
    found = defaultdict(list)
    for branch in branches:
        rest = in_blocks(branch.prompt_length - branch.prefix_length)
        found[feed_of(branch), branch.prefix_length, rest].append(branch)
    return [(kind[-1], found[kind]) for kind in sorted(found)]


def feed_of(branch: Branch) -> int:
    """Return how many tokens are fed for a branch's choices, padding included."""
    return in_blocks(branch.sequence.token_tree.num_tokens)


def prefill(
    model: Decoder,
    cache: Cache,
    slots: slice,
    prompts: Sequence[Prompt],
    prefixes: Sequence[Prefix | None],
    length: int,
    chunk_tokens: int,
) -> Tensor:
    """Run prompts through the decoder; return their last hidden states (B, D).

    Args:
        model: A family's model.
        cache: Where their keys and values go.
        slots: One for each prompt.
        prompts: Of one padded length; a single one if that is more than a chunk.
        prefixes: What is known of each: of one length, or None for all.
        length: The padded length of what is behind the prefixes; 0 for nothing.
        chunk_tokens: Tokens that go through at once.
    """
    first = 0
    for prefix, same in groupby(range(len(prefixes)), prefixes.__getitem__):
        if prefix is not None:
            rows = [slots.start + row for row in same]
            first = cache.fill(slice(rows[0], rows[-1] + 1), prefix.cached)
    if length == 0:
        return torch.stack([prefix.hidden for prefix in prefixes if prefix is not None])
    rests = [prompt.embeddings[first:] for prompt in prompts]
    padded = torch.stack([F.pad(rest, (0, 0, 0, length - len(rest))) for rest in rests])  # (B, T, D)
    # The last chunk that is made holds the last token.
    for start in range(0, max(map(len, rests)), chunk_tokens):
        chunk = padded[:, start : start + chunk_tokens]
        places = range(first + start, first + start + chunk.shape[1])
        view = prefill_memory_view([prompt.spans for prompt in prompts], places, chunk.device)
        positions = _positions(prompts, places, chunk.device)
        hidden = model.decode(chunk, prefill_cache_view(cache, slots, places, chunk.device, view, positions))
    return torch.stack([hidden[row, len(rest) - 1 - start] for row, rest in enumerate(rests)])


def _positions(prompts: Sequence[Prompt], places: range, device: torch.device) -> Tensor | None:
    """Return where the tokens at some places stand, int (B, T, A); None if all of them stand at their places."""
    if all(prompt.positions is None for prompt in prompts):
        return None
    own = torch.arange(places.start, places.stop)[:, None]
    rows = [own if prompt.positions is None else _padded(prompt.positions, places) for prompt in prompts]
    num_axes = max(row.shape[1] for row in rows)
    return torch.stack([row.expand(-1, num_axes) for row in rows]).to(device)


def _padded(positions: Tensor, places: range) -> Tensor:
    """Return some of the positions (T, A); what stands behind the last one is padding, wherever that is."""
    some = positions[places.start : places.stop]
    return F.pad(some, (0, 0, 0, len(places) - len(some)))
