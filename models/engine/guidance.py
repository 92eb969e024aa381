"""Give guided sequences their second lane, and move their scores away from those under their negative prompts.

Shapes: B lanes, S sequences, V vocabulary.
"""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.engine.decoder import Prompt
from models.engine.memory import lasting
from models.engine.scheduler import Lane, Sequence


@dataclass
class Starting:
    """Sequences about to start.

    Attributes:
        prompts: What must go through the decoder.
        negative: Which of those are negative prompts, by name.
        shared: Lanes whose negative prompt is among them, or in the cache already.
    """

    prompts: dict[Lane, Prompt] = field(default_factory=dict)
    negative: dict[bytes, Lane] = field(default_factory=dict)
    shared: list[Lane] = field(default_factory=list)


def starting(encoded: Iterable[tuple[Sequence, Prompt]], is_cached: Callable[[bytes], bool]) -> Starting:
    """Return the lanes of sequences; a negative prompt goes through once for all who share it."""
    found = Starting()
    for sequence, prompt in encoded:
        sequence.grammar = prompt.grammar
        found.prompts[Lane(sequence, len(prompt.embeddings), memory=lasting(prompt.spans))] = prompt
        if not sequence.is_guided:
            continue
        assert prompt.negative is not None
        lane, name = Lane(sequence, len(prompt.negative), is_negative=True), negative_name(sequence)
        if name in found.negative or is_cached(name):
            found.shared.append(lane)
        else:
            found.negative[name] = lane
            found.prompts[lane] = Prompt(prompt.negative)
    return found


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
