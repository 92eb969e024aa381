"""BLEU, ROUGE-L and CIDEr-D, equal to those of pycocoevalcap 1.2. They know captions as words with blanks between.

Sources: its bleu_scorer.py, rouge.py and cider_scorer.py; ROUGE-L after C.-Y. Lin, "ROUGE: a package for automatic
evaluation of summaries" (2004), CIDEr-D after R. Vedantam et al., "CIDEr: consensus-based image description evaluation"
(2015).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

ORDERS = 4
# BLEU's own constants: they turn 0 / 0 into nearly 0 instead of an error.
_TINY, _SMALL = 1e-15, 1e-9
# How much more recall weighs than precision in ROUGE-L.
_ROUGE_BETA = 1.2
# The width of CIDEr-D's penalty for another length.
_CIDER_SIGMA = 6.0

# A Counter gives 0 for an n-gram that it does not hold.
NGrams: TypeAlias = Counter[tuple[str, ...]]


class Matches(NamedTuple):
    """The counts for BLEU of one caption, or of many added up.

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


def add_matches(captions: Sequence[Matches]) -> Matches:
    """Add up the counts of captions, for BLEU of the whole set."""
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


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """Return the F measure of the best precision and the best recall, which may come from different references.

    Without any word a caption is one empty word, as in the reference, so that two such captions agree.
    """
    words = candidate.split(" ")
    split = [reference.split(" ") for reference in references]
    common = [_longest_common(words, reference) for reference in split]
    precision = max(common) / len(words)
    recall = max(length / len(reference) for length, reference in zip(common, split, strict=True))
    if not precision:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def _longest_common(words: Sequence[str], others: Sequence[str]) -> int:
    """Return the length of the longest sequence of words that both have in this order."""
    above = [0] * (len(others) + 1)
    for word in words:
        row = [0]
        for index, other in enumerate(others):
            row.append(above[index] + 1 if word == other else max(above[index + 1], row[index]))
        above = row
    return above[-1]


class _Vector(NamedTuple):
    """One caption: each n-gram's weight, the weights' norm for n of 1 to 4, and the number of bigrams."""

    weights: Mapping[tuple[str, ...], float]
    norms: Sequence[float]
    bigrams: int


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return each caption's CIDEr-D, 0 to 10; the set's is their mean.

    What a word weighs depends on the images that are scored: parts of a set are not comparable.

    Args:
        candidates: One caption an image.
        references: The images' references, in the same order.
    """
    # The references' n-grams are counted twice over, since those of all images at once would fill the memory.
    images: NGrams = Counter()
    for image in references:
        images.update({ngram for reference in image for ngram in ngrams(reference.split())})
    log_images = math.log(len(candidates))
    scores = []
    for candidate, image in zip(candidates, references, strict=True):
        vector = _vector(candidate, images, log_images)
        similarity = sum(_similarity(vector, _vector(reference, images, log_images)) for reference in image)
        scores.append(10 * similarity / len(image))
    return scores


def _vector(caption: str, images: NGrams, log_images: float) -> _Vector:
    weights, squares, bigrams = {}, [0.0] * ORDERS, 0
    for ngram, count in ngrams(caption.split()).items():
        # An n-gram in no reference weighs as if one image had it.
        weight = count * (log_images - math.log(max(1, images[ngram])))
        weights[ngram] = weight
        squares[len(ngram) - 1] += weight**2
        bigrams += count if len(ngram) == 2 else 0
    return _Vector(weights, [math.sqrt(square) for square in squares], bigrams)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Return the clipped cosine, averaged over n, less the penalty for another length, which is counted in bigrams."""
    products = [0.0] * ORDERS
    for ngram, weight in candidate.weights.items():
        other = reference.weights.get(ngram, 0.0)
        products[len(ngram) - 1] += min(weight, other) * other
    norms = [a * b for a, b in zip(candidate.norms, reference.norms, strict=True)]
    cosines = [product / norm if norm else 0.0 for product, norm in zip(products, norms, strict=True)]
    difference = candidate.bigrams - reference.bigrams
    return sum(cosines) / ORDERS * math.exp(-(difference**2) / (2 * _CIDER_SIGMA**2))
