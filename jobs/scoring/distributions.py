"""Points and tails of the distributions that tests and intervals need. It knows no scores.

scipy is loaded by the first call only: its 26 MB are not for the command line nor for every actor that knows a job.
"""

from statistics import NormalDist


def normal_point(share: float) -> float:
    """Return where the standard normal distribution has this share below."""
    return NormalDist().inv_cdf(share)


def student_point(degrees: int, share: float) -> float:
    """Return where Student's t distribution has this share below."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def student_share(degrees: int, point: float) -> float:
    """Return the share of Student's t distribution below a point."""
    from scipy.special import stdtr

    return float(stdtr(degrees, point))


def coin_share(heads: int, tosses: int) -> float:
    """Return how probable it is that a fair coin falls on heads this often or less."""
    from scipy.special import bdtr

    return float(bdtr(heads, tosses, 0.5))
