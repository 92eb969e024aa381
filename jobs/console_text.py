"""The text that the command line prints when a command is done. Nothing is printed here."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.report.formatting import PLANNED, SPACE, amount, off, planned, points, scored

if TYPE_CHECKING:
    from jobs.demo.drawn_pictures import DrawnPictures
    from jobs.demo.run import Demo
    from jobs.export import Exported
    from jobs.report.writer import Report
    from jobs.start import Outcome, RetryOutcome
    from pipeline.run import FailureKind, RunResult, TooManyFailed


MAX_ERROR_KINDS = 3  # of which examples are shown
MESSAGE_CHARACTERS = 200
# What to do about rows that fail so: by stage and type of the error, or by type alone.
REMEDIES = {
    (
        "fetch",
        "NotFound",
    ): "see whether the paths are right, and relative to the folder of their table",
    ("fetch", "MissingImage"): "name the column of images: read.columns={image: COLUMN}",
    ("fetch", "WrongType"): "name another column (read.columns), or convert this one",
    ("decode", "BadImage"): "open one of these files: they are broken, or no images",
    ("tokenise", "PromptTooLong"): "raise generate.max_length, or lower preprocess.max_image_size or max_image_tiles",
    ("preprocess", "UnseenImage"): "take a checkpoint that sees images, or leave model.text_only out",
    ("generate", "OutOfMemory"): "lower generate.slots or generate.max_length",
    "WorkerDied": "the process died on these rows: look at their files, or give it more memory",
}


def run_lines(outcome: "Outcome") -> list[str]:
    """Sum up a finished run: rows, scores, and where the results are."""
    result, numbers = outcome.result, outcome.report.numbers
    summary = f"{result.rows:,} rows, {_failed_count(result, numbers)}"
    if result.answered:
        head = f"{summary}, {result.output_tokens:,} tokens in {result.seconds:.0f} s"
    else:
        head = f"finished before, nothing to do: {summary}"
    # Different data sets may share keys; a data set that has a key twice stops the run before it starts.
    duplicates = 0 if _has_data_sets(numbers) else result.duplicate_keys
    return [
        head,
        *([f"{duplicates:,} rows have the same key as an earlier row"] if duplicates else []),
        *score_lines(numbers),
        *_output_lines(result, outcome.report),
    ]


def report_lines(report: "Report") -> list[str]:
    """Say where a report is and, where a plan is kept beside it, how far that was off."""
    plan = report.numbers["plan"]
    if plan is None:
        return [report.page]
    if not plan["lines"]:
        return [report.page, f"the plan of {plan['made']} is set against the run once it is finished"]
    lines = [
        f"{PLANNED[line['name']]:<25} planned {planned(line['expected'], line['name'])}, was "
        f"{planned(line['did'], line['name'])}: off by {off(line['off'])}"
        for line in plan["lines"]
    ]
    return [report.page, *(line.replace(SPACE, " ") for line in lines)]


def retry_lines(outcome: "RetryOutcome") -> list[str]:
    """Sum up a retry: how many of the failed rows are well now, and why others failed again."""
    retried = outcome.retried
    if not retried.rows:
        return [
            f"no row failed, nothing to do: {retried.result.rows:,} rows",
            *_output_lines(retried.result, outcome.report),
        ]
    return [
        f"{retried.rows:,} failed rows were run again: {retried.recovered:,} succeeded, "
        f"{retried.rows - retried.recovered:,} failed again",
        *(f"  {kind['stage']} {kind['type']}: {kind['count']:,}" for kind in retried.failures),
        *score_lines(outcome.report.numbers),
        *_output_lines(retried.result, outcome.report),
    ]


def too_many_failed_message(result: "RunResult", report: "Report", limit: float) -> str:
    """Say how many rows failed and why, how many may, and what to do about it."""
    from pipeline.run import FailureKind

    kinds = [
        FailureKind(kind["stage"], kind["type"], kind["count"], **kind["examples"][0])
        for kind in report.numbers["failures"]
    ]
    return "\n".join(
        [
            f"{result.failed_share:.1%} of the rows failed, limits.max_failed_share is {limit:.1%}",
            *failure_lines(kinds),
            f"  `{program()} retry {result.uri}` runs them again once the cause is gone",
        ]
    )


def stopped_message(error: "TooManyFailed") -> str:
    """Say why a run was stopped early, and how it goes on."""
    return "\n".join(
        [
            str(error),
            *failure_lines(error.failures),
            "  Once the cause is gone, or to keep these error rows, give the same command with a higher limit, such as "
            f"limits.max_failed_share=1; `{program()} retry` then runs failed rows again.",
        ]
    )


def failure_lines(failures: "Sequence[FailureKind]") -> list[str]:
    """Show the most frequent kinds, each with an example and what to do about it."""
    lines = []
    for kind in failures[:MAX_ERROR_KINDS]:
        message = " ".join(kind.message.split())
        short = message if len(message) <= MESSAGE_CHARACTERS else f"{message[:MESSAGE_CHARACTERS]} …"
        lines.append(f"  {kind.stage} {kind.type} ({kind.count:,}), such as row {kind.key}: {short}")
        if remedy := REMEDIES.get((kind.stage, kind.type), REMEDIES.get(kind.type)):
            lines.append(f"    {remedy}")
    more = len(failures) - MAX_ERROR_KINDS
    return [*lines, f"  and {more} other kinds of failure"] if more > 0 else lines


def export_lines(done: "Exported") -> list[str]:
    """Say how many texts were written and where, and why other rows were left out."""
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in done.left_out.most_common())
    return [
        f"{done.rows:,} texts in {done.place}",
        *([f"left out: {left_out}"] if left_out else []),
        *([] if done.is_finished else ["the run is not finished: these are rows that it has committed"]),
    ]


def kept_texts_message(done: "Exported") -> str:
    """Say which texts stood there and were not overwritten."""
    first = ", ".join(done.differing[:3])
    return f"{len(done.differing):,} texts stand there and say something else ({first}); --overwrite replaces them"


def _output_lines(result: "RunResult", report: "Report") -> list[str]:
    return [*_device_lines(report.numbers), f"results  {result.uri}", f"report   {report.page}"]


def _device_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Say how long all starts have held devices, and what that costs where a price is set."""
    if numbers.get("device_seconds") is None:
        return []
    hours, price = amount(numbers["device_seconds"] / 3600, ","), numbers["price_per_device_hour"]
    cost = "" if numbers["cost"] is None else f", {amount(numbers['cost'], ',')} at {price:g} an hour"
    return [f"devices  {hours} device-hours{cost}"]


