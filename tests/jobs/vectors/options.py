"""Published cases of the rules over options, numbers and formulas: letters read, scores of answers, whole tables.

A rule is given the response as it stands: the cases' authors ran the published code on it.
"""

from collections.abc import Callable, Mapping, Sequence
from math import fsum
from typing import Any

import pyarrow as pa
import pytest

from jobs.scoring.pass_at_k import pass_at_k
from jobs.scoring.rule import Gold, RuleResult
from jobs.scoring.rules import math, mathvista, mmmu
from jobs.scoring.rules.mmbench import circular
from jobs.scoring.summary import score_table, summarize_scores
from tests.jobs.judged import judged

Case = Mapping[str, Any]
Check = Callable[[Case], None]

# A variant without a rule is one that no published score of ours is compared with.
VARIANTS: dict[str, dict[str, str | None]] = {
    "mcq_extract": {
        "vlmevalkit": "mcq/prefetch",
        "lmms_extract_mcq": "mcq/ranked",
        "longvideobench": "mcq/first_letter",
        "lmms_mmbench_prefetch": None,
        "vlmevalkit_regex": None,
    },
    "ai2d": {"lmms_eval": "ai2d/letter", "vlmevalkit": "mcq/prefetch"},
    "scienceqa": {"lmms_eval": "scienceqa/lmms", "llava": "scienceqa/llava", "vlmevalkit": "mcq/prefetch"},
    "realworldqa": {"lmms_eval": "realworldqa/ranked"},
    "mmstar": {
        "official": "mmstar/official",
        "lmms_eval": "mcq/ranked",
        "overall_micro (official when all 1500 rows are present; VLMEvalKit)": "mmstar/official",
        "lmms_eval_average (macro over l2_category)": None,
    },
    # VLMEvalKit's copy deletes other lead phrases before it looks for a letter.
    "longvideobench": {"lmms_eval": "mcq/first_letter", "vlmevalkit": None},
    "mmmu_multi_choice": {
        "official": "mmmu/official",
        "lmms_eval": "mmmu/lmms",
        "vlmevalkit_prefetch": "mcq/prefetch",
    },
    # Of lmms-eval's open questions only the repaired scoring is a rule here, which is the official one.
    "mmmu_open": {"official": "mmmu/official", "lmms_eval_75571cf_broken": None},
    "mmmu_parse_open": {"official": "mmmu/official"},
    "mmmu_aggregate": {"official": "mmmu/official"},
    "mathvista_quick_extract": {"official": "mathvista/official"},
    # lmms-eval takes the precision for a float and so finds every float question wrong.
    "mathvista_score": {
        "official": "mathvista/official",
        "official_ignore_empty": None,
        "lmms_eval": None,
    },
    "mmbench_circular": {"vlmevalkit": "mcq/prefetch"},
    "math_boxed": {"lm_eval": "math/hendrycks"},
    "math_equiv": {"hendrycks_original": "math/hendrycks", "math_verify": "math/math_verify", "lm_eval": None},
    "pass_at_k": {"official": None},
}

# What the published code does where it finds no option: it picks one at random, or asks a language model.
_NOTHING = ("<<RANDOM>>", "<<LLM>>", None)


def _check_letter(stem: str, default: str, case: Case) -> None:
    response = case["inputs"]["response"]
    gold = Gold((), tuple(case["inputs"].get("options", ())), {"question_type": "multiple-choice"})
    for rule, expected in _expected(stem, default, case):
        _check_parsed(judged(rule, response, gold), response, expected)


def _check_parsed(result: RuleResult, response: str, expected: str | None) -> None:
    if expected in _NOTHING:
        assert (result.parsed, result.status) == (None, "failed" if response.strip() else "empty")
    else:
        assert result.parsed == expected
        assert (result.status == "refused") == (expected == "Z")


def _check_score(stem: str, default: str, case: Case) -> None:
    inputs = case["inputs"]
    for rule, expected in _expected(stem, default, case):
        gold = Gold((_answer(inputs),), _choices(inputs))
        assert judged(rule, inputs["response"], gold).score == pytest.approx(expected, abs=1e-9), rule


def _choices(inputs: Case) -> tuple[str, ...]:
    return tuple(inputs.get("options") or inputs.get("choices") or ())


