"""Score given continuations of a prompt, its choices, in place of an answer.

A prompt goes through the decoder once, whatever follows it. Its last hidden state scores the first token of every
choice; so letters to choose among cost nothing more. What longer choices need beside goes through in one forward, all
choices of a prompt side by side: each token sees the prompt and what stands before it in its own choice.

Shapes: B lanes, N tokens that are scored, T tokens that are fed, D model width, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Ordered

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.engine.cache import Cache, branch_window
from models.engine.decoder import Decoder
from models.engine.memory import decode_view
from models.engine.prefill import in_blocks
from models.engine.scheduler import Lane

# Tokens scored at once: their scores of a vocabulary of 184,622 are then 189 MB.
SCORED_TOKENS = 256


def by_feed(lanes: Iterable[Lane]) -> dict[int, list[Lane]]:
    """Return lanes by how many tokens are fed for their choices, padding included."""
    found = defaultdict(list)
    for lane in lanes:
        found[in_blocks(lane.sequence.num_fed)].append(lane)
    return found


def score(
    model: Decoder,
    cache: Cache,
    running: Ordered[Lane],
    last: Mapping[Lane, Tensor],
    num_fed: int,
    lanes: Ordered[Lane],
) -> list[list[list[float]]]:
    """Return the log-probability of each token of each choice of each lane.

    Args:
        model: A family's model.
        cache: Holds the lanes' prompts; what is written behind them is of no further use.
        running: All lanes, by slot.
        last: The last hidden state (D,) of each lane's prompt.
        num_fed: Tokens that are fed for each lane, padding included (`by_feed`).
        lanes: Whose choices are scored, neighbours among the running ones.
    """
    hidden = torch.stack([last[lane] for lane in lanes])[:, None]  # (B, 1, D)
    if num_fed > 0:
        fed = _feed(model, cache, running.index(lanes[0]), lanes, num_fed)
        hidden = torch.cat((hidden, fed), dim=1)  # (B, 1 + T, D)
    rows, places, token_ids = [], [], []
    for row, lane in enumerate(lanes):
        begin = 0  # behind what is fed of the lane's earlier choices
        for ids in lane.sequence.model_input.choices:
            rows += [row] * len(ids)
            places += [0, *range(begin + 1, begin + len(ids))]
            token_ids += ids.tolist()
            begin += len(ids) - 1
    logprobs = iter(_logprobs(model, hidden[rows, places], token_ids))
    return [[[next(logprobs) for _ in ids] for ids in lane.sequence.model_input.choices] for lane in lanes]


def _feed(model: Decoder, cache: Cache, first: int, lanes: Ordered[Lane], num_fed: int) -> Tensor:
    """Run all but the last token of each choice through the decoder; return hidden states (B, T, D)."""
    fed = [_fed(lane.sequence.model_input.choices) for lane in lanes]
    longest = max(lane.prompt_length + len(tokens) for lane, tokens in zip(lanes, fed, strict=True))
    # The last token fills up the shape: put at the same place once more, it overwrites itself with itself.
    padded = torch.tensor([tokens + tokens[-1:] * (num_fed - len(tokens)) for tokens in fed], device=model.device)
    token_ids, places, depths = padded.unbind(-1)  # (B, T) each
    lengths = torch.tensor([lane.prompt_length for lane in lanes], device=model.device)
    view = decode_view([lane.memory for lane in lanes], num_fed, model.device)
    window = branch_window(cache, lengths, lengths[:, None] + places, depths, longest, view, first)
    return model.decode(model.embed(token_ids), window)


def _fed(choices: Ordered[NDArray[np.int32]]) -> list[tuple[int, int, int]]:
    """Return each token that others follow: its id, its place behind the prompt, and how many of its choice precede."""
    pairs = [(token_id, depth) for ids in choices for depth, token_id in enumerate(ids[:-1].tolist())]
    return [(token_id, place, depth) for place, (token_id, depth) in enumerate(pairs)]


def _logprobs(model: Decoder, hidden: Tensor, token_ids: Ordered[int]) -> list[float]:
    """Return the log-probability of one token after each hidden state (N, D), over the whole vocabulary."""
    found: list[float] = []
    for start in range(0, len(token_ids), SCORED_TOKENS):
        some = slice(start, start + SCORED_TOKENS)
        scores = model.logits(hidden[some])  # (N, V)
        ids = torch.tensor(token_ids[some], device=scores.device)
        found += (scores.gather(-1, ids[:, None])[:, 0] - scores.logsumexp(-1)).tolist()
    return found
