"""The numbers of a run, as report.json has them. How they are shown, page.py decides."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.report.caveats import caveats_of
from jobs.report.distributions import distribution, rates_over_time
from jobs.report.outcome import against_plan, starts_after
from jobs.report.results import Results
from pipeline import Job

# What the report says of a plan beside what it expects.
OF_PLAN = ("made", "rows", "rows_left", "seconds_least", "seconds_most", "check_seconds")
# Headlines to which each row adds its share.
MEANS = ("mean", "mean over rows (micro)", "share of points")


def numbers_of(results: Results, job: Job, price: float | None = None) -> dict[str, Any]:
    """Return everything that report.json holds.

    Args:
        results: What stands in the output.
        job: The run's.
        price: Of an hour of one device; None for that of the plan, if any is kept.

    `rows` counts rows of the input, `answers` those of the results: a row that asked for several pictures has several.
    `failed` counts answers.

    `state` is `finished`, `too many failed` (finished, but more rows failed than `limits.max_failed_share` allows),
    `stopped` (unfinished: the last start ended because of that limit), or `unfinished`.

    Rates are over the time in which a start of the run worked, all starts together; waiting between them and
    the loading of the model before the first unit are in `seconds` as the starts measured it.
    """
    counts = results.counts
    seconds, answered, written = (
        sum(attempt[name] for attempt in results.attempts) for name in ("seconds", "answered", "output_tokens")
    )
    summary = _summary(results, job)
    if price is None and results.plan is not None:
        price = results.plan.get("price_per_device_hour")
    numbers = {
        "job": job.kind,
        "uri": results.uri,
        "is_finished": results.is_finished,
        "state": _state(results),
        "too_many_failed": results.too_many_failed,
        "rows": counts.rows,
        "planned_rows": results.planned_rows,
        "answers": counts.answers,
        "failed": counts.failed,
        "seconds": round(seconds, 3),
        "tokens": counts.tokens["output_tokens"],
        "prompt_tokens": counts.tokens["prompt_tokens"],
        "image_tokens": counts.tokens["image_tokens"],
        "rows_per_second": round(answered / seconds, 3) if seconds else None,
        "tokens_per_second": round(written / seconds, 3) if seconds else None,
        **_device_seconds(results.attempts, price),
        "loading_seconds": round(sum(attempt.get("first_seconds") or 0.0 for attempt in results.attempts), 3),
        "step_seconds": _step_seconds(results.attempts),
        "prefill_tokens": _prefill_tokens(results.attempts),
        "rates": rates_over_time(results.attempts),
        "distributions": _distributions(results),
        "texts": None if results.texts is None else results.texts.summary(),
        "finish_reasons": dict(counts.finish_reasons),
        "failures": counts.failures,
        "oddities": dict(sorted(results.oddities.items(), key=lambda item: (-item[1], item[0]))),
        "warnings": list(results.warnings),
        **summary,
        **_picture_rate(summary, counts.rows, answered, seconds),
        "plan": _against_plan(results, price),
        "attempts": len(results.attempts),
        "device": results.frozen["device"],
        "weights": results.frozen["weights"],
        "versions": results.frozen["versions"],
        "settings": results.frozen["settings"],
    }
    if scored_from := results.frozen.get("scored_from"):
        numbers["scored_from"] = scored_from
    # Only jobs that ask questions have published scores to be compared with.
    return numbers if results.benchmarks is None else {**numbers, "caveats": caveats_of(numbers)}


def _summary(results: Results, job: Job) -> dict[str, Any]:
    """Return the job's own numbers, and beside each score the missing rows and the counts of its benchmark."""
    summary = dict(job.summarize(results.summary_rows))
    judged = {} if results.judged_rows is None else job.summarize(results.judged_rows).get("scores", {})
    scores = {
        name: _score(results, name, score, judged.get(name, {})) for name, score in summary.get("scores", {}).items()
    }
    return {**summary, "scores": scores}


def _score(results: Results, name: str, score: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any]:
    planned = sum(unit.num_rows for unit in results.units if unit.source in (name, ""))
    if results.benchmarks is None:
        return {**score, "missing": planned - results.counts.rows}
    missing = planned - results.benchmarks.rows_of(name)
    over_all = {"missing": missing, "score_over_all": _over_all(score, missing)}
    return {**score, **over_all, **results.benchmarks.summary(name, judged)}


