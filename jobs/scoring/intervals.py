"""95 % intervals around shares and means. They know numbers only, not where these come from."""

import math
from typing import NamedTuple

# The 97.5 % point of the normal distribution, for two-sided 95 % intervals.
_Z_95 = 1.959963984540054


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
    spread = _Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = _Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    # The ends are exact for none and for all; rounding must not push them past 0 and 1.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == total else centre + half
    return Interval(low, high)


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
    # scipy is loaded by the first call only: its 26 MB are not for the command line nor for every actor.
    from scipy.special import stdtrit

    half = float(stdtrit(degrees, 0.975)) * error
    return Interval(mean - half, mean + half)
