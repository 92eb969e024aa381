"""The rules `exact/...`: an answer is right if it equals a gold answer, as GQA has it.

It knows strings only, neither rows nor models.
"""

import string
from collections.abc import Iterable

from jobs.scoring.answers.verdict import judged
from jobs.scoring.rule import Gold, Verdict

NAME = "exact/nocase_nopunct"

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Strip white space around, lower the case, delete ASCII punctuation: GQA as lmms-eval 75571cf scores it.

    In this order, and nothing else: articles, numerals and white space inside stay as they are.
    """
    return text.strip().lower().translate(_NO_PUNCTUATION)


def score(response: str, answers: Iterable[str]) -> float:
    """Return 1.0 if the response equals any of the gold answers after `normalize`, else 0.0."""
    return float(normalize(response) in {normalize(answer) for answer in answers})


def nocase_nopunct(response: str, gold: Gold) -> Verdict:
    """Compare without case and ASCII punctuation."""
    return judged(response, normalize(response), gold, score(response, gold.answers))


def official(response: str, gold: Gold) -> Verdict:
    """Compare character by character, as GQA's eval.py does with what was submitted."""
    return judged(response, response, gold, float(response in gold.answers))


def llava_submission(response: str, gold: Gold) -> Verdict:
    """Compare what LLaVA c121f04 submits (convert_gqa_for_eval.py) as GQA's eval.py does."""
    submitted = response.rstrip(".").lower()
    return judged(response, submitted, gold, float(submitted in gold.answers))
