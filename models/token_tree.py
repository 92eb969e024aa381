"""The continuations of a prompt as a tree: those that begin alike share their first tokens.

Only tokens that have a successor are in it: the last token of a continuation does not go through the decoder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenTree:
    """The tokens that are fed to score continuations, each behind those that it follows.

    Attributes:
        token_ids: Their ids.
        parents: The place of the token that each follows; -1 is the prompt's last one.
        ends: For each continuation, the places of what its tokens follow.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]
    ends: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        """How many there are."""
        return len(self.token_ids)


def build_token_tree(continuations: Iterable[Sequence[int]]) -> TokenTree:
    """Return the tree of continuations, none of them empty."""
    places: dict[tuple[int, int], int] = {}
    ends = []
    for ids in continuations:
        path = [-1]
        for token_id in ids[:-1]:
            path.append(places.setdefault((path[-1], token_id), len(places)))
        ends.append(tuple(path))
    return TokenTree(tuple(token for _, token in places), tuple(parent for parent, _ in places), tuple(ends))


def tree_attention(parents: Sequence[int], num_tokens: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the attention mask and the depths of a tree's tokens, the last token repeated up to `num_tokens`, T.

    Returns:
        Which tokens each one sees: itself and those that it follows, bool (T, T); and how many it follows, int (T,).
    """
    sees = np.zeros((num_tokens, num_tokens), np.bool_)
    for place, parent in enumerate(parents):
        if parent >= 0:
            sees[place] = sees[parent]
        sees[place, place] = True
    sees[len(parents) :] = sees[len(parents) - 1]
    return sees, sees.sum(-1) - 1
