r"""MATH's rules: the last `\boxed{...}` of a response equals the gold answer.

`math/hendrycks` compares LaTeX written in one way and does no mathematics. `math/math_verify` compares as mathematics,
by the optional package math-verify (0.9), which reads LaTeX with a grammar of its own; its timeouts are signals, so it
runs in a process's main thread only. They know strings only.
Sources: hendrycks/math 985bdc1, modeling/math_equivalence.py; for the box lm-evaluation-harness 4e7e0d4,
hendrycks_math/utils.py.
"""

import re
from collections.abc import Callable
from importlib.util import find_spec

from jobs.scoring.rule import Gold, RuleResult, rule_result

_BOX, _BOX_AND_BLANK, _FRAME = "\\boxed", "\\boxed ", "\\fbox"
# In this order; what is left of a unit goes between the two halves, as its mark holds a blank.
_BEFORE_UNITS = (
    *(("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac")),
    *(("\\left", ""), ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", "")),
)
# Percent signs go twice: the first time can bring together what makes another.
_AFTER_UNITS = (("\\%", ""), ("\\%", ""), (" .", " 0."), ("{.", "{0."))
_UNIT = "\\text{ "
_WHOLE_FRACTION = re.compile(r"(-?(?:0|[1-9][0-9]*))/(-?(?:0|[1-9][0-9]*))")
# The package's reader of plain expressions hands arithmetic to Python to evaluate, but reads numbers itself (`5.` is no
# LaTeX to it). So it is not given what has an operator between digits: that is read as LaTeX or not at all.
_OPERATORS = r"+\-*×/^()÷"
_ARITHMETIC = re.compile(rf"\d[\d.\s{_OPERATORS}]*[{_OPERATORS}][\d.\s{_OPERATORS}]")


class MathVerifyMissing(ImportError):
    """The rule was asked for where the package is not installed."""


class NotComparable(ValueError):
    """LaTeX on which the published rule fails, so that it is compared as it is."""


def last_boxed(text: str) -> str | None:
    r"""Return the last `\boxed{...}` or `\fbox{...}` with its braces in balance, or `\boxed x` to the next `$`."""
    if _BOX_AND_BLANK in text:
        return _BOX_AND_BLANK + text.split(_BOX_AND_BLANK)[-1].split("$")[0]
    start = max(text.rfind(_BOX), text.rfind(_FRAME) if _BOX not in text else -1)
    if start < 0:
        return None
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return text[start : index + 1]
    return None


def boxed_content(boxed: str) -> str | None:
    r"""Return the content of a box that `last_boxed` found; None for `\fbox`, whose content is not published as one."""
    if boxed.startswith(_BOX_AND_BLANK):
        return boxed.removeprefix(_BOX_AND_BLANK)
    if boxed.startswith(_BOX + "{") and boxed.endswith("}"):
        return boxed[len(_BOX) + 1 : -1]
    return None


def normalize(latex: str) -> str:
    r"""Return LaTeX in one way of writing: without blanks, units, degrees, percent; `\frac{a}{b}`, `\sqrt{a}`.

    Raises:
        NotComparable: The published function raises an error on it.
    """
    for old, new in _BEFORE_UNITS:
        latex = latex.replace(old, new)
    latex = _without_unit(latex)
    for old, new in _AFTER_UNITS:
        latex = latex.replace(old, new)
    if not latex:
        return latex
    latex = _without_name("0" + latex if latex.startswith(".") else latex)
    latex = _fractions(_roots(latex).replace(" ", ""))
    return _slash("\\frac{1}{2}" if latex == "0.5" else latex)


def _without_unit(latex: str) -> str:
    pieces = latex.split(_UNIT)
    if len(pieces) > 2:
        raise NotComparable(f"found {len(pieces) - 1} units in {latex!r}, expected one at most")
    return pieces[0]


def _without_name(latex: str) -> str:
    """Drop what comes before a single `=`, if it is two characters at most."""
    name, *rest = latex.split("=")
    return rest[0] if len(rest) == 1 and len(name) <= 2 else latex


def _roots(latex: str) -> str:
    first, *rest = latex.split("\\sqrt")
    if not all(rest):
        raise NotComparable(f"found nothing after \\sqrt in {latex!r}, expected what it is the root of")
    return first + "".join(
        "\\sqrt" + (piece if piece.startswith("{") else f"{{{piece[0]}}}{piece[1:]}") for piece in rest
    )


def _fractions(latex: str) -> str:
    first, *rest = latex.split("\\frac")
    result = first
    for piece in rest:
        if not piece:
            raise NotComparable(f"found nothing after \\frac in {latex!r}, expected a numerator")
        if piece.startswith("{"):
            result += f"\\frac{piece}"
        elif len(piece) < 2:
            return latex
        else:
            below = piece[1:] if piece[1] == "{" else f"{{{piece[1]}}}{piece[2:]}"
            result += f"\\frac{{{piece[0]}}}{below}"
    return result


def _slash(latex: str) -> str:
    r"""Write `a/b` of two whole numbers as `\frac{a}{b}`."""
    fraction = _WHOLE_FRACTION.fullmatch(latex)
    if fraction is None or "-0" in (fraction[1], fraction[2]):
        return latex
    return f"\\frac{{{fraction[1]}}}{{{fraction[2]}}}"


def is_equal_latex(prediction: str, gold: str) -> bool:
    """Return whether two pieces of LaTeX are equal after `normalize`; as they are, if one cannot be normalised."""
    try:
        return normalize(prediction) == normalize(gold)
    except NotComparable:
        return prediction == gold


def is_equal_by_math_verify(prediction: str, gold: str) -> bool:
    """Return whether two pieces of LaTeX mean the same to the package math-verify.

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


def extract_boxed(response: str) -> str | None:
    """Return the content of a text's last box; None if there is no box, or none that is closed."""
    boxed = last_boxed(response)
    return None if boxed is None else boxed_content(boxed)


def score_math(response: str, gold: Gold, is_equal: Callable[[str, str], bool]) -> RuleResult:
    """Compare the content of a response's last box with the gold answers, which are contents of boxes too."""
    content = extract_boxed(response)
    is_right = content is not None and any(is_equal(content, answer) for answer in gold.answers)
    return rule_result(response, content, gold, float(is_right))
