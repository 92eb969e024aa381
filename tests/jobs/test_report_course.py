"""What a report says of a run's outcome, its course, and the texts that it wrote."""

import re
from collections import Counter

import pytest

from jobs.report.distributions import MOST_BINS, MOST_RATES, distribution, rates_over_time
from jobs.report.numbers import numbers_of
from jobs.report.page import axis_start, render_markdown, render_report
from jobs.report.results import read_results
from jobs.report.texts import Texts, faults_of
from pipeline.execution.progress import MOST_POINTS, Tracker, progress_numbers
from pipeline.rows import STEP_SECONDS
from pipeline.state import ledger
from tests.jobs.test_report import captioned, gallery_of, output_of, page_of


def numbers_at(store, job):
    return numbers_of(read_results(store, job), job)


def head_of(page):
    return re.search(r"<header>.*?</header>", page, re.DOTALL)[0]


def test_a_run_with_too_many_failed_rows_has_no_green_tick(photos):
    job, part = captioned(photos)
    store = output_of(photos, job, part, is_finished=False)
    ledger.mark_finished(store, "1 of 40 results failed, more than limits.max_failed_share=0 allows")
    numbers = numbers_at(store, job)
    assert (numbers["is_finished"], numbers["state"]) == (True, "too many failed")
    head = head_of(render_report(numbers, gallery_of(photos, job, part), job))
    assert "mark good" not in head and "✓" not in head and 'class="state bad"' in head
    assert "1 of 40 results failed, more than limits.max_failed_share=0 allows" in head
    assert "**Too many rows failed**" in render_markdown(numbers, job)
    assert "mark good" in head_of(page_of(photos, job, part))


def test_a_run_that_stopped_because_of_failures_says_so(photos):
    job, part = captioned(photos)
    store = output_of(photos, job, part.slice(0, 30), is_finished=False)
    ledger.write_attempt(store, "3", {"outcome": "too many failed", "seconds": 1.0, "answered": 0, "output_tokens": 0})
    assert numbers_at(store, job)["state"] == "stopped"
    assert numbers_at(output_of(photos, job, part, is_finished=False), job)["state"] == "unfinished"


def test_captions_are_counted_alike_and_by_length(photos):
    job, part = captioned(photos)
    numbers = numbers_at(output_of(photos, job, part.slice(0, 20), part.slice(20)), job)
    texts = numbers["texts"]
    assert (texts["texts"], texts["distinct"]) == (39, 2)
    assert [one["count"] for one in texts["most_frequent"]] == [29, 10]
    assert numbers["distributions"]["words"]["median"] == 2
    assert numbers["distributions"]["output_tokens"]["bins"] == [{"start": 2, "stop": 3, "count": 39}]
    page = page_of(photos, job, part)
    assert "What was written" in page and "<script" not in page


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("a dog on a mat", []),
        ("very very very very good", []),
        ("a photo of a cat and a cat and a cat and a cat and a cat", ["looping"]),
        ("a cat and a cat and a cat", []),  # three times only
        ("no no no no no no no no no no", ["looping"]),
        ("ha ha ha ha", []),  # shorter than twenty characters
        ("一只猫在看在看在看在看在看在看在看在看在看在看在看在看", ["looping"]),
        ("I’m sorry, but I can't help with that.", ["refusing"]),
        ("A sorry sight", []),
        ("  ", ["empty"]),
    ],
)
def test_each_fault_of_a_text_has_a_rule(text, faults):
    assert faults_of(text) == faults


def test_frequent_texts_are_counted_over_all_parts_exactly():
    texts = Texts()
    for _ in range(3):
        texts.add(["a", "a", "b", None])
    assert texts.summary()["most_frequent"] == [{"text": "a", "count": 6}, {"text": "b", "count": 3}]
    assert (texts.summary()["texts"], texts.summary()["distinct"]) == (9, 2)


def test_a_distribution_loses_no_row_and_puts_the_few_longest_together():
    spread = distribution(Counter(dict.fromkeys(range(1, 101), 10) | {100_000: 1}))
    assert sum(one["count"] for one in spread["bins"]) == 1001
    assert len(spread["bins"]) <= MOST_BINS and spread["bins"][-1]["stop"] is None
    assert (spread["least"], spread["median"], spread["p95"], spread["most"]) == (1, 51, 96, 100_000)
    assert distribution({}) is None


def test_rates_are_those_between_commits_of_each_start():
    attempts = [{"seconds": 10.0, "series": [(4.0, 8), (6.0, 16), (10.0, 20)]}, {"seconds": 5.0}]
    later = {"seconds": 3.0, "series": [(1.0, 1), (2.0, 4)]}
    rates = [(one["start"], one["stop"], one["rows_per_second"]) for one in rates_over_time([*attempts, later])]
    assert rates == [(4.0, 6.0, 4.0), (6.0, 10.0, 1.0), (16.0, 17.0, 3.0)]
    long = [{"seconds": 1000.0, "series": [(float(second), second) for second in range(1000)]}]
    assert len(rates_over_time(long)) <= MOST_RATES + 1


