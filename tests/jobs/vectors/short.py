"""Published cases of the rules over short answers: normalised strings, scores of single answers, POPE's numbers.

An expected value is that of the default rule on the stripped response; a named variant is what its source makes of
the response as it stands.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from jobs.scoring.rule import Gold, RuleResult
from jobs.scoring.rules import vqa
from jobs.scoring.rules.relaxed import is_near_lenient
from jobs.scoring.rules.yes_no import METRICS, YesNo
from jobs.scoring.summary import score_table, summarize_scores
from tests.jobs.judged import judged

Case = Mapping[str, Any]
Check = Callable[[Case], None]

# A variant without a rule is none that a benchmark's published scores were made with, or the same rule once more.
VQA: dict[str, str | None] = {
    "always_norm": "vqa/always_norm",
    "official": "vqa/official_2021",
    "m4c": "vqa/m4c",
    "vlmevalkit": "vqa/vlmevalkit",
}
VARIANTS = {
    "vqa_normalize": VQA,
    "vqa_accuracy": VQA,
    "vqa_aggregate": {"official": "vqa/official_2021"},
    "anls": {
        "official": "anls/rrc",
        "lmms_eval": "anls/rrc",
        "vlmevalkit": None,
        "stvqa_m4c": None,
        "anls_pypi": None,
        "mistral_no_threshold": None,
    },
    "relaxed_accuracy": {
        "lmms_eval": "relaxed/pix2struct",
        "pix2struct": "relaxed/pix2struct",
        "mistral_evals": "relaxed/mistral",
        "vlmevalkit": None,
        "qwen_vl_swapped_args": None,
    },
    "gqa_exact": {
        "lmms_eval": "exact/nocase_nopunct",
        "official": "exact/official",
        "llava_submission": "exact/llava_submission",
        "vlmevalkit": None,
        "qwen_vl": None,
    },
    "ocrbench": {"official": "ocrbench/official", "lmms_eval": "ocrbench/lmms", "vlmevalkit": None},
    "pope_extract": {"official": "pope/official", "lmms_eval": "pope/lmms", "vlmevalkit": "pope/vlmevalkit"},
    "pope_metrics": {"official": "pope/official", "lmms_eval": "pope/lmms", "vlmevalkit": "pope/vlmevalkit"},
}

FORMS: Mapping[str, Callable[[str], str]] = {
    "vqa/always_norm": vqa.normalize_evalai,
    "vqa/official_2021": vqa.normalize_official,
    "vqa/m4c": vqa.normalize_m4c,
    "vqa/vlmevalkit": vqa.normalize_vlmevalkit,
}


def _check_normalized(case: Case) -> None:
    text = case["inputs"]["text"]
    assert FORMS["vqa/always_norm"](text) == case["expected"]
    for variant, rule, expected in _variants("vqa_normalize", case):
        assert FORMS[rule](text) == expected, variant


def _scores(stem: str, default: str) -> Check:
    """Return a check of single answers' scores."""

    def check(case: Case) -> None:
        inputs = case["inputs"]
        gold = Gold(tuple(inputs["answers"]) if "answers" in inputs else (inputs["answer"],))
        _check_score(_judge(default, inputs["prediction"].strip(), gold), case["expected"])
        for variant, rule, expected in _variants(stem, case):
            _check_score(_judge(rule, inputs["prediction"], gold), expected, variant)

    return check


def _check_aggregate(case: Case) -> None:
    rows = case["inputs"]["rows"]
    for variant, rule, expected in [("", "vqa/official_2021", case["expected"]), *_variants("vqa_aggregate", case)]:
        scores = [_score(_judge(rule, row["prediction"], Gold(tuple(row["answers"])))) for row in rows]
        found = _percentages(scores, rows)
        assert set(found) == set(expected), variant
        for name in expected:
            # The official script prints two decimals, and rounds sums of its own making at a tie.
            assert found[name] == pytest.approx(expected[name], abs=0.005 + 1e-9, rel=0), (variant, name)


def _percentages(scores: Sequence[float], rows: Sequence[Case]) -> dict[str, Any]:
    """Return a report's scores under the names that the official evaluation gives them."""
    found: dict[str, Any] = {"overall": 100 * summarize_scores("", score_table(pa.array(scores)))["score"]}
    for name, kind in (("perQuestionType", "question_type"), ("perAnswerType", "answer_type")):
        groups = summarize_scores("", score_table(pa.array(scores), group=pa.array([row[kind] for row in rows])))["by"]
        found[name] = {group: 100 * cell["score"] for group, cell in groups.items()}
    return found


