"""What the command line says of comparisons, submissions and stored answers scored again; it prints nothing itself."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.console_text import score_lines

if TYPE_CHECKING:
    from jobs.evaluation.compare import Comparison, Side
    from jobs.evaluation.score import Scored
    from jobs.evaluation.submit import Submission

LOSSES_SHOWN = 5


def say_comparisons(comparisons: "Sequence[Comparison]") -> list[str]:
    """Say what each benchmark's scores are, how far they differ, and how sure that is."""
    return [line for one in comparisons for line in _say_comparison(one, len(comparisons))]


def say_fallen(fallen: "Sequence[Comparison]", threshold: float) -> str:
    """Say which benchmarks have kept B from passing."""
    found = ", ".join(f"{one.benchmark} by {_points(one.difference)}" for one in fallen)
    return f"B has fallen further than {_points(threshold)} allows: {found}"


def say_scored(scored: "Scored") -> list[str]:
    """Say what stored answers are worth, with and without those that are missing, and with a judge if one was asked."""
    numbers = scored.report.numbers
    head = f"scored {scored.rows:,} of {scored.planned_rows:,} rows"
    lines = [head, *score_lines(numbers)]
    for name, score in numbers["scores"].items():
        if score["missing"] and score.get("score_over_all") is not None:
            lines.append(f"{name}: {score['score_over_all'] * 100:.1f} % right with the missing rows counted as wrong")
        if judge := score.get("judge"):
            lines.append(f"{name}: {_judged(judge)}")
    return [*lines, f"results  {scored.uri}", f"report   {scored.report.page}"]


def _judged(judge: "Mapping[str, Any]") -> str:
    asked = f"{', '.join(judge['judges'])} was asked about {judge['rows']:,} answers"
    if judge["score"] is None:
        return asked
    return f"{judge['score'] * 100:.1f} % right with a judge; {asked}"


def say_submission(written: "Submission") -> list[str]:
    """Say what has been written for a server, and what of it is empty."""
    manifest = written.manifest
    normalised = f", normalised by {manifest['normalisation']}" if manifest["normalisation"] else ""
    lines = [f"{manifest['rows']:,} answers of {manifest['dataset']}{normalised}: {written.place}"]
    if manifest["empty"]:
        lines.append(
            f"{manifest['empty']:,} of them are empty; {manifest['failed']:,} rows failed, {manifest['added']:,} were "
            f"not there, and in {manifest['unread']:,} answers the rule could read nothing"
        )
    return lines


def say_checked(file: str, dataset: str, rows: int) -> list[str]:
    """Say that a file is one that its server takes."""
    return [f"{file}: {rows:,} answers, as the server of {dataset} takes them"]


def _say_comparison(one: "Comparison", num_benchmarks: int) -> list[str]:
    interval = "too few for an interval"
    if one.low is not None and one.high is not None:
        interval = f"95 % interval {_points(one.low)} to {_points(one.high)}"
    adjusted = f", {one.p_holm:.3g} after Holm over {num_benchmarks} benchmarks" if num_benchmarks > 1 else ""
    detectable = f"; {_points(one.detectable)} would show 8 times in 10" if one.detectable else ""
    clusters = f" in {one.clusters:,} clusters" if one.clusters is not None else ""
    lines = [
        f"{one.benchmark} ({one.rule}, {one.n:,} {one.counted}s{clusters})",
        f"  A           {_side(one.a)}",
        f"  B           {_side(one.b)}",
        f"  B - A       {_points(one.difference)} ({interval})",
        f"  {one.test}  p = {one.p:.3g}{adjusted}{detectable}",
        f"  B wins {one.wins:,}, loses {one.losses:,}, ties {one.ties:,}",
    ]
    if one.lost:
        lines.append(f"  lost first: {', '.join(one.lost[:LOSSES_SHOWN])}")
    if one.counted == "image":
        lines.append("  CIDEr-D by image, words as rare as in the references of the whole set")
    if one.rule.startswith("pope/"):
        lines.append("  right answers are compared, not the F1 that reports have")
    if one.tokenizer == "fallback":
        lines.append(
            "  words parted by the fallback tokeniser, not as in published numbers (extra `captions` is missing)"
        )
    if one.unscored:
        lines.append(f"  {one.unscored:,} rows have no score on either side")
    if one.a.presets != one.b.presets:
        lines.append(f"  wordings differ: {_joined(one.a.presets)} in A, {_joined(one.b.presets)} in B")
    return lines


def _side(side: "Side") -> str:
    error = f" ± {side.error * 100:.2f}" if side.error is not None else ""
    counts = f"{side.failed:,} failed, {side.truncated:,} truncated"
    return f"{side.score * 100:.2f}{error}  {_joined(side.models)}, {counts}"


def _joined(words: "Sequence[str]") -> str:
    return ", ".join(words) or "unnamed"


def _points(share: float) -> str:
    return f"{share * 100:+.2f}"
