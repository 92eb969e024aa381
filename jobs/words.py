"""What the command line says when something is done. It knows reports and words; it prints nothing itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.report.amounts import points, scored

if TYPE_CHECKING:
    from jobs.demo.drawn_pictures import Drawings
    from jobs.demo.run import Demo
    from jobs.report.write import Report
    from jobs.start import Outcome, RetryOutcome
    from pipeline.run import RunResult


# Of kinds of errors, in one line.
MOST_KINDS = 3


def say_outcome(outcome: "Outcome") -> list[str]:
    """Say what a run has come to, in a few lines."""
    result, numbers = outcome.result, outcome.report.numbers
    stand = f"{result.rows:,} rows, {_failed(result, numbers)}"
    if result.answered:
        head = f"{stand}, {result.output_tokens:,} tokens in {result.seconds:.0f} s"
    else:
        head = f"finished before, nothing to do: {stand}"
    # Keys of different data sets may well be alike; where one of them has a key twice, the run does not start.
    duplicates = 0 if _has_data_sets(numbers) else result.duplicate_keys
    return [
        head,
        *([f"{duplicates:,} rows have a key that an earlier row has too"] if duplicates else []),
        *say_scores(numbers),
        *_say_places(result, outcome.report),
    ]


def say_retry(outcome: "RetryOutcome") -> list[str]:
    """Say what has come of the rows that had failed."""
    retried = outcome.retried
    if not retried.rows:
        return [
            f"no row has failed, nothing to do: {retried.result.rows:,} rows",
            *_say_places(retried.result, outcome.report),
        ]
    return [
        f"{retried.rows:,} failed rows run again: {retried.recovered:,} well now, "
        f"{retried.rows - retried.recovered:,} failed again",
        *(f"  {one['stage']} {one['type']}: {one['count']:,}" for one in retried.failures),
        *say_scores(outcome.report.numbers),
        *_say_places(retried.result, outcome.report),
    ]


def say_too_many_failed(result: "RunResult", report: "Report", limit: float) -> str:
    """Say how many rows failed of what, how many may, and what to do about it."""
    failures = report.numbers["failures"]
    kinds = ", ".join(f"{one['stage']} {one['type']} ({one['count']:,})" for one in failures[:MOST_KINDS])
    more = f" and {len(failures) - MOST_KINDS} more" if len(failures) > MOST_KINDS else ""
    return (
        f"{result.failed_share:.1%} of the rows failed, limits.max_failed_share is {limit:.1%}; {kinds}{more}\n"
        f"  `triptych retry {result.uri}` runs them again once the cause is gone"
    )


def _say_places(result: "RunResult", report: "Report") -> list[str]:
    return [f"results  {result.uri}", f"report   {report.page}"]


def say_scores(numbers: Mapping[str, Any]) -> list[str]:
    """Give each score with its interval: a line for each benchmark, or for own rows and pictures one for each group."""
    if _has_data_sets(numbers):
        return [f"{name}: {_say_benchmark(score)}" for name, score in numbers["scores"].items()]
    say = _say_kept if "pictures" in numbers else _say_right
    lines = []
    for name, score in numbers["scores"].items():
        lines.append(f"{name}: {say(score)}")
        lines += [f"  {group:<10} {say(part)}" for group, part in score["by"].items()]
    return lines


def _has_data_sets(numbers: Mapping[str, Any]) -> bool:
    return bool(numbers.get("settings", {}).get("job", {}).get("benchmarks"))


def _say_benchmark(score: Mapping[str, Any]) -> str:
    """Give a score as it is published, the metric where it is no mean, and how many rows have no part in it."""
    if not score["n"] + score["unscored"]:
        said = "no row is answered yet"
    elif not score["n"]:
        said = f"no gold answers, {score.get('rows', score['unscored']):,} rows"
    elif score["score"] is None:
        said = f"no {score['metric']} of {_counted(score)}: {score.get('fault', 'it is not defined for these answers')}"
    else:
        metric = "" if score["metric"] == "mean" else f" {score['metric']}"
        low, high = points(score["low"]), points(score["high"])
        interval = "" if score["low"] is None else f"95 % interval {low}–{high}, "
        said = f"{scored(score, score['score'], ' ')}{metric} ({interval}{_counted(score)})"
    counts = {
        "missing": score["missing"],
        "failed": score["failed"],
        "cut off": score["truncated"],
        "could not be read": score["statuses"]["failed"],
    }
    return ", ".join([said, *(f"{number:,} {what}" for what, number in counts.items() if number)])


def _counted(score: Mapping[str, Any]) -> str:
    """Say what a score is over; MMBench counts questions, each of several rows."""
    if score.get("rows", score["n"] + score["unscored"]) == score["n"] + score["unscored"]:
        return f"{score['n']:,} rows"
    return f"{score['n']:,} questions, {score['rows']:,} rows"


def _failed(result: "RunResult", numbers: Mapping[str, Any]) -> str:
    """Say what failed out of what: a row can have several pictures, some of them well."""
    if "pictures" not in numbers:
        return f"{result.failed:,} failed"
    return f"{numbers['pictures']:,} pictures, {result.failed:,} of {result.answers:,} results failed"


def _say_right(score: Mapping[str, Any]) -> str:
    if score["score"] is None:
        return "no gold answers"
    is_share = score.get("interval", "wilson") == "wilson"
    interval = "" if score["low"] is None else f"{_interval(score)}, "
    return f"{score['score'] * 100:.1f} % {'right' if is_share else 'on average'} ({interval}{score['n']:,} rows)"


def _say_kept(score: Mapping[str, Any]) -> str:
    if score["score"] is None:
        return "nothing was asked about any picture"
    return f"{score['score'] * 100:.1f} % of {score['n']:,} pictures ({_interval(score)})"


def _interval(score: Mapping[str, Any]) -> str:
    return f"95 % interval {score['low'] * 100:.1f}–{score['high'] * 100:.1f}"


def say_demo(demo: "Demo") -> list[str]:
    """Say where the demo's pages are, what they show, and what they do not."""
    lines = []
    for name, outcome in demo.outcomes.items():
        lines += ["", f"== {name}", *say_outcome(outcome)]
    return [
        *lines,
        "",
        *_say_drawings(demo.drawings),
        "",
        f"Open {demo.index}",
        "",
        "The small checkpoints are toys: they know coloured shapes and nothing else, so what stands under the",
        "photographs is nonsense. They show that real files go all the way. The same command runs real weights:",
        "  triptych run configs/caption_aria.yaml model.path=/path/to/Aria read.uri=... write.uri=...",
    ]


def _say_drawings(drawings: "Drawings") -> list[str]:
    scores = drawings.scores
    return [
        "What was drawn, looked at by rule:",
        f"  both colours right   {_say_kept(scores['colours'])}",
        f"  place right          {_say_kept(scores['places'])}",
        f"  both outlines right  {_say_kept(scores['outlines'])}",
        f"The toy that looked and the rule agree whether both shapes are there in {_say_kept(scores['agreement'])}.",
    ]
