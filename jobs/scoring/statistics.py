"""Errors and intervals of a score, tests of the difference of two, and the smallest difference that would show.

It knows columns of numbers and which rows belong together, not what they measure. Sources: E. Miller, "Adding Error
Bars to Evals" (arXiv 2411.00640), which lmms-eval 75571cf follows, for errors and paired differences; S. Holm, "A
simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobs.scoring.intervals import student, wilson

Floats: TypeAlias = NDArray[np.float64]
# Takes the indices of the rows drawn, some of them several times, and returns the number that is wanted of them.
Statistic: TypeAlias = Callable[[NDArray[np.intp]], float]

RESAMPLES = 1000


class Estimate(NamedTuple):
    """A mean and how sure it is; `error`, `low` and `high` are None where there are too few rows to say."""

    mean: float
    error: float | None
    low: float | None
    high: float | None
    n: int


class Difference(NamedTuple):
    """A mean difference of paired scores with its t test; None where there are too few rows to say."""

    mean: float
    error: float | None
    low: float | None
    high: float | None
    t: float | None
    p_value: float | None
    n: int


class McNemar(NamedTuple):
    """How many rows only the first run has right, how many only the second, and the exact two-sided p-value."""

    only_first: int
    only_second: int
    p_value: float


class Tally(NamedTuple):
    """In how many rows the first run scores higher, lower, or the same."""

    wins: int
    losses: int
    ties: int


class Bootstrap(NamedTuple):
    """The spread of a statistic over rows drawn again: its standard deviation and its 2.5 and 97.5 % points."""

    error: float
    low: float
    high: float


def standard_error(scores: ArrayLike) -> float | None:
    """Return s / sqrt(n) with the sample's s, or None for fewer than two rows."""
    values = _scores(scores)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def clustered_error(scores: ArrayLike, clusters: Sequence[Hashable]) -> float | None:
    """Return the standard error of a mean of rows that belong together, e.g. questions on one image.

    SE² = s²/n + (sum over clusters of the products of different rows' deviations) / n²: Miller (2024), equation 4.
    None for fewer than two rows.

    Raises:
        ValueError: There are not as many clusters named as scores.
    """
    values = _scores(scores)
    cluster_of_row = _cluster_numbers(clusters, len(values))
    n = len(values)
    if n < 2:
        return None
    deviations = values - values.mean()
    squares = float((deviations**2).sum())
    within = float((np.bincount(cluster_of_row, weights=deviations) ** 2).sum()) - squares
    # Only rounding brings it below 0.
    return math.sqrt(max(squares / (n - 1) / n + within / n**2, 0.0))