def _answer(inputs: Case) -> str:
    """Return the gold answer as an adapter gives it: an option's letter where the data set holds its place."""
    answer = inputs["answer"]
    return chr(ord("A") + int(answer)) if _choices(inputs) else str(answer)


def _check_mmstar(case: Case) -> None:
    rows = case["inputs"].get("rows")
    if rows is None:
        _check_score("mmstar", "mmstar/official", case)
        return
    assert set(case["expected"]) == {"overall_micro"}
    overall = summarize_scores("mmstar/official", score_table(pa.array([row["score"] for row in rows])))["score"]
    for _, expected in _expected("mmstar", "mmstar/official", {**case, "expected": case["expected"]["overall_micro"]}):
        assert overall == pytest.approx(expected, abs=1e-9)


def _check_longvideobench(case: Case) -> None:
    rows = case["inputs"].get("rows")
    if rows is None:
        _check_letter("longvideobench", "mcq/first_letter", case)
    else:
        _check_breakdowns(rows, case["expected"])


def _check_breakdowns(rows: Sequence[Case], expected: Mapping[str, Mapping[str, float]]) -> None:
    scores = pa.array([float(row["parsed_pred"] == row["answer"]) for row in rows])
    found = {"Overall": summarize_scores("mcq/first_letter", score_table(scores))}
    for kind in ("duration_group", "question_category"):
        groups = pa.array([str(row[kind]) for row in rows])
        found.update(summarize_scores("mcq/first_letter", score_table(scores, group=groups))["by"])
    assert set(found) == set(expected)
    for name, cell in expected.items():
        # Published with five decimals.
        assert found[name]["score"] == pytest.approx(cell["acc"], abs=5e-6 + 1e-9), name
        assert found[name]["n"] == cell["num"], name


def _check_open(case: Case) -> None:
    inputs = case["inputs"]
    answers = inputs["answer"] if isinstance(inputs["answer"], list) else [inputs["answer"]]
    gold = Gold(tuple(map(str, answers)), facts={"question_type": "open"})
    for rule, expected in _expected("mmmu_open", "mmmu/official", case):
        assert judged(rule, inputs["response"], gold).score == float(expected), rule


def _check_parse_open(case: Case) -> None:
    response = case["inputs"]["response"]
    candidates = [[type(one).__name__, one] for one in mmmu.parse_open(response)]
    for _, expected in _expected("mmmu_parse_open", "mmmu/official", case):
        assert mmmu.numbers_in(response) == expected["numbers"]
        assert sorted(candidates) == sorted(expected["candidates"])


def _check_aggregate(case: Case) -> None:
    items = case["inputs"]["items"]
    subjects = [mmmu.subject_of(item["id"]) for item in items]
    scores = pa.array([_mmmu_score(item) for item in items])
    found = {"Overall": summarize_scores("mmmu/official", score_table(scores))}
    found |= summarize_scores("mmmu/official", score_table(scores, group=pa.array(subjects)))["by"]
    disciplines = pa.array([f"Overall-{mmmu.DISCIPLINE_OF[subject]}" for subject in subjects])
    found |= summarize_scores("mmmu/official", score_table(scores, group=disciplines))["by"]
    # The official table has the empty disciplines, too.
    expected = {name: cell for name, cell in case["expected"].items() if cell["num"]}
    assert {name: {"num": cell["n"], "acc": round(cell["score"], 3)} for name, cell in found.items()} == expected


def _mmmu_score(item: Case) -> float:
    """Return an item's score from what was read: a letter, or an open question's whole response."""
    answers = item["answer"] if isinstance(item["answer"], list) else [item["answer"]]
    if mmmu.is_multiple_choice(item["question_type"]):
        return float(item["parsed_pred"] in answers)
    return float(mmmu.is_right(mmmu.parse_open(item["parsed_pred"]), answers))


def _question(inputs: Case) -> Gold:
    facts = {name: inputs.get(name) for name in ("question_type", "answer_type", "precision")}
    return Gold((), tuple(inputs["choices"] or ()), facts)


def _check_quick_extract(case: Case) -> None:
    inputs = case["inputs"]
    found = mathvista.extract(inputs["response"], _question(inputs), quick_extract=inputs["quick_extract"])
    assert found == (None if case["expected"] == "<<LLM>>" else case["expected"])
    if found is None and not inputs["quick_extract"]:
        assert judged("mathvista/official", inputs["response"], _question(inputs)).status == "failed"


