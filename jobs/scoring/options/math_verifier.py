r"""MATH's second rule, `math/math_verify`: the content of the last box equals the gold answer as mathematics.

The comparing is done by the optional package math-verify (0.9), which reads LaTeX with a grammar of its own. Its
timeouts are signals, so the rule runs in a process's main thread only. The file knows strings only.
"""

import re
from importlib.util import find_spec

from jobs.scoring.options.math import judged_by
from jobs.scoring.rule import Gold, Verdict

# The package's reader of plain expressions hands arithmetic to Python to evaluate, but reads numbers itself (`5.` is no
# LaTeX to it). So it is not given what has an operator between digits: that is read as LaTeX or not at all.
_OPERATORS = r"+\-*×/^()÷"
_ARITHMETIC = re.compile(rf"\d[\d.\s{_OPERATORS}]*[{_OPERATORS}][\d.\s{_OPERATORS}]")


class MathVerifyMissing(ImportError):
    """The rule was asked for where the package is not installed."""


def is_equivalent(prediction: str, gold: str) -> bool:
    """Return whether two pieces of LaTeX mean the same.

    Raises:
        MathVerifyMissing: The package math-verify is not installed.
    """
    if find_spec("math_verify") is None:
        raise MathVerifyMissing(
            "found no package math-verify, expected it for the rule math/math_verify: pip install 'triptych[math]'"
        )
    from math_verify import verify

    return bool(verify(_read(gold), _read(prediction)))


def _read(latex: str) -> list[object]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    readers = [LatexExtractionConfig(), *([] if _ARITHMETIC.search(latex) else [ExprExtractionConfig()])]
    return list(parse(f"${latex}$", readers))


def score_math_verify(response: str, gold: Gold) -> Verdict:
    """The rule `math/math_verify`. The gold answer is the content of the solution's last box."""
    return judged_by(is_equivalent, response, gold)
