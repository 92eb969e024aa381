"""MathVista's rules in their two steps: what a response's answer is, and whether that equals the gold answer.

The published numbers leave the first step to a language model wherever a response is more than the bare answer; that
is a judge's work, whose extraction goes through the second step. It knows strings only.
Source: MathVista 53d5258, evaluation/extract_answer.py and calculate_score.py.
"""

import re
from collections.abc import Callable
from string import ascii_uppercase

from rapidfuzz.distance import Levenshtein

from jobs.scoring.rule import Gold, RuleResult, rule_result
from jobs.scoring.rules.math import extract_boxed

_QUOTED = re.compile(r'The answer is "(.*)"\.')
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_ANSWER = re.compile(r"answer(?:\s+is)?\s*[:=]?\s*(.*)", re.IGNORECASE)
# No part of a word or of another number: neither the 2 of "m2" nor, with a minus, the 4 of "3-4".
_NUMBER = re.compile(r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?")
_LIST = re.compile(r"\[[^\[\]]*\]")


def is_multi_choice(gold: Gold) -> bool:
    """Return whether a question has options.

    MathVista's facts are `question_type` (`multi_choice` or `free_form`), `answer_type` (`text`, `integer`, `float` or
    `list`), and `precision`, the decimals that a float is rounded to; the data set holds these as a float.

    Raises:
        ValueError: One of the first two is missing, or the options of a question of multiple choice are.
    """
    missing = [name for name in ("question_type", "answer_type") if name not in gold.facts]
    if missing:
        raise ValueError(f"found facts {sorted(gold.facts)}, expected also {missing}: MathVista's rule needs them")
    if gold.facts["question_type"] == "multi_choice" and not gold.choices:
        raise ValueError("found a multi_choice question without choices, expected their texts")
    return bool(gold.facts["question_type"] == "multi_choice")


def extract(response: str, gold: Gold, *, quick_extract: bool = False) -> str | None:
    """Return the answer if a response is nothing else; None if a language model would be asked for it.

    Args:
        response: An empty one is its own extraction.
        gold: The question: its options, and what its facts say of the answer.
        quick_extract: Whether to look for `The answer is "...".`, too.
    """
    if not response or (is_multi_choice(gold) and response in gold.choices):
        return response
    number = _number(response, gold.facts["answer_type"])
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


def normalize(extraction: str, gold: Gold) -> str | None:
    """Bring an extraction into the form of a gold answer; None if it cannot be.

    Args:
        extraction: What was extracted, by whomever.
        gold: The question: its options, and what its facts say of the answer.

    Raises:
        ValueError: There is no rule for its type of answer.
    """
    if is_multi_choice(gold):
        return _choice(extraction.strip(), gold)
    answer_type, precision = gold.facts["answer_type"], gold.facts.get("precision")
    if answer_type == "list":
        return extraction
    if answer_type not in ("integer", "float"):
        raise ValueError(
            f"found answer_type {answer_type!r} of a {gold.facts['question_type']} question, "
            "expected 'integer', 'float' or 'list'"
        )
    try:
        value = float(extraction)
        if answer_type == "integer":
            return str(int(value))
        return None if precision is None else str(round(value, int(precision)))
    except (ValueError, OverflowError):
        return None


def _choice(extraction: str, gold: Gold) -> str:
    letter = _LETTER.search(extraction)
    chosen = letter[1].upper() if letter else extraction
    if len(chosen) == 1 and chosen in ascii_uppercase[: len(gold.choices)]:
        return gold.choices[ascii_uppercase.index(chosen)]
    # The first one of those that are equally near; so an empty extraction takes the shortest text.
    return min(gold.choices, key=lambda choice: Levenshtein.distance(chosen, choice))


def extract_by_rule(response: str, gold: Gold) -> str | None:
    r"""Return the answer that a response gives last, by our own extractor; None if it has none of the kind asked for.

    Where a response is nothing but its answer it does as the official one. Else it looks at the last `\boxed{...}`, at
    what follows the last "answer", then at the whole response. Its numbers are not the published ones and are reported
    as what they are.
    """
    bare = extract(response, gold, quick_extract=True)
    if bare is not None:
        return bare
    for part in _parts(response):
        answer = _last_choice(part, gold) if is_multi_choice(gold) else _last_value(part, gold)
        if answer is not None:
            return answer
    return None


def _parts(response: str) -> list[str]:
    """Return the parts of a response to search, the most likely one first."""
    boxed = extract_boxed(response)
    answers = [line for line in _ANSWER.findall(response) if line.strip()]
    return [*([] if boxed is None else [boxed]), *answers[-1:], response]


def _last_value(part: str, gold: Gold) -> str | None:
    is_list = gold.facts["answer_type"] == "list"
    values: list[str] = (_LIST if is_list else _NUMBER).findall(part)
    if not values:
        return None
    return values[-1] if is_list else values[-1].replace(",", "")


def _last_choice(part: str, gold: Gold) -> str | None:
    letters = ascii_uppercase[: len(gold.choices)]
    text = part.strip().strip(".*$ ")
    if text in gold.choices:
        return text
    bracketed = [letter.upper() for letter in _LETTER.findall(text) if letter.upper() in letters]
    if bracketed:
        return str(bracketed[-1])
    # Not before a blank: that may be a word, as in "A circle is ...".
    alone = re.match(rf"(?:option\s+)?([{letters}])(?=$|[.:),])", text)
    if alone:
        return str(alone[1])
    named = [choice for choice in gold.choices if re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text, re.IGNORECASE)]
    return named[0] if len(named) == 1 else None


def score_extraction(extraction: str, gold: Gold) -> RuleResult:
    """Score what was extracted from a response, by a rule, a judge or a person.

    The gold answer is as the data set has it: of an option its text, not its letter.
    """
    normal = normalize(extraction, gold)
    return rule_result(extraction, normal, gold, float(normal in gold.answers))


def score_mathvista(response: str, gold: Gold, extract: Callable[[str, Gold], str | None]) -> RuleResult:
    """Extract, then compare. Where the official way would ask its language model, nothing was extracted."""
    extraction = extract(response, gold)
    return rule_result(response, None, gold, 0.0) if extraction is None else score_extraction(extraction, gold)
