"""Scoring rules and intervals against published values."""

import pyarrow as pa
import pytest

from jobs.scoring.intervals import wilson
from jobs.scoring.rules.text_match import exact_match
from jobs.scoring.summary import score_table, summarize_scores

# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I,
# method 3 (score, without continuity correction), four digits as printed.
NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize(("successes", "total", "low", "high"), NEWCOMBE)
def test_wilsons_interval_is_the_published_one(successes, total, low, high):
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_agrees_with_scipy():
    # scipy.stats.binomtest(30, 50).proportion_ci(method="wilson"), and for 3 of 3.
    assert wilson(30, 50) == pytest.approx((0.4618143774758936, 0.7239161026974346), abs=1e-12)
    assert wilson(3, 3) == pytest.approx((0.4385029682449546, 1.0), abs=1e-12)


@pytest.mark.parametrize(("successes", "total"), [(0, 1), (1, 1), (0, 10_000), (10_000, 10_000), (9_673, 9_673)])
def test_an_interval_stays_inside_nought_and_one(successes, total):
    low, high = wilson(successes, total)
    assert 0.0 <= low <= successes / total <= high <= 1.0


@pytest.mark.parametrize(("successes", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_an_impossible_count_is_refused(successes, total):
    with pytest.raises(ValueError, match=f"found {successes} successes in {total} trials"):
        wilson(successes, total)


# GQA's exact match as lmms-eval scores it (ignore case, ignore punctuation), over its own test cases.
EXACT = [
    ("Red", "red", 1.0), ("red.", "red", 1.0), ("the red", "red", 0.0), ("front-left", "front left", 0.0),
    ("fence", "fences", 0.0), ("No,", "no", 1.0), ("It is a dog", "dog", 0.0), ("", "no", 0.0),
    (" \nyes\t", "Yes!", 1.0), ("traffic  light", "traffic light", 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("response", "gold", "expected"), EXACT)
def test_the_exact_rule_ignores_case_and_punctuation_only(response, gold, expected):
    assert exact_match(response, [gold]) == expected


def test_one_of_several_gold_answers_is_enough():
    assert exact_match("couch", ["sofa", "couch"]) == 1.0
    assert exact_match("chair", ["sofa", "couch"]) == 0.0


def test_a_failed_row_scores_nought_and_is_counted_apart():
    rows = score_table(
        pa.array([1.0, 0.0, 1.0]),
        is_failed=pa.array([False, True, False]),
        is_truncated=pa.array([False, False, True]),
        group=pa.array(["a", "a", "b"]),
    )
    summary = summarize_scores("rule", rows)
    assert summary["score"] == pytest.approx(2 / 3)
    assert (summary["n"], summary["failed"], summary["truncated"], summary["unscored"]) == (3, 1, 1, 0)
    assert {group: score["score"] for group, score in summary["by"].items()} == {"a": 0.5, "b": 1.0}


def test_rows_without_a_gold_answer_are_beside_the_score():
    summary = summarize_scores("rule", score_table(pa.array([None, 1.0])))
    assert (summary["score"], summary["n"], summary["unscored"]) == (1.0, 1, 1)


def test_groups_that_came_in_several_pieces_are_counted_together():
    pieces = [score_table(pa.array([1.0, 0.0, None]), group=pa.array(groups)) for groups in ([2, 1, 2], [1, None, 3])]
    by = summarize_scores("rule", pa.concat_tables(pieces).unify_dictionaries())["by"]
    assert list(by) == ["1", "2", "3"]
    assert {group: (score["score"], score["n"], score["unscored"]) for group, score in by.items()} == {
        "1": (0.5, 2, 0),
        "2": (1.0, 1, 1),
        "3": (None, 0, 1),
    }


def test_no_scored_rows_give_no_score():
    summary = summarize_scores("rule", score_table(pa.array([None], pa.float64())))
    assert (summary["score"], summary["low"], summary["high"], summary["n"]) == (None, None, None, 0)
