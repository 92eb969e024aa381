"""KID: the distance of two sets of features as a kernel sees it, unbiased also for a few hundred pictures.

It knows features, one row a picture. Source: M. Bińkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401), with
the kernel and subsets of clean-fid 0.1.35.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers: TypeAlias = NDArray[np.float64]


class Kid(NamedTuple):
    """The mean over subsets, their standard deviation (None for one subset), and the pictures of a subset."""

    value: float
    deviation: float | None
    subset: int


def kid(one: ArrayLike, other: ArrayLike, *, seed: int, subsets: int = 100, largest_subset: int = 1000) -> Kid:
    """Return the kernel distance of two sets, averaged over random subsets of each.

    Sets that are of one size and fit into a subset are taken whole, once.

    Args:
        one: Features, one row a picture.
        other: As wide; the number of rows may differ.
        seed: Of the choice of subsets.
        subsets: How many.
        largest_subset: Rows drawn from each set, without replacement, or all rows of the smaller set.

    Raises:
        ValueError: The widths differ, or a set has fewer than two rows.
    """
    first, second = _features(one), _features(other)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"found features of {first.shape[1]} and of {second.shape[1]} numbers, expected the same")
    size = min(len(first), len(second), largest_subset)
    if len(first) == len(second) == size:
        return Kid(_distance(first, second), None, size)
    generator = np.random.default_rng(seed)
    values = [
        _distance(
            first[generator.choice(len(first), size, replace=False)],
            second[generator.choice(len(second), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return Kid(float(np.mean(values)), float(np.std(values)), size)


def _features(rows: ArrayLike) -> Numbers:
    features = np.asarray(rows, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise ValueError(f"found features of shape {features.shape}, expected two finite rows or more")
    return features


def _distance(one: Numbers, other: Numbers) -> float:
    """Return the unbiased squared maximum mean discrepancy: no row is compared with itself."""
    size = len(one)
    within = _kernel(one, one), _kernel(other, other)
    own = sum(float(kernel.sum() - np.trace(kernel)) for kernel in within) / (size * (size - 1))
    return own - 2 * float(_kernel(one, other).mean())


def _kernel(one: Numbers, other: Numbers) -> Numbers:
    return np.asarray((one @ other.T / one.shape[1] + 1) ** 3)
