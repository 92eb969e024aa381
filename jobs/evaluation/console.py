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
    return [line for comparison in comparisons for line in _comparison_lines(comparison, len(comparisons))]


def describe_below(below: "Sequence[Comparison]", threshold: float) -> str:
    """Return which benchmarks have kept B from passing."""
    differences = ", ".join(f"{comparison.benchmark} {_points(comparison.difference)}" for comparison in below)
    return f"B minus A is below the threshold of {_points(threshold)}: {differences}"


def markdown(a: str, b: str, comparisons: "Sequence[Comparison]") -> str:
    """Return a Markdown table for an issue or a pull request: B compared with A, a line for each benchmark."""
    lines = [HEAD, ("---", "---", *["--:"] * (len(HEAD) - 2)), *map(_cells, comparisons)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    bootstrapped = [comparison.benchmark for comparison in comparisons if comparison.test == "bootstrap/paired"]
    notes = ["± one standard error; intervals by Student's t over paired differences."]
    if len(bootstrapped) < len(comparisons):
        notes.append("p: McNemar's exact test.")
    if bootstrapped:
        notes.append(f"p of {', '.join(bootstrapped)}: paired bootstrap.")
    for comparison in comparisons:
        failures = [
            f"{side.failed:,} failed and {side.truncated:,} cut off in {name}"
            for name, side in (("A", comparison.a), ("B", comparison.b))
            if side.failed or side.truncated
        ]
        if remarks := [*failures, *_remarks(comparison)]:
            notes.append(f"{comparison.benchmark}: {'; '.join(remarks)}.")
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


def _comparison_lines(comparison: "Comparison", num_benchmarks: int) -> list[str]:
    interval = _interval(comparison)
    certainty = f"95 % interval {interval}" if interval else "too few rows for an interval"
    adjusted = f", {comparison.p_holm:.3g} after Holm over {num_benchmarks} benchmarks" if num_benchmarks > 1 else ""
    detectable = (
        f"; a difference of {_points(comparison.detectable)} would show 8 times in 10" if comparison.detectable else ""
    )
    sides = [
        f"{_score(side)}  {', '.join(side.models) or 'unnamed'}, {side.failed:,} failed, {side.truncated:,} truncated"
        for side in (comparison.a, comparison.b)
    ]
    lost = [f"first losses: {', '.join(comparison.lost[:LOSSES_SHOWN])}"] if comparison.lost else []
    return [
        f"{comparison.benchmark} ({comparison.rule}, {_number(comparison)})",
        f"  A           {sides[0]}",
        f"  B           {sides[1]}",
        f"  B - A       {_points(comparison.difference)} ({certainty})",
        f"  {comparison.test}  p = {comparison.p:.3g}{adjusted}{detectable}",
        f"  B wins {comparison.wins:,}, loses {comparison.losses:,}, ties {comparison.ties:,}",
        *(f"  {line}" for line in (*lost, *_remarks(comparison))),
    ]


def _cells(comparison: "Comparison") -> tuple[str, ...]:
    return (
        comparison.benchmark,
        f"`{comparison.rule}`",
        _number(comparison),
        _score(comparison.a),
        _score(comparison.b),
        _points(comparison.difference),
        _interval(comparison) or "–",
        f"{comparison.p:.3g}",
        f"{comparison.p_holm:.3g}",
        f"{comparison.wins:,} / {comparison.losses:,} / {comparison.ties:,}",
        "–" if comparison.detectable is None else _points(comparison.detectable),
    )


def _remarks(comparison: "Comparison") -> Iterator[str]:
    if comparison.unscored:
        yield f"{comparison.unscored:,} rows have no score on either side"
    if comparison.a.presets != comparison.b.presets:
        presets = [", ".join(side.presets) or "unnamed" for side in (comparison.a, comparison.b)]
        yield f"wordings differ: {presets[0]} in A, {presets[1]} in B"
    if comparison.rule.startswith("pope/"):
        yield "right answers are compared, not the F1 that reports have"
    if comparison.counted == "image":
        yield "CIDEr-D of each image, with the word frequencies of the whole set's references"
    if comparison.tokenizer == "fallback":
        yield "captions were split by the fallback tokeniser, unlike published ones (`triptych[captions]` is missing)"
    elif comparison.tokenizer:
        yield f"captions were split by the {comparison.tokenizer} tokeniser"


def _interval(comparison: "Comparison") -> str | None:
    if comparison.low is None or comparison.high is None:
        return None
    return f"{_points(comparison.low)} to {_points(comparison.high)}"


def _number(comparison: "Comparison") -> str:
    clusters = f" in {comparison.clusters:,} clusters" if comparison.clusters is not None else ""
    return f"{comparison.n:,} {comparison.counted}s{clusters}"


def _score(side: "Side") -> str:
    return f"{side.score * 100:.2f}" + (f" ± {side.error * 100:.2f}" if side.error is not None else "")


def _points(share: float) -> str:
    return f"{share * 100:+.2f}"