def estimate(scores: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Return a mean with its error and 95 % interval.

    Wilson's interval for scores of 0 and 1 without clusters, else Student's t with rows (or clusters) less
    one degrees of freedom, which may reach past 0 and 1.

    Args:
        scores: One a row, at least one.
        clusters: What rows belong together by, e.g. each row's image; None where each stands for itself.
    """
    values = _scores(scores)
    mean = float(values.mean())
    if clusters is None and _are_right_or_wrong(values):
        interval = wilson(float(values.sum()), len(values))
        return Estimate(mean, standard_error(values), interval.low, interval.high, len(values))
    error, degrees = _error(values, clusters)
    if error is None or degrees < 1:
        return Estimate(mean, None, None, None, len(values))
    return Estimate(mean, error, *student(mean, error, degrees), len(values))


def paired_difference(first: ArrayLike, second: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Difference:
    """Return the mean of `first` minus `second` row by row, with its standard error, 95 % t interval and t test.

    With clusters the error is the clustered one of the differences and the degrees of freedom are clusters less one.

    Raises:
        ValueError: The columns differ in length, or are empty.
    """
    from scipy.special import stdtr  # loaded late, as in intervals.py

    differences = _paired(first, second)
    mean, n = float(differences.mean()), len(differences)
    error, degrees = _error(differences, clusters)
    if error is None or degrees < 1:
        return Difference(mean, None, None, None, None, None, n)
    interval = student(mean, error, degrees)
    # Equal differences have no error: t is infinite, or 0 if they are 0.
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    return Difference(mean, error, *interval, t, 2 * float(stdtr(degrees, -abs(t))), n)


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Return McNemar's exact test of two runs' scores of 0 and 1: the binomial test of the rows where they differ.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika
    12 (1947), in its exact form.

    Raises:
        ValueError: A score is neither 0 nor 1, or the columns differ in length.
    """
    from scipy.special import bdtr

    if not (_are_right_or_wrong(_scores(first)) and _are_right_or_wrong(_scores(second))):
        raise ValueError("found scores other than 0 and 1, expected only these: McNemar's test counts right and wrong")
    counts = tally(first, second)
    tail = float(bdtr(min(counts.wins, counts.losses), counts.wins + counts.losses, 0.5))
    return McNemar(counts.wins, counts.losses, min(1.0, 2 * tail))


def tally(first: ArrayLike, second: ArrayLike) -> Tally:
    """Count in how many rows `first` scores higher than `second`, lower, or the same."""
    differences = _paired(first, second)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return Tally(wins, losses, len(differences) - wins - losses)


def bootstrap(
    statistic: Statistic, clusters: Sequence[Hashable], *, seed: int, resamples: int = RESAMPLES
) -> Bootstrap:
    """Return the spread of any number that is not a mean of rows, e.g. F1 or CIDEr: percentile bootstrap.

    Whole clusters are drawn with replacement, as many as there are; the same seed gives the same spread.

    Args:
        statistic: Called `resamples` times.
        clusters: One a row: what rows belong together by, or the row's own key where each stands for itself.
        seed: Of the run.
        resamples: How often rows are drawn.
    """
    values = np.array([statistic(rows) for rows in _draws(clusters, seed, resamples)])
    low, high = np.quantile(values, [0.025, 0.975])
    return Bootstrap(float(values.std(ddof=1)), float(low), float(high))


def bootstrap_p_value(
    difference: Statistic, clusters: Sequence[Hashable], *, seed: int, resamples: int = RESAMPLES
) -> float:
    """Return the two-sided p-value of a difference between two runs over the same rows.

    The differences of drawn rows are centred on the one found, which is what chance alone would give; the p-value is
    the share of them at least as far from 0. One is added above and below, so that it is never 0: B. Efron and R.
    Tibshirani, "An Introduction to the Bootstrap" (1993), section 16.4.

    Args:
        difference: The first run's number minus the second's, of the rows whose indices it takes.
        clusters: One a row, as for `bootstrap`.
        seed: Of the run.
        resamples: How often rows are drawn.
    """
    observed = difference(np.arange(len(clusters)))
    drawn = np.array([difference(rows) for rows in _draws(clusters, seed, resamples)])
    # Rounding must not tell equal differences apart.
    is_as_far = np.abs(drawn - observed) >= abs(observed) * (1 - 1e-12)
    return float((1 + is_as_far.sum()) / (1 + resamples))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down rule, in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable_difference(error: float, *, level: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true difference that a two-sided test would find with this power.

    (z of 1 - level/2 plus z of power) times the standard error of the paired difference: Miller (2024), section 5.
    """
    z = NormalDist().inv_cdf
    return (z(1 - level / 2) + z(power)) * error


def _scores(scores: ArrayLike) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"found scores of shape {values.shape}, expected one finite number a row and at least one row")
    return values


def _are_right_or_wrong(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _paired(first: ArrayLike, second: ArrayLike) -> Floats:
    a, b = _scores(first), _scores(second)
    if len(a) != len(b):
        raise ValueError(f"found {len(a)} scores against {len(b)}, expected the same rows in the same order")
    return a - b


def _error(values: Floats, clusters: Sequence[Hashable] | None) -> tuple[float | None, int]:
    """Return the standard error, and the degrees of freedom it has."""
    if clusters is None:
        return standard_error(values), len(values) - 1
    return clustered_error(values, clusters), len(set(clusters)) - 1


def _cluster_numbers(clusters: Sequence[Hashable], rows: int) -> NDArray[np.intp]:
    """Return the number of each row's cluster, counted in the order of first appearance."""
    if len(clusters) != rows:
        raise ValueError(f"found {len(clusters)} clusters for {rows} rows, expected one a row")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)


def _draws(clusters: Sequence[Hashable], seed: int, resamples: int) -> Iterator[NDArray[np.intp]]:
    """Yield the indices of the rows of clusters drawn with replacement, `resamples` times."""
    cluster_of_row = _cluster_numbers(clusters, len(clusters))
    order = np.argsort(cluster_of_row, kind="stable")
    sizes = np.bincount(cluster_of_row)
    starts = np.cumsum(sizes) - sizes
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = generator.integers(len(sizes), size=len(sizes))
        lengths = sizes[drawn]
        shifts = starts[drawn] - (np.cumsum(lengths) - lengths)
        yield order[np.repeat(shifts, lengths) + np.arange(lengths.sum())]
