"""BLEU of a whole set of captions. It knows captions as words with blanks between, and how to count their n-grams.

Source: pycocoevalcap 1.2, bleu_scorer.py, with the closest reference's length.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

ORDERS = 4
# The reference's own constants: nothing over nothing becomes next to nothing, never an error.
_TINY, _SMALL = 1e-15, 1e-9

# A Counter gives 0 for an n-gram that it does not hold.
NGrams: TypeAlias = Counter[tuple[str, ...]]


class Matches(NamedTuple):
    """What one caption, or all of them added up, adds to BLEU.

    Attributes:
        length: Words of the candidate.
        reference_length: Words of that reference which is nearest in length, the shorter one of two.
        matched: For n of 1 to 4 the candidate's n-grams that some reference holds, none more often than there.
        possible: For n of 1 to 4 the candidate's n-grams.
    """

    length: int
    reference_length: int
    matched: tuple[int, ...]
    possible: tuple[int, ...]


def ngrams(words: Sequence[str]) -> NGrams:
    """Count the n-grams of one to four words."""
    counts: NGrams = Counter()
    for n in range(1, ORDERS + 1):
        counts.update(zip(*(words[start:] for start in range(n)), strict=False))
    return counts


def matches(candidate: str, references: Sequence[str]) -> Matches:
    """Compare one caption with its references."""
    words = candidate.split()
    split = [reference.split() for reference in references]
    counted = [ngrams(reference) for reference in split]
    matched = [0] * ORDERS
    for ngram, count in ngrams(words).items():
        matched[len(ngram) - 1] += min(count, max(reference[ngram] for reference in counted))
    lengths = [len(reference) for reference in split]
    _, nearest = min((abs(length - len(words)), length) for length in lengths)
    possible = tuple(max(0, len(words) - n) for n in range(ORDERS))
    return Matches(len(words), nearest, tuple(matched), possible)


def total(captions: Sequence[Matches]) -> Matches:
    """Add up what captions bring, for BLEU of the whole set."""
    return Matches(
        sum(caption.length for caption in captions),
        sum(caption.reference_length for caption in captions),
        tuple(sum(caption.matched[n] for caption in captions) for n in range(ORDERS)),
        tuple(sum(caption.possible[n] for caption in captions) for n in range(ORDERS)),
    )


def bleu(counts: Matches) -> tuple[float, ...]:
    """Return BLEU-1 to BLEU-4: geometric means of the clipped precisions, times the penalty for being short."""
    ratio = (counts.length + _TINY) / (counts.reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for n in range(ORDERS):
        product *= (counts.matched[n] + _TINY) / (counts.possible[n] + _SMALL)
        scores.append(product ** (1 / (n + 1)) * penalty)
    return tuple(scores)
