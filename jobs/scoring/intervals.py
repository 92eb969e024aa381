"""How sure a score is: intervals around shares and means. It knows numbers only, not where they come from."""

import math
from typing import NamedTuple

from jobs.scoring.distributions import student_point

# The 97.5 % point of the normal distribution, for two-sided 95 % intervals.
Z_95 = 1.959963984540054


class Interval(NamedTuple):
    """The lower and upper end of a two-sided interval."""

    low: float
    high: float


def wilson(successes: float, total: int) -> Interval:
    """Return Wilson's 95 % score interval for a share, without continuity correction.

    Unlike the share plus or minus two standard errors it stays inside 0 and 1 and is honest near both ends.
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"found {successes} successes in {total} trials, expected at least one trial and 0 to all")
    share = successes / total
    spread = Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    # The ends are exact for none and for all; rounding must not push them past 0 and 1.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == total else centre + half
    return Interval(low, high)


def normal(mean: float, error: float) -> Interval:
    """Return the 95 % interval around a mean of many rows: 1.96 standard errors to each side."""
    return Interval(mean - Z_95 * error, mean + Z_95 * error)


def student(mean: float, error: float, degrees: int) -> Interval:
    """Return the 95 % interval of Student's t distribution, which also holds for a few rows.

    Args:
        mean: The middle of the interval.
        error: Its standard error.
        degrees: Degrees of freedom: rows, or clusters of rows, less one.

    Raises:
        ValueError: There are no degrees of freedom.
    """
    if degrees < 1:
        raise ValueError(f"found {degrees} degrees of freedom, expected 1 or more: two rows, or two clusters of rows")
    half = student_point(degrees, 0.975) * error
    return Interval(mean - half, mean + half)
