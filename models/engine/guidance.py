"""Classifier-free guidance: a second branch for guided sequences, whose scores theirs are moved away from.

Shapes: S sequences, V vocabulary.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

from models.engine.decoder import Prompt
from models.engine.memory import answer_memory
from models.engine.scheduler import Branch, Sequence


@dataclass
class NewBranches:
    """The branches of sequences that start.

    Attributes:
        prompts: What must go through the decoder.
        negative: Which of those are negative prompts, by name.
        shared: Branches whose negative prompt is among them, or in the cache already.
    """

    prompts: dict[Branch, Prompt] = field(default_factory=dict)
    negative: dict[bytes, Branch] = field(default_factory=dict)
    shared: list[Branch] = field(default_factory=list)


def new_branches(encoded: Iterable[tuple[Sequence, Prompt]], is_cached: Callable[[bytes], bool]) -> NewBranches:
    """Return the branches of sequences; a negative prompt goes through once for all who share it."""
    new = NewBranches()
    for sequence, prompt in encoded:
        sequence.grammar = prompt.grammar
        memory = answer_memory(prompt.spans)
        new.prompts[Branch(sequence, len(prompt.embeddings), memory=memory, offset=prompt.offset)] = prompt
        if not sequence.is_guided:
            continue
        assert prompt.negative is not None
        branch, name = Branch(sequence, len(prompt.negative), is_negative=True), negative_name(sequence)
        if name in new.negative or is_cached(name):
            new.shared.append(branch)
        else:
            new.negative[name] = branch
            new.prompts[branch] = Prompt(prompt.negative)
    return new


def guided(scores: Tensor, other: Tensor, scales: Tensor) -> Tensor:
    """Return guided scores (S, V), written in place of the given ones.

    They are s c + (1 - s) u of the raw ones (Ho and Salimans 2022): taking their log-softmax first, as the authors'
    script does, moves all scores of a row alike and changes no probability.

    Args:
        scores: float32 (S, V), under the prompts.
        other: float32 (S, V), under the negative prompts.
        scales: float32 (S, 1).
    """
    return scores.sub_(other).mul_(scales).add_(other)


def negative_name(sequence: Sequence) -> bytes:
    """Return what tells a guided sequence's negative prompt from another one."""
    negative = sequence.model_input.negative
    assert negative is not None
    return negative.tobytes()
