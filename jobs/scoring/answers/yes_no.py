"""The rules `pope/...`: yes or no as read from a response, and the numbers that POPE gives for many of them.

It knows strings only, neither images nor how the questions were chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jobs.scoring.answers.verdict import judged
from jobs.scoring.answers.words import without_punctuation
from jobs.scoring.rule import Gold, Verdict

Numbers = dict[str, float | None]


class YesNo(NamedTuple):
    """One question: what is right, what was read (None: neither), and which of POPE's categories it belongs to."""

    label: str
    parsed: str | None
    category: str


def read_official(response: str) -> str:
    """Return `no` if the first sentence has the word No, no or not, else `yes`: NO and an empty response are yes.

    Source: AoiDragon/POPE 08d957b, evaluate.py; LLaVA c121f04 has the same.
    """
    words = response.split(".")[0].replace(",", "").split(" ")
    return "no" if not {"No", "not", "no"}.isdisjoint(words) else "yes"


def read_lmms(response: str) -> str | None:
    """Return the response if it is yes or no and nothing else, in any case (lmms-eval 75571cf)."""
    word = response.lower().strip()
    return word if word in ("yes", "no") else None


def read_vlmevalkit(response: str) -> str | None:
    """Return yes or no if exactly one of them is among the words (VLMEvalKit e8e78f0, `YOrN_Extraction`)."""
    words = without_punctuation(response.lower()).split()
    found = [word for word in ("yes", "no") if word in words]
    return found[0] if len(found) == 1 else None


def official(response: str, gold: Gold) -> Verdict:
    """Give 1 if what POPE's script reads is right."""
    return _judged(response, read_official(response), gold)


def lmms(response: str, gold: Gold) -> Verdict:
    """Give 1 if the response is the right word and nothing else."""
    return _judged(response, read_lmms(response), gold)


def vlmevalkit(response: str, gold: Gold) -> Verdict:
    """Give 1 if the right word is the only one of the two."""
    return _judged(response, read_vlmevalkit(response), gold)


def official_numbers(rows: Sequence[YesNo]) -> Numbers:
    """Return accuracy, precision, recall, F1 and the share of yes among predictions; None where 0 is divided by.

    A prediction that is neither yes nor no is wrong and counts as no yes.
    Source: AoiDragon/POPE 08d957b, evaluate.py, which stops at a division by zero.
    """
    said = [row for row in rows if row.parsed == "yes"]
    meant = [row for row in rows if row.label == "yes"]
    precision, recall = _share_right(said), _share_right(meant)
    return {
        "accuracy": _share_right(rows),
        "precision": precision,
        "recall": recall,
        "f1": _f1(precision, recall),
        "yes_ratio": len(said) / len(rows) if rows else None,
    }


def lmms_numbers(rows: Sequence[YesNo]) -> Numbers:
    """Return the same numbers as lmms-eval 75571cf has them.

    0 where 0 is divided by; recall leaves out what is neither yes nor no; the share of yes is that of the labels.
    """
    read = [row for row in rows if row.parsed is not None]
    precision = _share_right([row for row in rows if row.parsed == "yes"])
    recall = _share_right([row for row in read if row.label == "yes"])
    return _with_noughts(
        {
            "accuracy": _share_right(rows),
            "precision": precision,
            "recall": recall,
            "f1": _f1(precision, recall),
            "yes_ratio": sum(row.label == "yes" for row in rows) / len(rows) if rows else None,
        }
    )


def vlmevalkit_numbers(rows: Sequence[YesNo]) -> Numbers:
    """Return the same numbers as VLMEvalKit e8e78f0 has them: 0 where 0 is divided by, and no share of yes."""
    numbers = official_numbers(rows)
    del numbers["yes_ratio"]
    return _with_noughts(numbers)


NUMBERS: Mapping[str, Callable[[Sequence[YesNo]], Numbers]] = {
    "pope/official": official_numbers,
    "pope/lmms": lmms_numbers,
    "pope/vlmevalkit": vlmevalkit_numbers,
}


def pope_metrics(rows: Sequence[YesNo], rule: str = "pope/official") -> dict[str, Any]:
    """Return a rule's numbers `per_category` and `pooled`, and `mean_f1_over_categories`.

    LLaVA's published POPE is that mean; it is None if a category has no F1. VLMEvalKit's is the pooled F1.

    Args:
        rows: In any order; at least one.
        rule: The one that `parsed` was read by; those of other benchmarks are counted as the official one is.
    """
    categories: dict[str, list[YesNo]] = {}
    for row in rows:
        categories.setdefault(row.category, []).append(row)
    numbers_of = NUMBERS.get(rule, official_numbers)
    per_category = {name: numbers_of(categories[name]) for name in sorted(categories)}
    f1s = [numbers["f1"] for numbers in per_category.values()]
    known = [f1 for f1 in f1s if f1 is not None]
    return {
        "per_category": per_category,
        "pooled": numbers_of(rows),
        "mean_f1_over_categories": sum(known) / len(known) if known and len(known) == len(f1s) else None,
    }


def _judged(response: str, parsed: str | None, gold: Gold) -> Verdict:
    labels = [answer.strip().lower() for answer in gold.answers]
    return judged(response, parsed, gold, float(parsed in labels))


def _share_right(rows: Sequence[YesNo]) -> float | None:
    return sum(row.parsed == row.label for row in rows) / len(rows) if rows else None


def _f1(precision: float | None, recall: float | None) -> float | None:
    if precision is None or recall is None or precision + recall == 0:
        return None
    return 2 * precision * recall / (precision + recall)


def _with_noughts(numbers: Numbers) -> Numbers:
    return {name: 0.0 if number is None else number for name, number in numbers.items()}