def _check_mathvista(case: Case) -> None:
    inputs, variants = case["inputs"], case.get("expected_by_rule", {})
    kept = {name: value for name, value in variants.items() if VARIANTS["mathvista_score"][name]}
    for name, expected in [("official", case["expected"]), *kept.items()]:
        found = mathvista.normalize(str(inputs["extraction"]), _question(inputs))
        assert {"normalized": found, "correct": found == inputs["answer"]} == expected, name


def _check_circular(case: Case) -> None:
    rows, expected = case["inputs"]["rows"], case["expected"]
    found = circular((row["index"], _prefetch_score(row)) for row in rows)
    assert {str(question): hit for question, hit in found.hits.items()} == expected["hits"]
    assert found.first_rotation == pytest.approx(expected["vanilla_first_pass"], abs=1e-9)
    assert found.all_rows == pytest.approx(expected["vanilla_all"], abs=1e-9)
    firsts = {row["index"]: row for row in rows}
    hits = pa.array([float(hit) for hit in found.hits.values()])
    report = {"Overall": summarize_scores("mcq/prefetch", score_table(hits))["score"]}
    for kind in ("l2-category", "category"):
        groups = pa.array([firsts[question].get(kind) for question in found.hits], pa.string())
        cells = summarize_scores("mcq/prefetch", score_table(hits, group=groups))["by"]
        report |= {group: cell["score"] for group, cell in cells.items()}
    assert report == pytest.approx(expected["report"], abs=1e-9)


def _prefetch_score(row: Case) -> float:
    gold = Gold((row["answer"],), tuple(row[letter] for letter in "ABCD" if row.get(letter)))
    score = judged("mcq/prefetch", row["prediction"], gold).score
    assert score is not None
    return score


def _check_boxed(case: Case) -> None:
    boxed = math.last_boxed(case["inputs"]["text"])
    content = None if boxed is None else math.boxed_content(boxed)
    assert {"boxed": boxed, "content": content} == case["expected"]


def _check_equivalence(case: Case) -> None:
    compare = {"math/hendrycks": math.is_equal_latex, "math/math_verify": math.is_equal_by_math_verify}
    prediction, gold = case["inputs"]["prediction"], case["inputs"]["gold"]
    for rule, expected in _expected("math_equiv", "math/hendrycks", case):
        assert compare[rule](prediction, gold) == expected, rule


def _check_pass_at_k(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    found = [pass_at_k(n, c, inputs["k"]) for n, c in zip(inputs["n"], inputs["c"], strict=True)]
    assert found == pytest.approx(expected["per_task"], abs=1e-9)
    assert fsum(found) / len(found) == pytest.approx(expected["mean"], abs=1e-9)


def _expected(stem: str, default: str, case: Case) -> list[tuple[str, Any]]:
    """Return rule and expectation: of the default, then of each variant that has a rule."""
    variants = case.get("expected_by_rule", {})
    named = [(VARIANTS[stem][name], expected) for name, expected in variants.items()]
    return [(default, case["expected"]), *((rule, expected) for rule, expected in named if rule is not None)]


def _letters(stem: str, default: str) -> Check:
    return lambda case: _check_letter(stem, default, case)


def _scores(stem: str, default: str) -> Check:
    return lambda case: _check_score(stem, default, case)


CHECKS: dict[str, Check] = {
    "mcq_extract": _letters("mcq_extract", "mcq/prefetch"),
    "ai2d": _scores("ai2d", "ai2d/letter"),
    "scienceqa": _scores("scienceqa", "scienceqa/lmms"),
    "realworldqa": _scores("realworldqa", "realworldqa/ranked"),
    "mmstar": _check_mmstar,
    "longvideobench": _check_longvideobench,
    "mmmu_multi_choice": _letters("mmmu_multi_choice", "mmmu/official"),
    "mmmu_open": _check_open,
    "mmmu_parse_open": _check_parse_open,
    "mmmu_aggregate": _check_aggregate,
    "mathvista_quick_extract": _check_quick_extract,
    "mathvista_score": _check_mathvista,
    "mmbench_circular": _check_circular,
    "math_boxed": _check_boxed,
    "math_equiv": _check_equivalence,
    "pass_at_k": _check_pass_at_k,
}
