"""Score given continuations of a prompt, its choices, in place of an answer.

A prompt goes through the decoder once, whatever may follow it. Its last hidden state scores the first token of every
choice; so letters to choose among cost nothing more. What longer choices need beside goes through in one forward, all
choices of a prompt side by side (models/token_tree.py).

Shapes: B branches, N states, T tokens that are fed, D model width, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Ordered

import numpy as np
import torch
from torch import Tensor

from models.cache.memory import decode_memory_view
from models.cache.slots import Cache, tree_cache_view
from models.engine.decoder import Decoder
from models.engine.prefill import feed_of
from models.engine.scheduler import Branch
from models.token_tree import tree_attention

# States scored at once: their scores of a vocabulary of 184,622 are then 189 MB.
SCORED_STATES = 256

State = tuple[Branch, int]  # the place of a token among those fed for a branch; -1 is the prompt's last one
After = tuple[State, int]  # a state, and the id of a token that may follow it


def by_feed(branches: Iterable[Branch]) -> dict[int, list[Branch]]:
    """Return branches by how many tokens are fed for their choices, padding included."""
    found = defaultdict(list)
    for branch in branches:
        found[feed_of(branch)].append(branch)
    return found


def score(
    model: Decoder,
    cache: Cache,
    running: Ordered[Branch],
    last: Mapping[Branch, Tensor],
    num_fed: int,
    branches: Ordered[Branch],
) -> list[list[list[float]]]:
    """Return the log-probability of each token of each choice of each branch.

    Args:
        model: A family's model.
        cache: Holds the branches' prompts; what is written behind them is of no further use.
        running: All branches, by slot.
        last: The last hidden state (D,) of each branch's prompt.
        num_fed: Tokens that are fed for each branch, padding included (`by_feed`).
        branches: Whose choices are scored, neighbours among the running ones.
    """
    hidden = {(branch, -1): last[branch] for branch in branches}
    if num_fed > 0:
        hidden |= _fed(model, cache, running.index(branches[0]), branches, num_fed)
    wanted = [_choices(branch) for branch in branches]
    found = _logprobs(model, hidden, [after for choices in wanted for choice in choices for after in choice])
    return [[[found[after] for after in choice] for choice in choices] for choices in wanted]


def _choices(branch: Branch) -> list[list[After]]:
    """Return the tokens of each choice of a branch with the states that they follow."""
    sequence = branch.sequence
    return [
        [((branch, place), token_id) for place, token_id in zip(places, ids.tolist(), strict=True)]
        for places, ids in zip(sequence.token_tree.ends, sequence.model_input.choices, strict=True)
    ]


def _fed(model: Decoder, cache: Cache, first: int, branches: Ordered[Branch], num_fed: int) -> dict[State, Tensor]:
    """Run what is fed for the branches' choices through the decoder; return the hidden state (D,) after each token."""
    trees = [branch.sequence.token_tree for branch in branches]
    # The last token fills up the shape: put at the same place once more, it overwrites itself with itself.
    filled = [[min(place, tree.num_tokens - 1) for place in range(num_fed)] for tree in trees]  # (B, T)
    token_ids = [[tree.token_ids[place] for place in row] for tree, row in zip(trees, filled, strict=True)]
    lines = [tree_attention(tree.parents, num_fed) for tree in trees]
    sees, depths = (torch.from_numpy(np.stack([line[i] for line in lines])) for i in range(2))
    lengths, offsets = torch.tensor([[branch.prompt_length, branch.offset] for branch in branches]).unbind(-1)
    positions = (lengths + offsets)[:, None] + depths
    view = decode_memory_view([branch.memory for branch in branches], num_fed, model.device)
    cache_view = tree_cache_view(cache, lengths, torch.tensor(filled), positions, sees, view, first)
    embeddings = model.embed(torch.tensor(token_ids, device=model.device))
    hidden = model.decode(embeddings, cache_view.to(model.device))  # (B, T, D)
    return {
        (branch, place): hidden[row, place]
        for row, branch in enumerate(branches)
        for place in range(branch.sequence.token_tree.num_tokens)
    }


def _logprobs(model: Decoder, hidden: Mapping[State, Tensor], wanted: Iterable[After]) -> dict[After, float]:
    """Return the log-probability of tokens after states, over the whole vocabulary; each state is scored once."""
    ids_after = defaultdict(list)
    for state, token_id in dict.fromkeys(wanted):
        ids_after[state].append(token_id)
    states, found = list(ids_after), {}
    for start in range(0, len(states), SCORED_STATES):
        some = states[start : start + SCORED_STATES]
        scores = model.logits(torch.stack([hidden[state] for state in some]))  # (N, V)
        pairs = [(row, token_id) for row, state in enumerate(some) for token_id in ids_after[state]]
        rows, ids = torch.tensor(pairs, device=scores.device).unbind(-1)
        picked = scores[rows, ids] - scores.logsumexp(-1)[rows]
        for (row, token_id), logprob in zip(pairs, picked.tolist(), strict=True):
            found[some[row], token_id] = logprob
    return found
