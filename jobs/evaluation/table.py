"""A comparison as a Markdown table, to be pasted into an issue or a pull request. It computes nothing."""

from collections.abc import Iterator, Sequence

from jobs.evaluation.compare import BOOTSTRAP, Comparison, Side

HEAD = (
    "benchmark",
    "rule",
    "n",
    "A",
    "B",
    "B − A",
    "95 % interval",
    "p",
    "after Holm",
    "wins / losses / ties",
    "detectable",
)


def markdown(a: str, b: str, comparisons: Sequence[Comparison]) -> str:
    """Return the table, a line for each benchmark, in points of 100.

    Args:
        a: What is measured against.
        b: What is measured.
        comparisons: Of all benchmarks.
    """
    lines = [HEAD, ("---", "---", *["--:"] * (len(HEAD) - 2)), *map(_cells, comparisons)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"A: `{a}`  \nB: `{b}`\n\n{table}\n\n{_notes(comparisons)}\n"


def _cells(one: Comparison) -> tuple[str, ...]:
    interval = "–" if one.low is None or one.high is None else f"{_points(one.low)} to {_points(one.high)}"
    clusters = f" in {one.clusters:,} clusters" if one.clusters is not None else ""
    return (
        one.benchmark,
        f"`{one.rule}`",
        f"{one.n:,} {one.counted}s{clusters}",
        _side(one.a),
        _side(one.b),
        _points(one.difference),
        interval,
        f"{one.p:.3g}",
        f"{one.p_holm:.3g}",
        f"{one.wins:,} / {one.losses:,} / {one.ties:,}",
        "–" if one.detectable is None else _points(one.detectable),
    )


def _notes(comparisons: Sequence[Comparison]) -> str:
    drawn = [one.benchmark for one in comparisons if one.test == BOOTSTRAP]
    notes = ["± one standard error; intervals by Student's t over paired differences."]
    if len(drawn) < len(comparisons):
        notes.append("p: McNemar's exact test.")
    if drawn:
        notes.append(f"p of {', '.join(drawn)}: paired bootstrap.")
    notes += [f"{one.benchmark}: {'; '.join(said)}." for one in comparisons if (said := list(_remarks(one)))]
    return "  \n".join(notes)


def _remarks(one: Comparison) -> Iterator[str]:
    for name, side in (("A", one.a), ("B", one.b)):
        if side.failed or side.truncated:
            yield f"{side.failed:,} failed and {side.truncated:,} cut off in {name}"
    if one.unscored:
        yield f"{one.unscored:,} rows without a score"
    if one.a.presets != one.b.presets:
        presets = [", ".join(side.presets) or "unnamed" for side in (one.a, one.b)]
        yield f"wordings differ: {presets[0]} in A, {presets[1]} in B"
    if one.rule.startswith("pope/"):
        yield "right answers, not the F1 that reports have"
    if one.counted == "image":
        yield f"CIDEr-D by image, words parted by the {one.tokenizer} tokeniser"


def _side(side: Side) -> str:
    return f"{side.score * 100:.2f}" + (f" ± {side.error * 100:.2f}" if side.error is not None else "")


def _points(share: float) -> str:
    return f"{share * 100:+.2f}"