def score_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Give each score with its interval: a line per benchmark, or per group of own rows and pictures."""
    if _has_data_sets(numbers):
        return [f"{name}: {_benchmark_score(score)}" for name, score in numbers["scores"].items()]
    share = _share_kept if "pictures" in numbers else _share_right
    lines = []
    for name, score in numbers["scores"].items():
        lines.append(f"{name}: {share(score)}")
        lines += [f"  {group:<10} {share(part)}" for group, part in score["by"].items()]
    return lines


def _has_data_sets(numbers: Mapping[str, Any]) -> bool:
    return bool(numbers.get("settings", {}).get("job", {}).get("benchmarks"))


def _benchmark_score(score: Mapping[str, Any]) -> str:
    """Give a score as it is published, the metric where it is no mean, and how many rows have no part in it."""
    if not score["n"] + score["unscored"]:
        text = "no row is answered yet"
    elif not score["n"]:
        text = f"no gold answers, {score.get('rows', score['unscored']):,} rows"
    elif score["score"] is None:
        fault = score.get("fault", "it is not defined for these answers")
        text = f"no {score['metric']} of {_row_count(score)}: {fault}"
    else:
        metric = "" if score["metric"] == "mean" else f" {score['metric']}"
        low, high = points(score["low"]), points(score["high"])
        interval = "" if score["low"] is None else f"95 % interval {low}–{high}, "
        text = f"{scored(score['score'], score, ' ')}{metric} ({interval}{_row_count(score)})"
    counts = {
        "missing": score["missing"],
        "failed": score["failed"],
        "cut off": score["truncated"],
        "could not be read": score["statuses"]["failed"],
    }
    return ", ".join([text, *(f"{number:,} {name}" for name, number in counts.items() if number)])


def _row_count(score: Mapping[str, Any]) -> str:
    """Say what a score is over; MMBench counts questions, each of several rows."""
    if score.get("rows", score["n"] + score["unscored"]) == score["n"] + score["unscored"]:
        return f"{score['n']:,} rows"
    return f"{score['n']:,} questions, {score['rows']:,} rows"


def _failed_count(result: "RunResult", numbers: Mapping[str, Any]) -> str:
    """Say what failed out of what: a row can have several pictures, some of them well."""
    if "pictures" not in numbers:
        return f"{result.failed:,} failed"
    return f"{numbers['pictures']:,} pictures, {result.failed:,} of {result.answers:,} results failed"


def _share_right(score: Mapping[str, Any]) -> str:
    if score["score"] is None:
        return "no gold answers"
    is_share = score.get("interval", "wilson") == "wilson"
    interval = "" if score["low"] is None else f"{_interval(score)}, "
    return f"{score['score'] * 100:.1f} % {'right' if is_share else 'on average'} ({interval}{score['n']:,} rows)"


def _share_kept(score: Mapping[str, Any]) -> str:
    if score["score"] is None:
        return "nothing was asked about any picture"
    return f"{score['score'] * 100:.1f} % of {score['n']:,} pictures ({_interval(score)})"


def _interval(score: Mapping[str, Any]) -> str:
    return f"95 % interval {score['low'] * 100:.1f}–{score['high'] * 100:.1f}"


def demo_lines(demo: "Demo") -> list[str]:
    """Sum up each of the demo's runs, say which page to open, and what toys cannot do."""
    lines = []
    for name, outcome in demo.outcomes.items():
        lines += ["", f"== {name}", *run_lines(outcome)]
    return [
        *lines,
        "",
        *_drawing_lines(demo.drawings),
        "",
        f"Open {demo.index}",
        "",
        "The small checkpoints are toys: they know coloured shapes and nothing else. Their captions of the photographs",
        "are nonsense, and only show that real files go all the way.",
        "",
        *first_steps(),
    ]