def _check_relaxed(case: Case) -> None:
    inputs = case["inputs"]
    if "rows" in inputs:
        _check_splits(inputs["rows"], case["expected"])
        return
    gold = Gold((inputs["answer"],))
    _check_score(_judge("relaxed/pix2struct", inputs["prediction"].strip(), gold), case["expected"])
    for variant, rule, expected in _variants("relaxed_accuracy", case):
        if rule == "relaxed/mistral":
            # These cases leave out the mark that Mistral's prompt asks for.
            assert is_near_lenient(inputs["prediction"], gold.answers) == expected
        else:
            _check_score(_judge(rule, inputs["prediction"], gold), expected, variant)


def _check_splits(rows: Sequence[Case], expected: Mapping[str, float]) -> None:
    scores: dict[str, list[float]] = {}
    for row in rows:
        score = _score(_judge("relaxed/pix2struct", row["prediction"].strip(), Gold((row["answer"],))))
        split = "human" if row["type"] == "human_test" else "augmented"
        for name in ("relaxed_overall", f"relaxed_{split}_split"):
            scores.setdefault(name, []).append(score)
    found = {name: sum(some) / len(some) for name, some in scores.items()}
    # A split without rows has no score.
    assert found == pytest.approx({name: score for name, score in expected.items() if score is not None}, abs=1e-9)


def _check_ocr(case: Case) -> None:
    inputs = case["inputs"]
    answers = inputs["answers"]
    gold = Gold((answers,) if isinstance(answers, str) else tuple(answers), facts={"dataset": inputs["dataset"]})
    _check_score(_judge("ocrbench/official", inputs["prediction"], gold), case["expected"])
    for variant, rule, expected in _variants("ocrbench", case):
        _check_score(_judge(rule, inputs["prediction"], gold), expected, variant)


def _check_yes_no(case: Case) -> None:
    _check_parsed("pope/official", case["inputs"]["response"], case["expected"])
    for _, rule, expected in _variants("pope_extract", case):
        _check_parsed(rule, case["inputs"]["response"], expected)


def _check_parsed(rule: str, response: str, expected: str | None) -> None:
    found = _judge(rule, response, Gold(("yes",)))
    if expected in (None, "Unknown"):
        assert (found.parsed, found.score) == (None, 0.0), rule
        assert found.status == ("failed" if response else "empty"), rule
    else:
        assert found.parsed == expected.lower(), rule


def _check_pope(case: Case) -> None:
    _check_numbers("pope/official", case["inputs"]["rows"], case["expected"])
    for _, rule, expected in _variants("pope_metrics", case):
        _check_numbers(rule, case["inputs"]["rows"], expected)


def _check_numbers(rule: str, rows: Sequence[Case], expected: Mapping[str, float | None]) -> None:
    read = [YesNo(row["label"], _judge(rule, row["response"], Gold(("yes",))).parsed, row["category"]) for row in rows]
    found = METRICS[rule](read)
    assert set(found) == set(expected), rule
    for name, number in expected.items():
        assert found[name] == (None if number is None else pytest.approx(number, abs=1e-9, rel=0)), (rule, name)


def _variants(stem: str, case: Case) -> list[tuple[str, str, Any]]:
    """Return variant, rule and what it expects, of those that have a rule; one that is not in the table is an error."""
    named = [(name, VARIANTS[stem][name], expected) for name, expected in case.get("expected_by_rule", {}).items()]
    return [(name, rule, expected) for name, rule, expected in named if rule is not None]


def _judge(rule: str, response: str, gold: Gold) -> RuleResult:
    return judged(rule, response, gold)


def _score(result: RuleResult) -> float:
    assert result.score is not None
    return result.score


def _check_score(result: RuleResult, expected: float, variant: str = "default") -> None:
    assert result.score == pytest.approx(expected, abs=1e-9, rel=0), (variant, result)


CHECKS: dict[str, Check] = {
    "vqa_normalize": _check_normalized,
    "vqa_accuracy": _scores("vqa_accuracy", "vqa/always_norm"),
    "vqa_aggregate": _check_aggregate,
    "anls": _scores("anls", "anls/rrc"),
    "relaxed_accuracy": _check_relaxed,
    "gqa_exact": _scores("gqa_exact", "exact/nocase_nopunct"),
    "ocrbench": _check_ocr,
    "pope_extract": _check_yes_no,
    "pope_metrics": _check_pope,
}
