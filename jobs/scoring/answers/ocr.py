"""The rules `ocrbench/...`: a response is right if a gold answer stands in it somewhere.

They know strings and the name of the data set that a question was taken from, which decides how text is compared.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jobs.scoring.answers.verdict import judged
from jobs.scoring.rule import Gold, Verdict

# Handwritten formulas: blanks say nothing there, and capitals do.
_FORMULAS = "HME100k"

# The groups that OCRBench reports, by a question's type; out of 300, 200, 200, 200 and 100 questions.
GROUPS = {
    "Regular Text Recognition": "Text Recognition",
    "Irregular Text Recognition": "Text Recognition",
    "Artistic Text Recognition": "Text Recognition",
    "Handwriting Recognition": "Text Recognition",
    "Digit String Recognition": "Text Recognition",
    "Non-Semantic Text Recognition": "Text Recognition",
    "Scene Text-centric VQA": "Scene Text-centric VQA",
    "Doc-oriented VQA": "Doc-oriented VQA",
    "Key Information Extraction": "Key Information Extraction",
    "Handwritten Mathematical Expression Recognition": "Handwritten Mathematical Expression Recognition",
}

# ASCII in its full-width forms, and the blank that goes with them.
_FULL_WIDTH = {0x3000: " ", **{0xFEE0 + code: chr(code) for code in range(0x21, 0x7F)}}


def official(response: str, gold: Gold) -> Verdict:
    """Look for each answer as OCRBench's own script does (Yuliang-Liu/MultimodalOCR 794c36d, example.py)."""
    return _look_for(_official_form(gold), response, gold)


def lmms(response: str, gold: Gold) -> Verdict:
    """Look for each answer after full-width ASCII is folded, formulas excepted (lmms-eval 75571cf)."""
    if _dataset(gold) == _FORMULAS:
        return official(response, gold)
    return _look_for(lambda text: _plain(text.translate(_FULL_WIDTH)), response, gold)


def totals(question_types: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
    """Return how many questions are right: in all (the final score, out of 1,000), by group and by question type.

    Raises:
        ValueError: A question type is none of OCRBench's.
    """
    strange = sorted(set(question_types) - set(GROUPS))
    if strange:
        raise ValueError(f"found the question type {strange[0]!r}, expected one of OCRBench's: {', '.join(GROUPS)}")
    by_type: dict[str, float] = dict.fromkeys(GROUPS, 0.0)
    for question_type, score in zip(question_types, scores, strict=True):
        by_type[question_type] += score
    by_group: dict[str, float] = dict.fromkeys(GROUPS.values(), 0.0)
    for question_type, score in by_type.items():
        by_group[GROUPS[question_type]] += score
    return {"final": sum(scores), "by_group": by_group, "by_type": by_type}


def _official_form(gold: Gold) -> Callable[[str], str]:
    return _without_blanks if _dataset(gold) == _FORMULAS else _plain


def _look_for(form: Callable[[str], str], response: str, gold: Gold) -> Verdict:
    text = form(response)
    return judged(response, text, gold, float(any(form(answer) in text for answer in gold.answers)))


def _dataset(gold: Gold) -> str:
    """Return which data set a question was taken from.

    Raises:
        ValueError: The row does not say so.
    """
    dataset = gold.facts.get("dataset")
    if not isinstance(dataset, str):
        raise ValueError(f"found {dataset!r} in OCRBench's column `dataset`, expected a name such as {_FORMULAS!r}")
    return dataset


def _plain(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _without_blanks(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")
