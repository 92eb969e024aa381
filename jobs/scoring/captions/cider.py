"""CIDEr-D of captions. It knows captions as words with blanks between, and the whole set that they are scored in.

Source: pycocoevalcap 1.2, cider_scorer.py, after R. Vedantam et al., "CIDEr: consensus-based image description
evaluation" (2015). What a word weighs depends on the images that are scored: parts of a set are not comparable.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobs.scoring.captions.bleu import ORDERS, NGrams, ngrams

_SIGMA = 6.0


class _Vector(NamedTuple):
    """One caption: each n-gram's weight, the weights' norm for n of 1 to 4, and the number of bigrams."""

    weights: Mapping[tuple[str, ...], float]
    norms: Sequence[float]
    bigrams: int


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return each caption's CIDEr-D, 0 to 10; the set's is their mean.

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
        likeness = sum(_likeness(vector, _vector(reference, images, log_images)) for reference in image)
        scores.append(10 * likeness / len(image))
    return scores


def _vector(caption: str, images: NGrams, log_images: float) -> _Vector:
    weights, squares, bigrams = {}, [0.0] * ORDERS, 0
    for ngram, count in ngrams(caption.split()).items():
        # What no reference holds weighs as if one image had it.
        weight = count * (log_images - math.log(max(1, images[ngram])))
        weights[ngram] = weight
        squares[len(ngram) - 1] += weight**2
        bigrams += count if len(ngram) == 2 else 0
    return _Vector(weights, [math.sqrt(square) for square in squares], bigrams)


def _likeness(candidate: _Vector, reference: _Vector) -> float:
    """Return the clipped cosine, averaged over n, less the penalty for another length, which is counted in bigrams."""
    products = [0.0] * ORDERS
    for ngram, weight in candidate.weights.items():
        other = reference.weights.get(ngram, 0.0)
        products[len(ngram) - 1] += min(weight, other) * other
    norms = [one * other for one, other in zip(candidate.norms, reference.norms, strict=True)]
    cosines = [product / norm if norm else 0.0 for product, norm in zip(products, norms, strict=True)]
    apart = candidate.bigrams - reference.bigrams
    return sum(cosines) / ORDERS * math.exp(-(apart**2) / (2 * _SIGMA**2))
