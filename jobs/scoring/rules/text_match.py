"""The rules `exact/...` (GQA), `anls/rrc` (DocVQA, InfographicVQA) and `ocrbench/...`: text compared with gold answers.

They know strings, and of OCRBench's rows the name of the data set that a question was taken from.
"""

import string
from collections.abc import Callable, Iterable, Sequence

from rapidfuzz.distance import Levenshtein

from jobs.scoring.rule import Gold, RuleResult, rule_result

EXACT = "exact/nocase_nopunct"
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

# A similarity below it counts as none; exactly at it, it counts.
_ANLS_THRESHOLD = 0.5

# OCRBench's handwritten formulas: blanks say nothing there, and capitals do.
_FORMULAS = "HME100k"
# ASCII in its full-width forms, and the blank that goes with them.
_FULL_WIDTH = {0x3000: " ", **{0xFEE0 + code: chr(code) for code in range(0x21, 0x7F)}}
# The groups that OCRBench reports, by a question's type; out of 300, 200, 200, 200 and 100 questions.
OCRBENCH_GROUPS = {
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


def normalize(text: str) -> str:
    """Strip white space around, lower the case, delete ASCII punctuation: GQA as lmms-eval 75571cf scores it.

    In this order, and nothing else: articles, numerals and white space inside stay as they are.
    """
    return text.strip().lower().translate(NO_PUNCTUATION)


def exact_match(response: str, answers: Iterable[str]) -> float:
    """Return 1.0 if the response equals any of the gold answers after `normalize`, else 0.0."""
    return float(normalize(response) in {normalize(answer) for answer in answers})


def score_exact(response: str, gold: Gold) -> RuleResult:
    """Compare without case and ASCII punctuation."""
    return rule_result(response, normalize(response), gold, exact_match(response, gold.answers))


def score_exact_official(response: str, gold: Gold) -> RuleResult:
    """Compare character by character, as GQA's eval.py does with what was submitted."""
    return rule_result(response, response, gold, float(response in gold.answers))


def score_exact_llava(response: str, gold: Gold) -> RuleResult:
    """Compare what LLaVA c121f04 submits (convert_gqa_for_eval.py) as GQA's eval.py does."""
    submitted = response.rstrip(".").lower()
    return rule_result(response, submitted, gold, float(submitted in gold.answers))


def similarity(prediction: str, answers: Sequence[str]) -> float:
    """Return the average normalised Levenshtein similarity of one question, as the RRC's script computes it.

    The distance is that of lower-case strings with white space collapsed; it is divided by the length of the
    strings as they came, in capitals (some letters become two), so blanks at the ends of a prediction raise it.
    Source: the evaluation of InfographicVQA and DocVQA by the Robust Reading Competition, as in Qwen-VL aa00ed0
    (eval_mm/infographicsvqa_eval.py). The formula of the paper is another one at the threshold.

    Args:
        prediction: A run strips it first, this function does not.
        answers: The nearest one counts.
    """
    nearest = 1 - min((_distance(prediction, answer) for answer in answers), default=1.0)
    return nearest if nearest >= _ANLS_THRESHOLD else 0.0


def score_anls(response: str, gold: Gold) -> RuleResult:
    """Give the similarity to the nearest gold answer, nothing below a half."""
    return rule_result(response, response, gold, similarity(response, gold.answers))


def score_ocrbench(response: str, gold: Gold) -> RuleResult:
    """Look for each answer as OCRBench's own script does (Yuliang-Liu/MultimodalOCR 794c36d, example.py)."""
    return _contains(response, gold, _without_blanks if _dataset(gold) == _FORMULAS else _one_lower_line)


def score_ocrbench_lmms(response: str, gold: Gold) -> RuleResult:
    """Look for each answer after full-width ASCII is folded, formulas excepted (lmms-eval 75571cf)."""
    if _dataset(gold) == _FORMULAS:
        return score_ocrbench(response, gold)
    return _contains(response, gold, lambda text: _one_lower_line(text.translate(_FULL_WIDTH)))


def _distance(prediction: str, answer: str) -> float:
    length = max(len(answer.upper()), len(prediction.upper()))
    return Levenshtein.distance(_collapsed(answer), _collapsed(prediction)) / length if length else 0.0


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def _contains(response: str, gold: Gold, normalize: Callable[[str], str]) -> RuleResult:
    text = normalize(response)
    return rule_result(response, text, gold, float(any(normalize(answer) in text for answer in gold.answers)))


def _dataset(gold: Gold) -> str:
    """Return which data set a question was taken from.

    Raises:
        ValueError: The row does not say so.
    """
    dataset = gold.facts.get("dataset")
    if not isinstance(dataset, str):
        raise ValueError(f"found {dataset!r} in OCRBench's column `dataset`, expected a name such as {_FORMULAS!r}")
    return dataset


def _one_lower_line(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _without_blanks(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")
