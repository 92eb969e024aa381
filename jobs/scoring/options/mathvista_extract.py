r"""MathVista without a language model: an extractor of our own, for the rule `mathvista/rule_extract`.

Where a response is nothing but its answer it does as the official one. Else it looks at the last `\boxed{...}`, or at
what follows the last "answer", or at the whole response, and takes from there what the question asks for. Its numbers
are not the published ones and are reported as what they are. It knows strings only.
"""

import re
from string import ascii_uppercase

from jobs.scoring.options import math
from jobs.scoring.options.mathvista import Kind, extract, kind_of, score_extraction
from jobs.scoring.rule import Gold, Verdict

_ANSWER = re.compile(r"answer(?:\s+is)?\s*[:=]?\s*(.*)", re.IGNORECASE)
# No part of a word or of another number: neither the 2 of "m2" nor, with a minus, the 4 of "3-4".
_NUMBER = re.compile(r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?")
_LIST = re.compile(r"\[[^\[\]]*\]")
_IN_BRACKETS = re.compile(r"\(([A-Za-z])\)")


def extract_by_rule(response: str, kind: Kind) -> str | None:
    """Return the answer that a response gives last, or None if it has none of the kind that is asked for."""
    bare = extract(response, kind, quick_extract=True)
    if bare is not None:
        return bare
    for part in _parts(response):
        found = _choice(part, kind) if kind.question_type == "multi_choice" else _last_value(part, kind)
        if found is not None:
            return found
    return None


def _parts(response: str) -> list[str]:
    """Return where to look, the most telling place first."""
    boxed = math.extract(response)
    answers = [line for line in _ANSWER.findall(response) if line.strip()]
    return [*([] if boxed is None else [boxed]), *answers[-1:], response]


def _last_value(part: str, kind: Kind) -> str | None:
    pattern = _LIST if kind.answer_type == "list" else _NUMBER
    found = pattern.findall(part)
    if not found:
        return None
    return str(found[-1]) if kind.answer_type == "list" else str(found[-1]).replace(",", "")


def _choice(part: str, kind: Kind) -> str | None:
    letters = ascii_uppercase[: len(kind.choices)]
    said = part.strip().strip(".*$ ")
    if said in kind.choices:
        return said
    bracketed = [letter.upper() for letter in _IN_BRACKETS.findall(said) if letter.upper() in letters]
    if bracketed:
        return str(bracketed[-1])
    # Not before a blank: that may be a word, as in "A circle is ...".
    alone = re.match(rf"(?:option\s+)?([{letters}])(?=$|[.:),])", said)
    if alone:
        return str(alone[1])
    named = [choice for choice in kind.choices if re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", said, re.IGNORECASE)]
    return named[0] if len(named) == 1 else None


def score_rule_extract(response: str, gold: Gold) -> Verdict:
    """The rule `mathvista/rule_extract`: this extractor, then the official comparison."""
    extraction = extract_by_rule(response, kind_of(gold))
    if extraction is None:
        return Verdict(None, "failed", 0.0 if gold.answers else None)
    return score_extraction(extraction, gold)