def _over_all(score: Mapping[str, Any], missing: int) -> float | None:
    """Return a mean with the missing rows counted as wrong; None for headlines that are no means over rows."""
    if not missing or score["score"] is None or score.get("metric") not in MEANS:
        return None
    return float(score["score"] * score["n"] / (score["n"] + missing))


def _state(results: Results) -> str:
    if results.is_finished:
        return "too many failed" if results.too_many_failed else "finished"
    outcomes = [attempt.get("outcome") for attempt in results.attempts]
    return "stopped" if outcomes[-1:] == ["too many failed"] else "unfinished"


def _device_seconds(attempts: Sequence[Mapping[str, Any]], price: float | None) -> dict[str, float | None]:
    """Return how long devices were held, and what that costs: all that a start may have had, for all of its time.

    `device_seconds` counts every start, `device_seconds_per_1000_rows` only those that answered any.
    """
    worked = [attempt for attempt in attempts if attempt["answered"]]
    seconds = for_1000 = None
    # Starts of older versions have not written down what they held.
    if worked and all("placement" in attempt for attempt in attempts):
        seconds = sum(map(_held, attempts))
        for_1000 = sum(map(_held, worked)) / sum(int(attempt["answered"]) for attempt in worked) * 1000
    return {
        "device_seconds": None if seconds is None else round(seconds, 3),
        "device_seconds_per_1000_rows": None if for_1000 is None else round(for_1000, 3),
        "price_per_device_hour": price,
        "cost": None if seconds is None or price is None else round(seconds / 3600 * price, 6),
    }


def _held(attempt: Mapping[str, Any]) -> float:
    placement = attempt["placement"]
    # GPUs, or on a machine without any the engines. An older version has not said what those that check have.
    engines = [(placement.get(f"{step}_most", 0), placement.get(f"{step}_gpus", 0)) for step in ("generate", "check")]
    gpus = sum(count * each for count, each in engines)
    return float(attempt["seconds"] * (gpus or sum(count for count, _ in engines)))


def _against_plan(results: Results, price: float | None) -> dict[str, Any] | None:
    """Return the plan that is kept beside the report and, of a finished run, how far it was off."""
    plan = results.plan
    if plan is None:
        return None
    starts = starts_after(plan, results.attempts) if results.is_finished else []
    kept = {name: plan[name] for name in OF_PLAN}
    if not starts:
        return {**kept, "starts": 0, "lines": []}
    seconds, loading = (sum(attempt.get(name) or 0.0 for attempt in starts) for name in ("seconds", "first_seconds"))
    held = _device_seconds(starts, price)
    counts = results.counts
    did = {
        "rows": sum(attempt["answered"] for attempt in starts),
        "failed_share": counts.failed / counts.answers,
        "loading_seconds": loading,
        "answering_seconds": seconds - loading,
        "seconds": seconds,
        **{name: _mean(spread) for name, spread in counts.spread.items()},
        "output_bytes": results.output_bytes,
        "device_hours": None if held["device_seconds"] is None else held["device_seconds"] / 3600,
        "cost": held["cost"],
    }
    return {**kept, "starts": len(starts), "lines": against_plan(plan, did)}


def _mean(spread: Mapping[int, int]) -> float | None:
    rows = sum(spread.values())
    return sum(number * count for number, count in spread.items()) / rows if rows else None


def _step_seconds(attempts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what the steps of all starts were busy with, the longest first; starts of older versions say nothing."""
    seconds: Counter[str] = Counter()
    for attempt in attempts:
        seconds.update(attempt.get("step_seconds") or {})
    return {name: round(spent, 3) for name, spent in seconds.most_common() if spent}


def _prefill_tokens(attempts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many tokens of prompts were asked, and how many of them went through the decoder.

    The others were copied from prompts that begin alike; starts of older versions say nothing.
    """
    tokens: Counter[str] = Counter()
    for attempt in attempts:
        tokens.update(attempt.get("prefill_tokens") or {})
    return dict(tokens)


def _distributions(results: Results) -> dict[str, Any]:
    counts = {**results.counts.spread, **({"words": results.texts.lengths} if results.texts else {})}
    return {name: spread for name, of in counts.items() if (spread := distribution(of)) is not None}


def _picture_rate(summary: Mapping[str, Any], rows: int, answered: int, seconds: float) -> dict[str, float | None]:
    """Return how fast pictures were drawn, where the job counts any: as many for each row as all rows have."""
    if "pictures" not in summary:
        return {}
    drawn = summary["pictures"] * answered / rows if rows else 0
    return {"pictures_per_second": round(drawn / seconds, 3) if seconds else None}
