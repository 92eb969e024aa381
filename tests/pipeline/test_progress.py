"""How far a run is and how fast it goes, from the numbers of units alone; and when too many rows have failed."""

from typing import Any

import pytest

from pipeline.execution.progress import WINDOW_S, Progress, TooManyFailed, Tracker, progress_numbers
from pipeline.pipeline_settings import LimitsSettings
from pipeline.rows import STEP_SECONDS
from pipeline.run import refuse_too_many_failed


def unit(rows: int = 10, failed: int = 0, **seconds: float) -> dict[str, Any]:
    failure = {"stage": "fetch", "type": "NotFound", "count": failed, "key": "a", "message": "gone"}
    tokens = {"prompt_tokens": 30 * rows, "output_tokens": 5 * rows}
    failures = [failure] if failed else []
    return {"rows": rows, "answers": rows, "failed": failed, **tokens, "failures": failures, STEP_SECONDS: seconds}


def test_the_pace_begins_with_the_first_unit_and_not_with_the_loading_of_the_model() -> None:
    tracker = Tracker(1000, 1)
    assert tracker.add(unit(), 300.0).pace is None
    assert tracker.add(unit(), 301.0).pace is None, "a second says nothing of how it goes on"
    for second in range(302, 321):
        progress = tracker.add(unit(), float(second))
    assert progress.pace is not None and progress.first_seconds == 300.0
    assert (progress.pace.rows_per_s, progress.pace.output_tokens_per_s) == (10.0, 50.0)
    assert progress.seconds_left == pytest.approx((1000 - 210) / 10)


def test_the_pace_is_that_of_the_recent_while() -> None:
    tracker = Tracker(10**6, 1)
    for second in range(0, 2000, 10):
        tracker.add(unit(rows=100), float(second))
    for second in range(2000, 4000, 10):
        progress = tracker.add(unit(rows=10), float(second))
    assert progress.pace is not None and progress.pace.rows_per_s == pytest.approx(1.0, rel=0.05)
    assert len(tracker._beginnings) < WINDOW_S / 15 + 3, "what is kept does not grow with the run"


def test_what_engines_count_is_no_time_of_a_step() -> None:
    tracker = Tracker(1000, 1)
    counts = {"asked_tokens": 100.0, "prefilled_tokens": 30.0, "check.asked_tokens": 7.0}
    for second in range(20):
        progress = tracker.add(unit(decode=0.5, idle=0.5, **counts), float(second))
    assert progress.step_seconds == {"decode": 10.0, "idle": 10.0}
    assert progress.prefill_tokens == {"asked_tokens": 2000, "prefilled_tokens": 600, "check.asked_tokens": 140}
    assert progress_numbers(progress, 0.0)["prefill_tokens"] == progress.prefill_tokens
    assert progress.pace is not None and progress.pace.busy["engine"] == 0.5


def test_rows_of_earlier_starts_are_done_and_say_nothing_of_the_pace() -> None:
    tracker = Tracker(1000, 1)
    tracker.set_done(900)
    tracker.add(unit(), 5.0)
    progress = tracker.add(unit(), 15.0)
    assert (progress.done, progress.answered) == (920, 20)
    assert progress.seconds_left == 80.0


@pytest.mark.parametrize(
    ("seconds", "bottleneck"),
    [
        ({"decode": 8.0, "prefill": 1.0, "idle": 1.0, "preprocess": 9.0, "read": 30.0}, "decode"),
        ({"decode": 1.0, "prefill": 8.0, "idle": 1.0}, "prefill"),
        ({"decode": 2.0, "idle": 8.0, "preprocess": 36.0, "read": 9.0}, "preprocess"),
        ({"decode": 2.0, "idle": 8.0, "preprocess": 4.0, "read": 9.0}, "read"),
        ({"decode": 2.0, "idle": 8.0, "write": 9.0}, "write"),
        ({"decode": 5.0, "idle": 5.0, "paint": 9.5}, "paint"),
        ({"decode": 5.0, "idle": 5.0, "check.decode": 1.0, "check.encode": 8.0, "check.idle": 1.0}, "check.encode"),
    ],
)
def test_what_is_always_busy_takes_longest(seconds: dict[str, float], bottleneck: str) -> None:
    tracker = Tracker(1000, 4)
    tracker.add(unit(decode=100.0), 10.0)  # before the first unit is out, the times belong to the start
    progress = tracker.add(unit(**seconds), 20.0)
    assert progress.pace is not None and progress.pace.bottleneck == bottleneck
    had = seconds["idle"] + seconds["decode"] + seconds.get("prefill", 0.0)
    assert progress.pace.busy["engine"] == pytest.approx(1 - seconds["idle"] / had)


def test_failures_are_counted_by_kind_with_the_first_of_each() -> None:
    tracker = Tracker(100, 1)
    tracker.add(unit(failed=2), 1.0)
    progress = tracker.add({**unit(failed=3), "failures": [*unit(failed=3)["failures"], {**OTHER, "count": 9}]}, 2.0)
    kinds = [(kind.stage, kind.type, kind.count, kind.key) for kind in progress.failures]
    assert kinds == [("decode", "BadImage", 9, "b"), ("fetch", "NotFound", 5, "a")]


OTHER = {"stage": "decode", "type": "BadImage", "key": "b", "message": "no image"}


def test_numbers_for_other_programs_go_on_between_two_units() -> None:
    assert progress_numbers(None, 4.0) == {"state": "looking", "seconds": 4.0}
    assert progress_numbers(Progress(10, 0), 4.0)["state"] == "loading"
    tracker = Tracker(100, 1)
    tracker.add(unit(), 1.0)
    numbers = progress_numbers(tracker.add(unit(), 11.0), 30.0)
    assert (numbers["state"], numbers["seconds"], numbers["seconds_left"]) == ("answering", 41.0, 50.0)


def judged(limits: LimitsSettings, rows: int, answered: int, failed: int, answers: int | None = None) -> None:
    progress = Progress(rows, answered, answered=answered, answers=answers or answered, failed=failed)
    refuse_too_many_failed(limits, "s3://out", progress)


def test_a_run_stops_when_its_limit_can_no_longer_be_kept() -> None:
    limits = LimitsSettings(max_failed_share=0.05)
    judged(limits, 10_000, 600, 500)
    with pytest.raises(TooManyFailed, match=r"501 of 600 results failed, and limits.max_failed_share=0.05 allows 500"):
        judged(limits, 10_000, 600, 501)
    judged(limits, 200, 100, 100)  # few: it is soon done
    judged(limits, 10_000, 600, 1_000, answers=1_200)
    with pytest.raises(TooManyFailed, match="allows 1,000 of all 20,000"):
        judged(limits, 10_000, 600, 1_001, answers=1_200)
    judged(LimitsSettings(max_failed_share=1), 10_000, 600, 600)


def test_a_run_stops_when_it_is_judged_by_its_first_rows() -> None:
    limits = LimitsSettings(max_failed_share=0.05, judge_after_rows=100)
    judged(limits, 10_000, 99, 50)
    judged(limits, 10_000, 100, 5)
    with pytest.raises(TooManyFailed, match="100 of 10,000 rows stay committed in s3://out"):
        judged(limits, 10_000, 100, 6)
