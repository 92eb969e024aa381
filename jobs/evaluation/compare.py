"""Compare two scored outputs: paired differences with what can be said of them, and whether the second passes a gate.

Statistics stand in jobs/scoring/statistics.py, what one score belongs to in paired.py; it prints nothing.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.evaluation.align import Aligned, align
from jobs.evaluation.files import write_file
from jobs.evaluation.paired import Paired, pair
from jobs.report.results import ReportError
from jobs.scoring.statistics import (
    bootstrap_p_value,
    detectable_difference,
    estimate,
    holm,
    mcnemar,
    paired_difference,
    tally,
)
from pipeline import Store

log = logging.getLogger(__name__)

MCNEMAR, BOOTSTRAP = "mcnemar/exact", "bootstrap/paired"
# Of the draws: comparing the same two outputs again gives the same p-value.
SEED = 0
LOSSES_NAMED = 10


@dataclass(frozen=True)
class Side:
    """One output's share in a comparison.

    Attributes:
        score: The mean of what is compared, 0 to 1 (CIDEr-D: 0 to 10).
        error: Its standard error, clustered as the comparison is; null where too few rows tell nothing.
        models: The models that answered; one as a rule.
        presets: How the questions were worded.
        failed: Rows with an error.
        truncated: Answers that ran into their limit of tokens.
    """

    score: float
    error: float | None
    models: tuple[str, ...]
    presets: tuple[str, ...]
    failed: int
    truncated: int


@dataclass(frozen=True)
class Comparison:
    """The second output against the first over the rows of one benchmark.

    Attributes:
        benchmark: Its name.
        rule: What both were scored by.
        counted: What one score belongs to: `row`, `question` (all its rotations together) or `image`.
        n: How many of them there are.
        unscored: Rows without a score on both sides, e.g. because the gold answers are hidden.
        a: The first output.
        b: The second.
        difference: B's score minus A's.
        error: Its paired standard error, clustered where `clusters` is not null; null where too few rows tell nothing.
        low: Lower end of the 95 % t interval.
        high: Its upper end.
        clusters: How many groups of rows that hang together there are; null where each stands for itself.
        test: Which test the p-value is of.
        p: The two-sided p-value of this benchmark alone.
        p_holm: Adjusted by Holm for all benchmarks compared.
        wins: Where B scores higher.
        losses: Where B scores lower.
        ties: Where both score the same.
        lost: The keys of the first losses.
        tokenizer: What parted the words of captions; null elsewhere.
        detectable: The smallest true difference that so many rows would show in 8 of 10 cases; null without an error.
    """

    benchmark: str
    rule: str
    counted: str
    n: int
    unscored: int
    a: Side
    b: Side
    difference: float
    error: float | None
    low: float | None
    high: float | None
    clusters: int | None
    test: str
    p: float
    p_holm: float
    wins: int
    losses: int
    ties: int
    lost: tuple[str, ...]
    tokenizer: str | None
    detectable: float | None


def compare(a: Store, b: Store, benchmarks: Sequence[str] = ()) -> list[Comparison]:
    """Compare the scores of two outputs, benchmark by benchmark.

    Args:
        a: What is measured against.
        b: What is measured.
        benchmarks: Those to look at; none means all that have gold answers.

    Raises:
        ReportError: They are not of the same rows, not scored alike, or there is nothing to compare.
        StorageError: An output cannot be read.
    """
    aligned = align(a, b, benchmarks) if benchmarks else _with_gold(align(a, b))
    pairs = [pair(one) for one in aligned]
    p_values = [_p_value(one) for one in pairs]
    adjusted = holm([p for _, p in p_values])
    return [
        _comparison(rows, paired, test, p, p_holm)
        for rows, paired, (test, p), p_holm in zip(aligned, pairs, p_values, adjusted, strict=True)
    ]


def fallen_below(comparisons: Sequence[Comparison], threshold: float, *, only_sure: bool) -> list[Comparison]:
    """Return the benchmarks whose difference is below a threshold, e.g. -0.01.

    Args:
        comparisons: Of all benchmarks.
        threshold: The least that B's score minus A's may be.
        only_sure: Leave out those whose 95 % interval reaches up to the threshold: chance may have put them below.

    Raises:
        ReportError: The threshold is not met and an interval that could excuse it cannot be had.
    """
    below = [one for one in comparisons if one.difference < threshold]
    if not only_sure:
        return below
    if unsure := [one.benchmark for one in below if one.high is None]:
        raise ReportError(f"found too few rows of {', '.join(unsure)} for an interval, expected at least two clusters")
    return [one for one in below if one.high is not None and one.high < threshold]


def write_json(uri: str, a: Store, b: Store, comparisons: Sequence[Comparison]) -> None:
    """Write comparisons into a file, over an earlier one.

    Raises:
        StorageError: It cannot be written.
    """
    found = {"a": a.name(""), "b": b.name(""), "comparisons": [asdict(one) for one in comparisons]}
    write_file(uri, json.dumps(found, indent=2, ensure_ascii=False).encode(), a.settings)


def _with_gold(aligned: Sequence[Aligned]) -> Sequence[Aligned]:
    """Leave out what only a server can score, unless there is nothing else."""
    kept = [rows for rows in aligned if rows.has_gold]
    if kept and (hidden := [rows.benchmark for rows in aligned if not rows.has_gold]):
        log.warning("not compared, for their gold answers are hidden: %s", ", ".join(hidden))
    return kept or aligned


def _p_value(paired: Paired) -> tuple[str, float]:
    """Test whether chance alone makes such a difference: exactly for right and wrong, else by drawing again."""
    if np.isin([paired.a, paired.b], (0.0, 1.0)).all():
        return MCNEMAR, mcnemar(paired.b, paired.a).p_value
    differences = paired.b - paired.a

    def difference(rows: NDArray[np.intp]) -> float:
        return float(differences[rows].mean())

    return BOOTSTRAP, bootstrap_p_value(difference, paired.clusters or paired.keys, seed=SEED)


def _comparison(rows: Aligned, paired: Paired, test: str, p: float, p_holm: float) -> Comparison:
    found = paired_difference(paired.b, paired.a, paired.clusters)
    wins, losses, ties = tally(paired.b, paired.a)
    lost = [paired.keys[place] for place in np.flatnonzero(paired.b < paired.a)[:LOSSES_NAMED]]
    return Comparison(
        benchmark=rows.benchmark,
        rule=rows.rule,
        counted=paired.counted,
        n=found.n,
        unscored=paired.unscored,
        a=_side(rows.a, paired.a, paired.clusters),
        b=_side(rows.b, paired.b, paired.clusters),
        difference=found.mean,
        error=found.error,
        low=found.low,
        high=found.high,
        clusters=None if paired.clusters is None else len(set(paired.clusters)),
        test=test,
        p=p,
        p_holm=p_holm,
        wins=wins,
        losses=losses,
        ties=ties,
        lost=tuple(lost),
        tokenizer=paired.tokenizer,
        detectable=None if found.error is None else detectable_difference(found.error),
    )


def _side(rows: pa.Table, scores: NDArray[np.float64], clusters: Sequence[str] | None) -> Side:
    found = estimate(scores, clusters)
    return Side(
        score=found.mean,
        error=found.error,
        models=_words(rows["model"]),
        presets=_words(rows["preset"]),
        failed=rows.num_rows - rows["error"].null_count,
        truncated=int(pc.sum(pc.equal(rows["parse_status"], "truncated")).as_py() or 0),
    )


def _words(column: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(sorted(str(word) for word in pc.unique(column).to_pylist() if word is not None))
