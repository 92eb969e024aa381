"""Compare two scored outputs: paired differences, how sure they are, and whether the second output passes a gate."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.evaluation.align import Aligned, align
from jobs.evaluation.outputs import write_file
from jobs.evaluation.paired_scores import Paired, pair
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
# Comparing the same two outputs again gives the same p-value.
SEED = 0
LOSSES_NAMED = 10


@dataclass(frozen=True)
class Side:
    """One output's share in a comparison.

    Attributes:
        score: The mean score, 0 to 1 (CIDEr-D: 0 to 10).
        error: Its standard error, clustered as the comparison is; null for too few rows.
        models: The models that answered, usually one.
        presets: The presets that worded the questions.
        failed: Rows with an error.
        truncated: Answers cut off at the token limit.
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
        rule: The rule that scored both.
        counted: What has one score: a `row`, a `question` (all its rotations together) or an `image`.
        n: How many of them there are.
        unscored: Rows without a score on either side, e.g. because the gold answers are hidden.
        a: The first output.
        b: The second.
        difference: B's score minus A's.
        error: Its paired standard error, clustered where `clusters` is not null; null for too few rows.
        low: Lower end of the 95 % t interval.
        high: Its upper end.
        clusters: The number of groups of dependent rows; null where all rows are independent.
        test: The test that the p-value is from.
        p: The two-sided p-value of this benchmark alone.
        p_holm: The p-value adjusted by Holm for all benchmarks compared.
        wins: How often B scores higher.
        losses: How often B scores lower.
        ties: How often both score the same.
        lost: The keys of the first losses.
        tokenizer: The tokeniser that split captions into words; null elsewhere.
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
        a: The output that is measured against.
        b: The output that is measured.
        benchmarks: The benchmarks to compare; empty for all that have gold answers.

    Raises:
        ReportError: They are not of the same rows, not scored alike, or there is nothing to compare.
        StorageError: An output cannot be read.
    """
    aligned = align(a, b, benchmarks) if benchmarks else _with_gold(align(a, b))
    comparisons = [_compare(rows, pair(rows)) for rows in aligned]
    adjusted = holm([comparison.p for comparison in comparisons])
    return [replace(comparison, p_holm=p) for comparison, p in zip(comparisons, adjusted, strict=True)]


def below_threshold(comparisons: Sequence[Comparison], threshold: float, *, only_sure: bool) -> list[Comparison]:
    """Return the benchmarks whose difference is below a threshold, e.g. -0.01.

    Args:
        comparisons: Of all benchmarks.
        threshold: The least that B's score minus A's may be.
        only_sure: Leave out those whose 95 % interval reaches up to the threshold: chance may have put them below.

    Raises:
        ReportError: A difference is below the threshold, and there are too few rows for its interval.
    """
    below = [comparison for comparison in comparisons if comparison.difference < threshold]
    if not only_sure:
        return below
    if unsure := [comparison.benchmark for comparison in below if comparison.high is None]:
        raise ReportError(f"found too few rows of {', '.join(unsure)} for an interval, expected at least two clusters")
    return [comparison for comparison in below if comparison.high is not None and comparison.high < threshold]


def write_json(uri: str, a: Store, b: Store, comparisons: Sequence[Comparison]) -> None:
    """Write comparisons into a file, over an earlier one.

    Raises:
        StorageError: It cannot be written.
    """
    content = {"a": a.name(""), "b": b.name(""), "comparisons": [asdict(comparison) for comparison in comparisons]}
    write_file(uri, json.dumps(content, indent=2, ensure_ascii=False).encode(), a.settings)


def _with_gold(aligned: Sequence[Aligned]) -> Sequence[Aligned]:
    """Leave out what only a server can score, unless there is nothing else."""
    kept = [rows for rows in aligned if rows.has_gold]
    if kept and (hidden := [rows.benchmark for rows in aligned if not rows.has_gold]):
        log.warning("not compared, because their gold answers are hidden: %s", ", ".join(hidden))
    return kept or aligned


def _test(paired: Paired) -> tuple[str, float]:
    """Return a test and its p-value: an exact one where all scores are right or wrong, else a bootstrap."""
    if np.isin([paired.a, paired.b], (0.0, 1.0)).all():
        return MCNEMAR, mcnemar(paired.b, paired.a).p_value
    differences = paired.b - paired.a

    def difference(rows: NDArray[np.intp]) -> float:
        return float(differences[rows].mean())

    return BOOTSTRAP, bootstrap_p_value(difference, paired.clusters or paired.keys, seed=SEED)


def _compare(rows: Aligned, paired: Paired) -> Comparison:
    test, p = _test(paired)
    difference = paired_difference(paired.b, paired.a, paired.clusters)
    wins, losses, ties = tally(paired.b, paired.a)
    return Comparison(
        benchmark=rows.benchmark,
        rule=rows.rule,
        counted=paired.counted,
        n=difference.n,
        unscored=paired.unscored,
        a=_side(rows.a, paired.a, paired.clusters),
        b=_side(rows.b, paired.b, paired.clusters),
        difference=difference.mean,
        error=difference.error,
        low=difference.low,
        high=difference.high,
        clusters=None if paired.clusters is None else len(set(paired.clusters)),
        test=test,
        p=p,
        p_holm=p,
        wins=wins,
        losses=losses,
        ties=ties,
        lost=tuple(paired.keys[index] for index in np.flatnonzero(paired.b < paired.a)[:LOSSES_NAMED]),
        tokenizer=paired.tokenizer,
        detectable=None if difference.error is None else detectable_difference(difference.error),
    )


def _side(rows: pa.Table, scores: NDArray[np.float64], clusters: Sequence[str] | None) -> Side:
    mean = estimate(scores, clusters)
    models, presets = (
        tuple(sorted(str(value) for value in pc.unique(rows[name]).to_pylist() if value is not None))
        for name in ("model", "preset")
    )
    return Side(
        score=mean.mean,
        error=mean.error,
        models=models,
        presets=presets,
        failed=rows.num_rows - rows["error"].null_count,
        truncated=int(pc.sum(pc.equal(rows["parse_status"], "truncated")).as_py() or 0),
    )