def test_the_curve_of_a_long_start_stays_short():
    tracker = Tracker(10_000, 1)
    numbers = {"answers": 1, "failed": 0, "prompt_tokens": 1, "output_tokens": 1, "failures": [], STEP_SECONDS: []}
    for second in range(10_000):
        tracker.add({"rows": 1, **numbers}, float(second))
    seconds = [second for second, _ in tracker.series]
    assert MOST_POINTS / 4 < len(seconds) <= MOST_POINTS and seconds[-1] > 9_800
    assert all(rows == second + 1 for second, rows in tracker.series)


def test_an_axis_begins_below_every_interval():
    assert axis_start({"a": {"score": 0.999, "low": 0.982}, "b": {"score": 1.0, "low": None}}) == 0.98
    assert axis_start({"a": {"score": 0.999, "low": 0.982}, "b": {"score": 0.4, "low": 0.3}}) == 0.0
    assert axis_start({"a": {"score": None, "low": None}}) == 0.0


def test_the_burst_of_units_that_were_on_their_way_at_first_does_not_stand_out():
    burst = [(30.0 + number / 10, 10 * (number + 1)) for number in range(8)]  # what 20 s have brought, in 0.7 s
    steady = [(35.0 + 2.5 * number, 90 + 10 * number) for number in range(100)]
    attempt = {"seconds": 290.0, "ready_seconds": 10.0, "first_seconds": 30.0, "series": [(10.0, 0), *burst, *steady]}
    rates = rates_over_time([attempt])
    assert (rates[0]["start"], rates[-1]["stop"]) == (10.0, 282.5)
    assert all(3.2 <= one["rows_per_second"] <= 4.8 for one in rates)
    assert sum((one["stop"] - one["start"]) * one["rows_per_second"] for one in rates) == pytest.approx(1080, rel=0.01)
    unknown = rates_over_time([{**attempt, "ready_seconds": None, "series": [*burst, *steady]}])
    assert unknown[0]["start"] == 30.0, "of older versions"


def test_tokens_that_were_copied_from_prompts_that_begin_alike_are_told(photos):
    job, part = captioned(photos)
    store = output_of(photos, job, part)
    numbers = numbers_at(store, job)
    assert numbers["prefill_tokens"] == {}, "of starts by older versions"
    said = " tokens of prompts (25.0\N{NARROW NO-BREAK SPACE}%) went through the decoder; the others were copied"
    assert "went through the decoder" not in render_markdown(numbers, job)
    start = {"seconds": 1.0, "answered": 0, "output_tokens": 0}
    for number in ("3", "4"):
        tokens = {"asked_tokens": 2000, "prefilled_tokens": 500}
        ledger.write_attempt(store, number, {**start, "prefill_tokens": tokens})
    numbers = numbers_at(store, job)
    assert numbers["prefill_tokens"] == {"asked_tokens": 4000, "prefilled_tokens": 1000}
    assert said in render_markdown(numbers, job) and said in render_report(numbers, gallery_of(photos, job, part), job)


def test_a_start_that_was_killed_has_its_time_and_its_curve(photos):
    job, part = captioned(photos)
    store = output_of(photos, job, part, is_finished=False)
    before = numbers_at(store, job)
    tracker = Tracker(40, 1)
    tracker.begin(2.0)
    unit = {"rows": 4, "answers": 4, "failed": 0, "prompt_tokens": 1, "output_tokens": 8, "failures": []}
    for second in range(3, 13):
        tracker.add({**unit, STEP_SECONDS: {"decode": 0.5}}, float(second))
    written = {"started": "2026-01-01T00:00:00Z", "attempt": "3", "series": tracker.series, "host": "n"}
    ledger.write_progress(store, {**progress_numbers(tracker.progress, 1.0), **written})
    for _ in range(2):  # as it stands there, and as the next start keeps it
        numbers = numbers_at(store, job)
        assert (numbers["attempts"], numbers["seconds"]) == (before["attempts"] + 1, before["seconds"] + 13.0)
        assert (numbers["state"], numbers["step_seconds"]["decode"]) == ("unfinished", 5.0)
        assert [one["rows_per_second"] for one in numbers["rates"]] == [4.0] * 9
        ledger.keep_killed_start(store)
    (kept,) = [one for one in ledger.read_attempts(store, ledger.read_output(store).paths) if one.get("host") == "n"]
    assert kept["outcome"] == "killed"
    ledger.write_attempt(store, "3", {**kept, "outcome": "interrupted"})  # it lived after all
    ledger.keep_killed_start(store)
    assert ledger.read_attempts(store, ledger.read_output(store).paths)[-1]["outcome"] == "interrupted"


def test_a_burst_of_commits_is_no_rate():
    assert rates_over_time([{"seconds": 50.0, "series": [(49.9, 8), (49.92, 16), (50.0, 24)]}]) == []
    series = [(5.0, 8), (5.01, 16), (7.0, 24), (9.0, 32), (9.1, 40)]
    rates = rates_over_time([{"seconds": 10.0, "series": series}])
    assert [(one["start"], one["stop"], one["rows_per_second"]) for one in rates] == [
        (5.0, 7.0, 8.0),
        (7.0, 9.1, 7.619),
    ]
