"""Errors, intervals and tests of scores: against hand-worked values, scipy's own tests, and themselves."""

import math

import numpy as np
import pytest
import scipy.stats

from jobs.scoring import statistics
from jobs.scoring.intervals import student
from jobs.scoring.statistics import (
    bootstrap,
    bootstrap_p_value,
    clustered_error,
    detectable_difference,
    estimate,
    holm,
    mcnemar,
    paired_difference,
    standard_error,
    tally,
)


def numbers(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, size) / 2


def test_the_standard_error_is_that_of_the_sample():
    assert standard_error([1, 0, 0, 1]) == pytest.approx(math.sqrt(1 / 3) / 2)


def test_one_row_has_no_error():
    assert standard_error([1.0]) is None
    assert clustered_error([1.0], ["a"]) is None
    assert estimate([0.5]) == (0.5, None, None, None, 1)


def test_rows_that_each_stand_alone_need_no_clusters():
    scores = numbers(1, 60)
    assert clustered_error(scores, range(60)) == pytest.approx(standard_error(scores))


def test_rows_that_repeat_each_other_tell_no_more_than_one():
    # Four images, each asked three times with the same outcome.
    images = np.repeat([0.0, 1.0, 1.0, 0.5], 3)
    clusters = np.repeat(["a", "b", "c", "d"], 3).tolist()
    deviations = np.array([0.0, 1.0, 1.0, 0.5]) - 0.625
    n = 12
    squares = 3 * (deviations**2).sum()
    by_hand = squares / (n - 1) / n + (9 * (deviations**2).sum() - squares) / n**2
    assert clustered_error(images, clusters) == pytest.approx(math.sqrt(by_hand))
    assert clustered_error(images, clusters) > 1.5 * standard_error(images)


def test_opposite_answers_on_one_image_cancel_each_other():
    assert clustered_error([1, 0, 1, 0], ["a", "a", "b", "b"]) < standard_error([1, 0, 1, 0])


def test_clusters_may_be_of_any_kind_and_order():
    scores, clusters = numbers(2, 30), [str(place % 7) for place in range(30)]
    order = np.random.default_rng(0).permutation(30)
    shuffled = clustered_error(scores[order], [(clusters[place],) for place in order])
    assert clustered_error(scores, clusters) == pytest.approx(shuffled)


def test_a_share_has_wilsons_interval_and_a_mean_of_fractions_students():
    assert estimate([1, 1, 1])[2:4] == pytest.approx((0.4385029682449546, 1.0))
    fractions = [0.3, 0.6, 1.0, 0.0]
    error = standard_error(fractions)
    found = estimate(fractions)
    assert (found.low, found.high) == pytest.approx(scipy.stats.t.interval(0.95, 3, np.mean(fractions), error))


def test_a_share_of_rows_that_hang_together_has_the_wider_interval():
    scores, clusters = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0], 10), np.repeat(np.arange(5), 10).tolist()
    alone, together = estimate(scores), estimate(scores, clusters)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_one_cluster_gives_no_interval():
    assert estimate([1.0, 0.0], ["a", "a"]) == (0.5, None, None, None, 2)


def test_students_interval_is_that_of_scipy():
    assert student(0.5, 0.1, 7) == pytest.approx(scipy.stats.t.interval(0.95, 7, 0.5, 0.1))
    with pytest.raises(ValueError, match="found 0 degrees of freedom"):
        student(0.5, 0.1, 0)