def first_steps() -> list[str]:
    """Say what to type for pictures of one's own, as it can be typed here: this program, and the toy where it lies."""
    toy = os.path.relpath(Path(__file__).parent / "demo" / "checkpoints" / "aria")
    toy = os.path.abspath(toy) if toy.startswith("..") else toy
    run = f"{program()} run caption"
    return [
        "Pictures of your own, a folder of them, described by the toy, then by real weights (here the hub's):",
        f"  {run} {shlex.quote(f'model.path={toy}')} read.uri=FOLDER write.uri=captions",
        f"  {run} model.path=rhymes-ai/Aria read.uri=FOLDER write.uri=captions_by_aria",
    ]


def program() -> str:
    """Return what to type for this command line: `make demo` installs it where the shell does not look."""
    found = shutil.which("triptych")
    called = sys.argv[0] if Path(sys.argv[0]).name == "triptych" else found or "triptych"
    return "triptych" if found and os.path.samefile(found, called) else shlex.quote(called)


def _drawing_lines(drawings: "DrawnPictures") -> list[str]:
    scores = drawings.scores
    return [
        "Drawn pictures, measured by rule:",
        f"  both colours right   {_share_kept(scores['colours'])}",
        f"  place right          {_share_kept(scores['places'])}",
        f"  both outlines right  {_share_kept(scores['outlines'])}",
        f"The toy that checks and the rule agree on whether both shapes are there: {_share_kept(scores['agreement'])}.",
    ]
