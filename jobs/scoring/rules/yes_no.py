"""The rules `pope/...`: yes or no as read from a response, and the numbers that POPE gives for many of them.

It knows strings only, neither images nor how the questions were chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jobs.scoring.rule import Gold, RuleResult, rule_result
from jobs.scoring.rules.vqa import without_punctuation

Metrics = dict[str, float | None]


class YesNo(NamedTuple):
    """One question: what is right, what was read (None: neither), and which of POPE's categories it belongs to."""

    label: str
    parsed: str | None
    category: str


def parse_official(response: str) -> str:
    """Return `no` if the first sentence has the word No, no or not, else `yes`: NO and an empty response are yes.

    Source: AoiDragon/POPE 08d957b, evaluate.py; LLaVA c121f04 has the same.
    """
    words = response.split(".")[0].replace(",", "").split(" ")
    return "no" if not {"No", "not", "no"}.isdisjoint(words) else "yes"


def parse_lmms(response: str) -> str | None:
    """Return the response if it is yes or no and nothing else, in any case (lmms-eval 75571cf)."""
    word = response.lower().strip()
    return word if word in ("yes", "no") else None


def parse_vlmevalkit(response: str) -> str | None:
    """Return yes or no if exactly one of them is among the words (VLMEvalKit e8e78f0, `YOrN_Extraction`)."""
    words = without_punctuation(response.lower()).split()
    answers = [word for word in ("yes", "no") if word in words]
    return answers[0] if len(answers) == 1 else None


def score_yes_no(response: str, gold: Gold, parse: Callable[[str], str | None]) -> RuleResult:
    """Give 1 if what was read is right."""
    parsed = parse(response)
    labels = [answer.strip().lower() for answer in gold.answers]
    return rule_result(response, parsed, gold, float(parsed in labels))


def metrics_official(rows: Sequence[YesNo]) -> Metrics:
    """Return accuracy, precision, recall, F1 and the share of yes among predictions; None where 0 is divided by.

    A prediction that is neither yes nor no is wrong and counts as no yes.
    Source: AoiDragon/POPE 08d957b, evaluate.py, which stops at a division by zero.
    """
    says_yes = [row for row in rows if row.parsed == "yes"]
    is_yes = [row for row in rows if row.label == "yes"]
    precision, recall = _share_right(says_yes), _share_right(is_yes)
    return {
        "accuracy": _share_right(rows),
        "precision": precision,
        "recall": recall,
        "f1": _f1(precision, recall),
        "yes_ratio": len(says_yes) / len(rows) if rows else None,
    }


def metrics_lmms(rows: Sequence[YesNo]) -> Metrics:
    """Return the same numbers as lmms-eval 75571cf has them.

    0 where 0 is divided by; recall leaves out what is neither yes nor no; the share of yes is that of the labels.
    """
    numbers = metrics_official(rows)
    recall = _share_right([row for row in rows if row.parsed is not None and row.label == "yes"])
    yes_ratio = sum(row.label == "yes" for row in rows) / len(rows) if rows else None
    return _none_as_zero(numbers | {"recall": recall, "f1": _f1(numbers["precision"], recall), "yes_ratio": yes_ratio})


def metrics_vlmevalkit(rows: Sequence[YesNo]) -> Metrics:
    """Return the same numbers as VLMEvalKit e8e78f0 has them: 0 where 0 is divided by, and no share of yes."""
    numbers = metrics_official(rows)
    del numbers["yes_ratio"]
    return _none_as_zero(numbers)


METRICS: Mapping[str, Callable[[Sequence[YesNo]], Metrics]] = {
    "pope/official": metrics_official,
    "pope/lmms": metrics_lmms,
    "pope/vlmevalkit": metrics_vlmevalkit,
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
    metrics_of = METRICS.get(rule, metrics_official)
    per_category = {name: metrics_of(categories[name]) for name in sorted(categories)}
    f1s = [numbers["f1"] for numbers in per_category.values()]
    known = [f1 for f1 in f1s if f1 is not None]
    return {
        "per_category": per_category,
        "pooled": metrics_of(rows),
        "mean_f1_over_categories": sum(known) / len(known) if known and len(known) == len(f1s) else None,
    }


def _share_right(rows: Sequence[YesNo]) -> float | None:
    return sum(row.parsed == row.label for row in rows) / len(rows) if rows else None


def _f1(precision: float | None, recall: float | None) -> float | None:
    if precision is None or recall is None or precision + recall == 0:
        return None
    return 2 * precision * recall / (precision + recall)


def _none_as_zero(numbers: Metrics) -> Metrics:
    return {name: 0.0 if number is None else number for name, number in numbers.items()}
