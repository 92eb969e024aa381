"""The rules `relaxed/...`: a number within 5 % of the right one is right, other text must be the same (ChartQA).

They know strings only.
"""

import re
import string
from collections.abc import Sequence

from jobs.scoring.rule import Gold, RuleResult, rule_result

_TOLERANCE = 0.05

_BOLD_MARK = re.compile(r"([aA]nswer)\**:\**")
_MARK = "answer:"
_MARKDOWN = re.compile(r"[*_\[\]()]")


def is_near(prediction: str, target: str) -> bool:
    """Return whether a prediction is right: within 5 % if both are numbers and the target is not 0, else the same text.

    Case does not count. There are no thousands' separators, currencies or units: what Python's `float` does not read
    is text, except that a percentage is a hundredth.
    Source: google-research/pix2struct 945f27e, metrics.py; some copies have the arguments in another order.
    """
    ours, theirs = _to_float(prediction), _to_float(target)
    if ours is not None and theirs:
        return abs(ours - theirs) / abs(theirs) <= _TOLERANCE
    return prediction.lower() == target.lower()


def score_pix2struct(response: str, gold: Gold) -> RuleResult:
    """Give 1 if the response is near any gold answer, which stays as the data set stores it."""
    return rule_result(response, response, gold, float(any(is_near(response, answer) for answer in gold.answers)))


def score_mistral(response: str, gold: Gold) -> RuleResult:
    """Compare what follows the last `answer:` more leniently (mistral-evals d61811f, its explicit-prompt metric).

    A response without that mark is wrong there, whatever it is; here it is `failed` as well.
    """
    answer = _after_last_mark(response)
    if answer is None:
        return rule_result(response, None, gold, 0.0)
    return rule_result(response, answer, gold, float(is_near_lenient(answer, gold.answers)))


def is_near_lenient(prediction: str, targets: Sequence[str]) -> bool:
    """Return whether a prediction is near any target by mistral-evals d61811f, `RelaxedCorrectness`.

    Commas, `$` and end punctuation are dropped where there is a digit. A percentage may mean the number or
    its hundredth. If the target is one letter, the prediction's first letter decides.
    """
    return any(_is_near_lenient(_prepared(prediction), _prepared(target)) for target in targets)


def _to_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _is_near_lenient(prediction: str, target: str) -> bool:
    ours, theirs = _readings(prediction), _readings(target)
    if ours and theirs:
        # A hundredth is compared with the other side's number only, not with its hundredth.
        pairs = [(ours[0], theirs[0]), (ours[-1], theirs[0]), (ours[0], theirs[-1])]
        return any(abs(first - second) / max(abs(second), 1e-10) <= _TOLERANCE for first, second in pairs)
    if len(target) == 1 and target.isalpha() and prediction:
        return prediction[0].lower() == target.lower()
    return prediction.lower() == target.lower()


def _readings(text: str) -> list[float]:
    """Return a number as it stands, and the hundredth if it is a percentage; nothing if it is no number."""
    text = text.strip()
    try:
        number = float(text.rstrip("%"))
    except ValueError:
        return []
    return [number, number / 100] if text.endswith("%") else [number]


def _prepared(text: str) -> str:
    if any(letter.isdigit() for letter in text):
        return _strip_end_punctuation(text).replace(",", "").replace("$", "")
    return text[1:-1] if text.startswith(('"', "'")) and text.endswith(text[0]) else text


def _strip_end_punctuation(text: str) -> str:
    kept = len(text)
    while kept and text[kept - 1] != "%" and (text[kept - 1] in string.punctuation or text[kept - 1].isspace()):
        kept -= 1
    return text[:kept]


def _after_last_mark(response: str) -> str | None:
    """Return the first line with something in it after the last `answer:`, without Markdown; None if there is none."""
    response = _BOLD_MARK.sub(r"\1:", response)
    start = response.lower().rfind(_MARK)
    lines = response[start + len(_MARK) :].split("\n") if start >= 0 else []
    first = next((line.strip() for line in lines if line.strip()), "")
    return _MARKDOWN.sub("", first) or None
