"""Jacobi decoding of pictures: several tokens a step, and exactly those that one at a time would be.

Beside the newest token a step feeds guesses of those behind it, a window of W tokens in all, and chooses a token after
each. What is chosen first is certain, and what follows is for as long as the guesses before it were right; the rest are
the next step's guesses (Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation
Solving"; for pictures Teng et al. 2024, "Accelerating Auto-regressive Text-to-Image Generation with Training-free
Speculative Jacobi Decoding"). Since chance is a hash of seed, place and token, a token that is drawn again is drawn
alike, and nothing has to be accepted by chance. Ends of lines come by themselves and are guesses that are right.

Shapes: S sequences, B lanes, T tokens, W tokens of a window, D model width, V scores.
"""

import torch
from torch import Tensor

from models.engine.decoder import Decoder
from models.engine.guidance import guided
from models.engine.lanes import Group, Lanes
from models.sampler import choose


def choose_in_windows(model: Decoder, lanes: Lanes, group: Group, hidden: Tensor) -> Tensor:
    """Choose a token after each of a window, take in those that are certain, and keep the rest as guesses.

    Args:
        model: A family's.
        lanes: All of them.
        group: Sequences that draw pictures, whose lanes have just been fed.
        hidden: (B, W, D), the hidden states of the windows of the first B lanes.

    Returns:
        As `Lanes.answer`, with W places for ids and log-probabilities.
    """
    assert group.lines is not None
    columns, closing = group.lines[..., None]
    window, num_new, answered = (own[group.lanes] for own in (lanes.tokens, lanes.num_new, lanes.places))
    S, W = window.shape
    steps = torch.arange(W, device=window.device)
    # The number, in its answer, of the token behind each of the window.
    numbers = answered[:, None] - num_new[:, None] + 1 + steps  # (S, W)
    # What stands for nobody has fed nothing: any lane does.
    rows = group.every if isinstance(group.every, slice) else group.every.clamp(max=len(hidden) - 1)
    scales = None if group.scales is None else group.scales.repeat_interleave(W, 0)
    scores = model.logits(guided(hidden[rows].flatten(0, 1), scales), group.allowed).to(window.device)
    ids, logprobs = (found.view(S, W) for found in choose(scores, group.draws.repeated(W), numbers.flatten()))
    first = 0 if group.allowed is None else group.allowed.start
    is_closing = numbers % (columns + 1) == columns
    found = torch.where(is_closing, closing, ids + first)
    is_right = (window[:, 1:] == found[:, :-1]).cumprod(-1)  # each guess, and all before it
    num_fed = 1 + is_right.sum(-1)  # of the window, what the cache keeps
    num_found = num_fed - num_new + 1
    has = answered + num_found
    is_next_closing = has % (columns[:, 0] + 1) == columns[:, 0]
    has, pending = has + is_next_closing, 1 + is_next_closing
    taken = torch.where(steps < num_found[:, None], found.gather(1, _from(num_new - 1, steps)), -1)
    counts, chances = torch.stack((answered, has, pending), dim=-1), logprobs.gather(1, _from(num_new - 1, steps))
    row = torch.cat([part.double() for part in (counts, taken, chances)], dim=-1)
    window = found.gather(1, _from(num_fed - 1, steps))
    lanes.places[group.lanes] = has
    if group.scales is not None:
        window, pending, num_fed = (torch.cat((own, own)) for own in (window, pending, num_fed))
    lanes.lengths[group.every] += num_fed
    lanes.num_new[group.every] = pending
    lanes.tokens[group.every] = window
    return row


def _from(firsts: Tensor, steps: Tensor) -> Tensor:
    """Return the places of a window from the first ones (S,) on, (S, W); behind the last one, the last."""
    return (firsts[:, None] + steps).clamp(0, len(steps) - 1)  # nobody's row may begin before the first
