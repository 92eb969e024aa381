"""Move the scores of guided sequences away from those under their negative prompts.

Shapes: B lanes, S sequences, V vocabulary.
"""

from collections.abc import Sequence as Ordered

import torch
from torch import Tensor

from models.engine.scheduler import Lane, Sequence


def guided(logits: Tensor, lanes: Ordered[Lane]) -> Tensor:
    """Return each sequence's scores (S, V) from its lanes' (B, V), which it may write to.

    Guided scores are s c + (1 - s) u of the raw ones (Ho and Salimans 2022): taking their log-softmax first, as the
    authors' script does, moves all scores of a row alike and changes no probability.
    """
    sequences = [lane.sequence for lane in lanes if not lane.is_negative]
    negative = {lane.sequence: row for row, lane in enumerate(lanes) if lane.is_negative}
    if not negative:
        return logits
    scores = logits[[row for row, lane in enumerate(lanes) if not lane.is_negative]]
    places = [place for place, sequence in enumerate(sequences) if sequence in negative]
    other = logits[[negative[sequences[place]] for place in places]]
    scale = torch.tensor([[sequences[place].sampling.guidance_scale] for place in places], device=logits.device)
    moved = scores if len(places) == len(sequences) else scores[places]
    moved.sub_(other).mul_(scale).add_(other)
    if moved is not scores:
        scores[places] = moved
    return scores


def negative_name(sequence: Sequence) -> bytes:
    """Return what tells a guided sequence's negative prompt from another one."""
    negative = sequence.model_input.negative
    assert negative is not None
    return negative.tobytes()
