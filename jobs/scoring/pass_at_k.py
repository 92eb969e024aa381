"""The chance that one of k programs passes its tests, from counts. No program is run here, and no command uses it.

>>> from jobs.scoring.pass_at_k import mean_pass_at_k
>>> mean_pass_at_k([(20, 5), (20, 0)], k=1)  # for each problem the programs written, and how many of them passed
0.125
"""

import math
from collections.abc import Sequence


def pass_at_k(programs: int, passed: int, k: int) -> float:
    """Return the unbiased estimate of one problem: 1 - C(n - c, k) / C(n, k), which is 1 if fewer than k failed.

    Source: Chen et al., "Evaluating Large Language Models Trained on Code" (2021); human-eval 6d43fb9, evaluation.py.

    Raises:
        ValueError: More programs passed than were written, or k is no positive number.
    """
    if not 0 <= passed <= programs or k < 1:
        raise ValueError(
            f"found {passed} passed of {programs} programs and k = {k}, expected 0 to all of them and k >= 1"
        )
    if programs - passed < k:
        return 1.0
    return 1.0 - math.comb(programs - passed, k) / math.comb(programs, k)


def mean_pass_at_k(problems: Sequence[tuple[int, int]], k: int) -> float:
    """Return the mean over problems, each given as its programs and how many of them passed.

    Raises:
        ValueError: A problem has fewer than k programs (its estimate would be 1 whatever they do), or there is none.
    """
    short = sum(programs < k for programs, _ in problems)
    if short or not problems:
        raise ValueError(f"found {short} of {len(problems)} problems with fewer than {k} programs, expected none")
    return math.fsum(pass_at_k(programs, passed, k) for programs, passed in problems) / len(problems)