def test_the_paired_test_is_the_t_test_of_related_rows():
    first, second = numbers(3, 80), numbers(4, 80)
    found, expected = paired_difference(first, second), scipy.stats.ttest_rel(first, second)
    assert (found.t, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_a_difference_is_the_others_turned_round():
    one, other = paired_difference([1, 0, 1], [0, 0, 1]), paired_difference([0, 0, 1], [1, 0, 1])
    assert (one.mean, one.low, one.t) == pytest.approx((-other.mean, -other.high, -other.t))
    assert one.p_value == other.p_value


def test_pairing_sees_what_two_lone_errors_hide():
    first = numbers(5, 200)
    second = first.copy()
    second[:8] -= 0.5
    found = paired_difference(first, second)
    assert found.low > 0
    assert found.error < 0.2 * math.hypot(standard_error(first), standard_error(second))


def test_a_paired_difference_by_clusters_has_their_error_and_their_degrees_of_freedom():
    first, second, clusters = numbers(6, 40), numbers(7, 40), [place // 4 for place in range(40)]
    found = paired_difference(first, second, clusters)
    assert found.error == clustered_error(first - second, clusters)
    assert (found.low, found.high) == pytest.approx(scipy.stats.t.interval(0.95, 9, found.mean, found.error))


def test_equal_runs_do_not_differ_and_a_constant_gap_is_no_chance():
    assert paired_difference([1, 0, 1], [1, 0, 1])[:6] == (0, 0, 0, 0, 0, 1)
    assert paired_difference([1, 0.5], [0.5, 0])[4:6] == (math.inf, 0)


def test_runs_of_different_length_are_not_compared():
    with pytest.raises(ValueError, match="found 3 scores against 2"):
        paired_difference([1, 0, 1], [1, 0])
    with pytest.raises(ValueError, match="expected one finite number"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="found 2 clusters for 3 rows"):
        clustered_error([1, 0, 1], ["a", "b"])


@pytest.mark.parametrize("wins, losses", [(0, 0), (1, 0), (8, 3), (19, 8), (5, 5), (40, 2)])
def test_mcnemars_test_is_the_binomial_one_of_the_rows_that_differ(wins, losses):
    first = [1] * wins + [0] * losses + [1, 0, 0]
    second = [0] * wins + [1] * losses + [1, 0, 0]
    found = mcnemar(first, second)
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert found == (wins, losses, pytest.approx(expected))


def test_mcnemars_test_is_only_for_right_and_wrong():
    with pytest.raises(ValueError, match="other than 0 and 1"):
        mcnemar([0.5, 1], [1, 1])


def test_wins_losses_and_ties_are_counted_from_the_first_run():
    assert tally([1, 0.3, 0, 0.6], [0, 0.6, 0, 0.6]) == (1, 1, 2)


def test_the_bootstrap_of_a_mean_is_near_its_formula():
    scores = numbers(8, 400)
    found = bootstrap(lambda rows: float(scores[rows].mean()), range(400), seed=1)
    assert found.error == pytest.approx(standard_error(scores), rel=0.1)
    assert (found.low, found.high) == pytest.approx(student(scores.mean(), standard_error(scores), 399), abs=0.01)


def test_the_bootstrap_draws_whole_clusters():
    clusters = ["a"] * 3 + ["b"] * 2 + ["c"]
    drawn = []
    bootstrap(lambda rows: drawn.append(sorted(rows.tolist())) or 0.0, clusters, seed=3, resamples=50)
    assert all(rows.count(0) == rows.count(1) == rows.count(2) and rows.count(3) == rows.count(4) for rows in drawn)
    assert all(rows.count(0) + rows.count(3) + rows.count(5) == 3 for rows in drawn)


def test_the_same_seed_gives_the_same_spread_and_another_one_another():
    scores = numbers(9, 50)

    def spread(seed):
        return bootstrap(lambda rows: float(np.median(scores[rows])), range(50), seed=seed, resamples=200)

    assert spread(1) == spread(1)
    assert spread(1) != spread(2)


def test_the_bootstraps_p_value_is_near_the_t_tests():
    first, second = numbers(10, 300), numbers(11, 300)
    second[:30] = 0
    differences = first - second
    found = bootstrap_p_value(lambda rows: float(differences[rows].mean()), range(300), seed=1, resamples=4000)
    assert found == pytest.approx(paired_difference(first, second).p_value, abs=0.02)


def test_equal_runs_have_a_bootstrap_p_value_of_one_and_none_is_ever_zero():
    assert bootstrap_p_value(lambda rows: 0.0, range(10), seed=1, resamples=99) == 1
    gap = np.full(50, 0.25)
    assert bootstrap_p_value(lambda rows: float(gap[rows].mean()), range(50), seed=1, resamples=99) == 0.01


def test_holms_rule_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_smallest_detectable_difference_is_280_errors_of_a_hundredth():
    assert detectable_difference(0.01) == pytest.approx(0.0280158, abs=1e-6)
    assert detectable_difference(0.01, power=0.5) == pytest.approx(0.0195996, abs=1e-6)


def test_a_million_rows_are_no_trouble():
    scores = np.random.default_rng(0).integers(0, 2, 1_000_000).astype(float)
    clusters = (np.arange(1_000_000) // 5).tolist()
    assert statistics.clustered_error(scores, clusters) == pytest.approx(0.0005, rel=0.02)
