"""Classifier-free guidance: a second branch for guided sequences, whose scores theirs are moved away from.

Shapes: S sequences, D model width.
"""

from collections.abc import Iterator

from torch import Tensor

from models.cache.memory import answer_memory
from models.engine.decoder import Prompt
from models.engine.prefixes import negative_prefix, shared_prefix
from models.engine.scheduler import Branch, Sequence


def branches_of(sequence: Sequence, prompt: Prompt) -> Iterator[tuple[Branch, Prompt]]:
    """Yield the branches of a sequence that starts, and what of each goes through the decoder."""
    sequence.grammar = prompt.grammar
    memory, prefix = answer_memory(prompt.spans), shared_prefix(sequence.model_input)
    yield Branch(sequence, len(prompt.embeddings), memory=memory, offset=prompt.offset, prefix=prefix), prompt
    if sequence.is_guided:
        assert prompt.negative is not None
        prefix = negative_prefix(sequence.model_input)
        yield Branch(sequence, len(prompt.negative), is_negative=True, prefix=prefix), Prompt(prompt.negative)


def guided(hidden: Tensor, scales: Tensor | None) -> Tensor:
    """Return the hidden states (S, D) whose scores are the guided ones, from those of both branches.

    Guided scores are s c + (1 - s) u of the raw ones (Ho and Salimans 2022): taking their log-softmax first, as the
    authors' script does, moves all scores of a row alike and changes no probability. A head is linear, so what is
    true of scores is true of what they are made from, and the head is asked for half as many rows.

    Args:
        hidden: (2 * S, D), under the prompts and then under the negative prompts; (S, D) without scales.
        scales: float32 (S, 1), or None for what is not guided.
    """
    if scales is None:
        return hidden
    own, other = hidden.float().chunk(2)
    return own.sub(other).mul_(scales).add_(other).to(hidden.dtype)
