"""What the engine asks of a family's model, and what passes between them.

Shapes: B sequences, T tokens, A axes of positions, D model width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.cache.memory import Span
from models.cache.slots import CacheShape, CacheView
from models.types import ModelInput


class Grammar(Protocol):
    """Which tokens an answer may have, where that is fixed: some are chosen, the others come by themselves."""

    @property
    def choices(self) -> range:
        """The ids that are chosen among."""

    @property
    def line(self) -> tuple[int, int]:
        """How many chosen ids a line has, and the id that then comes by itself, before the next is chosen."""

    def forced(self, num_emitted: int) -> tuple[int, ...]:
        """Return the ids that follow so many emitted tokens by themselves, up to the next choice or the end."""

    def is_over(self, num_emitted: int) -> bool:
        """Whether so many tokens are a whole answer."""


@dataclass(frozen=True)
class Prompt:
    """An input on the device: what the decoder reads in place of token embeddings.

    Attributes:
        embeddings: (T, D), image features in the places of their placeholders where a family puts them there.
        spans: What the tokens see beside their own sequence, for families with cross-attention. A span without an
            end holds for every token of the answer too; there is at most one.
        grammar: What the answer's tokens follow, if anything.
        negative: (T', D), the negative prompt, for guided answers.
        positions: int (T, A) on the CPU, where each token stands for the rotary positions; None for 0, 1, 2, …. The
            tokens of an answer go on behind the farthest of them, on all axes alike.
    """

    embeddings: Tensor
    spans: Sequence[Span] = ()
    grammar: Grammar | None = None
    negative: Tensor | None = None
    positions: Tensor | None = None

    @property
    def offset(self) -> int:
        """How far the tokens of an answer stand beyond their places."""
        return 0 if self.positions is None else int(self.positions.max()) + 1 - len(self.positions)


class Decoder(Protocol):
    """A family's model as the engine sees it."""

    @property
    def device(self) -> torch.device:
        """Where its input goes; further layers may lie elsewhere."""

    @property
    def cache_shape(self) -> CacheShape:
        """What one token leaves in the cache."""

    @property
    def max_position_embeddings(self) -> int:
        """The longest sequence the model was made for."""

    def prompt(self, inputs: Sequence[ModelInput]) -> list[Prompt]:
        """Bring inputs onto the device; images are encoded here, each distinct one once."""

    def embed(self, token_ids: Tensor) -> Tensor:
        """Return the embeddings (…, D) of int token ids."""

    def decode(self, embeddings: Tensor, cache_view: CacheView) -> Tensor:
        """Run (B, T, D) through the decoder, reading and extending the cache; return hidden states (B, T, D)."""

    def logits(self, hidden: Tensor, choices: range | None = None) -> Tensor:
        """Return float32 scores of the next token for hidden states (B, D): of all ids (B, V), or of some."""
