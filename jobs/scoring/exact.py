"""The rule `exact/nocase_nopunct`: an answer is right if it equals a gold answer but for case and punctuation.

It knows strings only, neither rows nor models.
"""

import string
from collections.abc import Iterable

NAME = "exact/nocase_nopunct"

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Strip white space around, lower the case, delete ASCII punctuation: GQA as lmms-eval scores it.

    In this order, and nothing else: articles, numerals and white space inside stay as they are.
    """
    return text.strip().lower().translate(_NO_PUNCTUATION)


def score(response: str, answers: Iterable[str]) -> float:
    """Return 1.0 if the response equals any of the gold answers after `normalize`, else 0.0."""
    return float(normalize(response) in {normalize(answer) for answer in answers})
