"""MathVista's rule in its two steps: what a response's answer is, and whether that equals the gold answer.

The published numbers leave the first step to a language model wherever a response is more than the bare answer; that
is a judge's work, whose extraction goes through the second step. It knows strings only.
Source: MathVista 53d5258, evaluation/extract_answer.py and calculate_score.py.
"""

import re
from dataclasses import dataclass
from string import ascii_uppercase

from rapidfuzz.distance import Levenshtein

from jobs.scoring.rule import Gold, Status, Verdict

_QUOTED = re.compile(r'The answer is "(.*)"\.')
_LETTER = re.compile(r"\(([a-zA-Z])\)")


@dataclass(frozen=True)
class Kind:
    """What kind of answer a question has.

    Attributes:
        question_type: `multi_choice` or `free_form`.
        answer_type: `text`, `integer`, `float` or `list`.
        choices: The options' texts, if there are any.
        precision: To how many decimals a float is rounded; the data set holds it as a float.
    """

    question_type: str
    answer_type: str
    choices: tuple[str, ...] = ()
    precision: float | None = None

    def __post_init__(self) -> None:
        if self.question_type == "multi_choice" and not self.choices:
            raise ValueError("found a multi_choice question without choices, expected their texts")


def kind_of(gold: Gold) -> Kind:
    """Return a question's kind; its facts are `question_type`, `answer_type` and `precision`.

    Raises:
        ValueError: One of the first two is missing, or the choices of a question of multiple choice are.
    """
    missing = [name for name in ("question_type", "answer_type") if name not in gold.facts]
    if missing:
        raise ValueError(f"found facts {sorted(gold.facts)}, expected also {missing}: MathVista's rule needs them")
    return Kind(gold.facts["question_type"], gold.facts["answer_type"], gold.choices, gold.facts.get("precision"))


def extract(response: str, kind: Kind, *, quick_extract: bool = False) -> str | None:
    """Return the answer if a response is nothing else; None if a language model would be asked for it.

    Args:
        response: What the model said; an empty one is its own extraction.
        kind: What kind of answer is asked for.
        quick_extract: Whether to look for `The answer is "...".`, too.
    """
    if not response or (kind.question_type == "multi_choice" and response in kind.choices):
        return response
    number = _number(response, kind.answer_type)
    if number is not None or not quick_extract:
        return number
    quoted = _QUOTED.search(response)
    return quoted[1] if quoted else None


def _number(response: str, answer_type: str) -> str | None:
    try:
        if answer_type == "integer":
            return str(int(response))
        return str(float(response)) if answer_type == "float" else None
    except ValueError:
        return None


def normalize(extraction: str, kind: Kind, *, ignore_empty: bool = False) -> str | None:
    """Bring an extraction into the form of a gold answer; None if it cannot be.

    Args:
        extraction: What was extracted, by whomever.
        kind: What kind of answer is asked for.
        ignore_empty: Whether an empty extraction chooses no option, instead of the one with the shortest text.

    Raises:
        ValueError: The kind has no rule.
    """
    if kind.question_type == "multi_choice":
        return _choice(extraction.strip(), kind, ignore_empty)
    if kind.answer_type == "list":
        return extraction
    if kind.answer_type not in ("integer", "float"):
        raise ValueError(
            f"found answer_type {kind.answer_type!r} of a {kind.question_type} question, "
            "expected 'integer', 'float' or 'list'"
        )
    try:
        value = float(extraction)
        if kind.answer_type == "integer":
            return str(int(value))
        return None if kind.precision is None else str(round(value, int(kind.precision)))
    except (ValueError, OverflowError):
        return None


def _choice(extraction: str, kind: Kind, ignore_empty: bool) -> str | None:
    if ignore_empty and not extraction:
        return None
    letter = _LETTER.search(extraction)
    chosen = letter[1].upper() if letter else extraction
    if len(chosen) == 1 and chosen in ascii_uppercase[: len(kind.choices)]:
        return kind.choices[ascii_uppercase.index(chosen)]
    # The first one of those that are equally near.
    return min(kind.choices, key=lambda choice: Levenshtein.distance(chosen, choice))


def score_extraction(extraction: str, gold: Gold, *, ignore_empty: bool = False) -> Verdict:
    """Score what was extracted from a response, by a rule, a judge or a person.

    The gold answer is as the data set has it: of an option its text, not its letter.
    """
    normal = normalize(extraction, kind_of(gold), ignore_empty=ignore_empty)
    score = float(normal in gold.answers) if gold.answers else None
    status: Status = "empty" if not extraction.strip() else "failed" if normal is None else "ok"
    return Verdict(normal, status, score)


def score_official(response: str, gold: Gold) -> Verdict:
    """The rule `mathvista/official` without its language model: where that would be asked, nothing was extracted."""
    extraction = extract(response, kind_of(gold))
    if extraction is None:
        return Verdict(None, "failed", 0.0 if gold.answers else None)
    return score_extraction(extraction, gold)
