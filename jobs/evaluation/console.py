"""What the command line prints of comparisons, scored answers and submissions, and the Markdown table of comparisons.

Nothing is computed or printed here. It imports nothing heavy.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jobs.console_text import score_lines

if TYPE_CHECKING:
    from jobs.evaluation.compare import Comparison, Side
    from jobs.evaluation.submit import Submission
    from jobs.report.writer import Report

LOSSES_SHOWN = 5
HEAD = (
    "benchmark", "rule", "n", "A", "B", "B − A", "95 % interval", "p", "after Holm", "wins / losses / ties",
    "detectable",
)  # fmt: skip


def describe_comparisons(comparisons: "Sequence[Comparison]") -> list[str]:
    """Return each benchmark's scores, how far they differ, and how sure that is."""
    return [line for one in comparisons for line in _comparison_lines(one, len(comparisons))]


def describe_below(below: "Sequence[Comparison]", threshold: float) -> str:
    """Return which benchmarks have kept B from passing."""
    differences = ", ".join(f"{one.benchmark} {_points(one.difference)}" for one in below)
    return f"B minus A is below the threshold of {_points(threshold)}: {differences}"


def markdown(a: str, b: str, comparisons: "Sequence[Comparison]") -> str:
    """Return a Markdown table for an issue or a pull request: B compared with A, a line for each benchmark."""
    lines = [HEAD, ("---", "---", *["--:"] * (len(HEAD) - 2)), *map(_cells, comparisons)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    bootstrapped = [one.benchmark for one in comparisons if one.test == "bootstrap/paired"]
    notes = ["± one standard error; intervals by Student's t over paired differences."]
    if len(bootstrapped) < len(comparisons):
        notes.append("p: McNemar's exact test.")
    if bootstrapped:
        notes.append(f"p of {', '.join(bootstrapped)}: paired bootstrap.")
    for one in comparisons:
        failures = [
            f"{side.failed:,} failed and {side.truncated:,} cut off in {name}"
            for name, side in (("A", one.a), ("B", one.b))
            if side.failed or side.truncated
        ]
        if remarks := [*failures, *_remarks(one)]:
            notes.append(f"{one.benchmark}: {'; '.join(remarks)}.")
    return "\n\n".join([f"A: `{a}`  \nB: `{b}`", table, "  \n".join(notes)]) + "\n"


def describe_scored(report: "Report") -> list[str]:
    """Return the scores of stored answers: also with missing rows counted as wrong, and with a judge's verdicts."""
    numbers = report.numbers
    lines = [f"scored {numbers['answers']:,} of {numbers['planned_rows']:,} rows", *score_lines(numbers)]
    for name, score in numbers["scores"].items():
        if score["missing"] and score.get("score_over_all") is not None:
            lines.append(f"{name}: {score['score_over_all'] * 100:.1f} % right with the missing rows counted as wrong")
        if judge := score.get("judge"):
            right = "" if judge["score"] is None else f"{judge['score'] * 100:.1f} % right with a judge; "
            lines.append(f"{name}: {right}{', '.join(judge['judges'])} judged {judge['rows']:,} answers")
    return [*lines, f"results  {numbers['uri']}", f"report   {report.page}"]


def describe_submission(submission: "Submission") -> list[str]:
    """Return what was written for a server, and how much of it is empty."""
    manifest = submission.manifest
    normalised = f", normalised by {manifest['normalisation']}" if manifest["normalisation"] else ""
    lines = [f"{manifest['rows']:,} answers of {manifest['dataset']}{normalised}: {submission.uri}"]
    if manifest["empty"]:
        lines.append(
            f"{manifest['empty']:,} of them are empty: {manifest['failed']:,} rows failed, {manifest['added']:,} are "
            f"missing, and {manifest['unread']:,} answers could not be read by the rule"
        )
    return lines


def describe_checked(file: str, dataset: str, rows: int) -> list[str]:
    """Return that a file is one that its server takes."""
    return [f"{file}: {rows:,} answers in the format of {dataset}'s server"]


def _comparison_lines(one: "Comparison", num_benchmarks: int) -> list[str]:
    interval = "too few rows for an interval"
    if one.low is not None and one.high is not None:
        interval = f"95 % interval {_points(one.low)} to {_points(one.high)}"
    adjusted = f", {one.p_holm:.3g} after Holm over {num_benchmarks} benchmarks" if num_benchmarks > 1 else ""
    detectable = f"; a difference of {_points(one.detectable)} would show 8 times in 10" if one.detectable else ""
    sides = [
        f"{_score(side)}  {', '.join(side.models) or 'unnamed'}, {side.failed:,} failed, {side.truncated:,} truncated"
        for side in (one.a, one.b)
    ]
    lost = [f"first losses: {', '.join(one.lost[:LOSSES_SHOWN])}"] if one.lost else []
    return [
        f"{one.benchmark} ({one.rule}, {_number(one)})",
        f"  A           {sides[0]}",
        f"  B           {sides[1]}",
        f"  B - A       {_points(one.difference)} ({interval})",
        f"  {one.test}  p = {one.p:.3g}{adjusted}{detectable}",
        f"  B wins {one.wins:,}, loses {one.losses:,}, ties {one.ties:,}",
        *(f"  {line}" for line in (*lost, *_remarks(one))),
    ]


def _cells(one: "Comparison") -> tuple[str, ...]:
    return (
        one.benchmark,
        f"`{one.rule}`",
        _number(one),
        _score(one.a),
        _score(one.b),
        _points(one.difference),
        "–" if one.low is None or one.high is None else f"{_points(one.low)} to {_points(one.high)}",
        f"{one.p:.3g}",
        f"{one.p_holm:.3g}",
        f"{one.wins:,} / {one.losses:,} / {one.ties:,}",
        "–" if one.detectable is None else _points(one.detectable),
    )


def _remarks(one: "Comparison") -> Iterator[str]:
    if one.unscored:
        yield f"{one.unscored:,} rows have no score on either side"
    if one.a.presets != one.b.presets:
        presets = [", ".join(side.presets) or "unnamed" for side in (one.a, one.b)]
        yield f"wordings differ: {presets[0]} in A, {presets[1]} in B"
    if one.rule.startswith("pope/"):
        yield "right answers are compared, not the F1 that reports have"
    if one.counted == "image":
        yield "CIDEr-D of each image, with the word frequencies of the whole set's references"
    if one.tokenizer == "fallback":
        yield "captions were split by the fallback tokeniser, unlike published ones (`triptych[captions]` is missing)"
    elif one.tokenizer:
        yield f"captions were split by the {one.tokenizer} tokeniser"


def _number(one: "Comparison") -> str:
    clusters = f" in {one.clusters:,} clusters" if one.clusters is not None else ""
    return f"{one.n:,} {one.counted}s{clusters}"


def _score(side: "Side") -> str:
    return f"{side.score * 100:.2f}" + (f" ± {side.error * 100:.2f}" if side.error is not None else "")


def _points(share: float) -> str:
    return f"{share * 100:+.2f}"
