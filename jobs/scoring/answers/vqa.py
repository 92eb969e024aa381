"""The rules `vqa/...`: how many of the people who were asked gave an answer.

VQAv2, TextVQA and OK-VQA have ten answers a question. How answers are brought into one form stands in words.py.
"""

from collections.abc import Callable, Mapping, Sequence

from jobs.scoring.answers import words
from jobs.scoring.answers.verdict import judged
from jobs.scoring.rule import Gold, Verdict


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the mean, over the answers left out in turn, of min(1, matches among the others / 3).

    Ten answers give 0.3 for one match, 0.6 for two, 0.9 for three and 1 for more; a single answer gives 0.
    Source: VQAv2's official evaluation (vqaEval.py, GT-Vision-Lab/VQA a013f00), counted in whole thirds.

    Args:
        prediction: In the same form as the answers.
        answers: At least one. Equal ones count each: they are other people's.
    """
    same = answers.count(prediction)
    thirds = same * min(3, same - 1) + (len(answers) - same) * min(3, same)
    return thirds / (3 * len(answers))


def always_norm(response: str, gold: Gold) -> Verdict:
    """Compare normalised strings: VQAv2 as lmms-eval 75571cf scores it."""
    return _compare(words.evalai, response, gold)


def m4c(response: str, gold: Gold) -> Verdict:
    """Compare strings normalised as for M4C: TextVQA and OK-VQA as lmms-eval 75571cf and EvalAI score them."""
    return _compare(words.m4c, response, gold)


def vlmevalkit(response: str, gold: Gold) -> Verdict:
    """Compare strings normalised as VLMEvalKit e8e78f0 does for TextVQA."""
    return _compare(words.vlmevalkit, response, gold)


def official_2021(response: str, gold: Gold) -> Verdict:
    """Compare as VQAv2's official evaluation does since 2021: normalised, unless all answers are equal as they came.

    So `Yes` against ten times `yes` scores 0.
    """
    plain = {words.one_line(answer) for answer in gold.answers}
    return _compare(words.one_line if len(plain) == 1 else words.official, response, gold)


def percentages(
    scores: Sequence[float], question_types: Sequence[str], answer_types: Sequence[str]
) -> dict[str, float | dict[str, float]]:
    """Return `overall`, `perQuestionType` and `perAnswerType` as the official evaluation names them, not rounded."""
    return {
        "overall": _percentage(scores),
        "perQuestionType": _by(question_types, scores),
        "perAnswerType": _by(answer_types, scores),
    }


def _compare(form: Callable[[str], str], response: str, gold: Gold) -> Verdict:
    prediction = form(response)
    score = accuracy(prediction, [form(answer) for answer in gold.answers]) if gold.answers else 0.0
    return judged(response, prediction, gold, score)


def _by(groups: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    members: dict[str, list[float]] = {}
    for group, score in zip(groups, scores, strict=True):
        members.setdefault(group, []).append(score)
    return {group: _percentage(theirs) for group, theirs in members.items()}


def _percentage(scores: Sequence[float]) -> float:
    return 100 * sum(scores) / len(scores)


FORMS: Mapping[str, Callable[[str], str]] = {
    "vqa/always_norm": words.evalai,
    "vqa/official_2021": words.official,
    "vqa/m4c": words.m4c,
    "vqa/vlmevalkit": words.vlmevalkit,
}
