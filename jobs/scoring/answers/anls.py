"""The rule `anls/rrc`: how near a response is to a gold answer, letter by letter (DocVQA, InfographicVQA).

It knows strings only.
"""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from jobs.scoring.answers.verdict import judged
from jobs.scoring.rule import Gold, Verdict

# A similarity below it counts as none; exactly at it, it counts.
_THRESHOLD = 0.5


def similarity(prediction: str, answers: Sequence[str]) -> float:
    """Return the average normalised Levenshtein similarity of one question, as the RRC's script computes it.

    The distance is that of lower-case strings with white space collapsed; it is divided by the length of the
    strings as they came, in capitals (some letters become two), so blanks at the ends of a prediction raise it.
    Source: the evaluation of InfographicVQA and DocVQA by the Robust Reading Competition, as in Qwen-VL aa00ed0
    (eval_mm/infographicsvqa_eval.py). The formula of the paper is another one at the threshold.

    Args:
        prediction: The rule strips it first, this function does not.
        answers: At least one.
    """
    near = 1 - min(_distance(prediction, answer) for answer in answers)
    return near if near >= _THRESHOLD else 0.0


def rrc(response: str, gold: Gold) -> Verdict:
    """Give the similarity to the nearest gold answer, nothing below a half."""
    return judged(response, response, gold, similarity(response, gold.answers) if gold.answers else 0.0)


def _distance(prediction: str, answer: str) -> float:
    length = max(len(answer.upper()), len(prediction.upper()))
    return Levenshtein.distance(_collapsed(answer), _collapsed(prediction)) / length if length else 0.0


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())
