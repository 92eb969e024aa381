"""The scores of two outputs, paired: of each row, each question with all its rotations, or each image's captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.benchmarks.datasets import BENCHMARKS
from jobs.evaluation.align import Aligned
from jobs.report.results import ReportError
from jobs.scoring.captions.metrics import CaptionScores, caption_metrics
from jobs.scoring.rules import has_row_scores
from jobs.scoring.rules.mmbench import question_of

Counted = Literal["row", "question", "image"]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """Scores side by side.

    Attributes:
        counted: What has one score.
        keys: The key of each score's row, or the name of its question.
        a: The first output's scores.
        b: The second output's scores.
        clusters: The cluster of each score; None where all are independent.
        unscored: Rows without a score on either side.
        tokenizer: The tokeniser that split captions into words; published numbers use `ptb`.
    """

    counted: Counted
    keys: Sequence[str]
    a: Numbers
    b: Numbers
    clusters: Sequence[str] | None
    unscored: int
    tokenizer: str | None = None


def pair(rows: Aligned) -> Paired:
    """Pair the scores of one benchmark.

    POPE is compared by right and wrong answers, not by F1; captions by each image's CIDEr-D, with the word frequencies
    of the whole set's references, which are the same on both sides.

    Raises:
        ReportError: No row has a score, or one has it on one side only.
    """
    if not has_row_scores(rows.rule):
        return _by_image(rows)
    a, b = _scores(rows.a), _scores(rows.b)
    is_scored = _scored(rows, a, b)
    keys: list[str] = rows.a["key"].filter(is_scored).to_pylist()
    clusters = rows.a["cluster"].filter(is_scored).to_pylist()
    unscored = len(is_scored) - len(keys)
    aggregation = BENCHMARKS[rows.dataset].aggregation if rows.dataset in BENCHMARKS else None
    if aggregation is not None and aggregation.merge is not None:
        return _by_question(keys, clusters, a[is_scored], b[is_scored], unscored)
    return Paired("row", keys, a[is_scored], b[is_scored], _cluster_names(clusters, keys), unscored)


def _scores(rows: pa.Table) -> Numbers:
    """Return each row's score; NaN where there are no gold answers.

    A row that could not even be read is wrong where other rows have gold answers, as it is in reports.
    """
    scores = np.array(pc.fill_null(rows["score"], float("nan")), np.float64)
    if np.isnan(scores).all():
        return scores
    is_lost = np.array(rows["row_hash"].is_null(), np.bool_)
    return np.where(is_lost & np.isnan(scores), 0.0, scores)


def _scored(rows: Aligned, a: Numbers, b: Numbers) -> NDArray[np.bool_]:
    """Return which rows have a score; hidden gold answers leave none on either side."""
    is_scored: NDArray[np.bool_] = ~np.isnan(a)
    differ = np.flatnonzero(is_scored != ~np.isnan(b))
    if len(differ):
        first = rows.a["key"][int(differ[0])]
        raise ReportError(
            f"{rows.benchmark}: found {len(differ):,} rows with a score on one side only, the first is {first}; "
            "expected both outputs to be scored by the same version"
        )
    if not is_scored.any():
        raise ReportError(f"{rows.benchmark}: found no row with a score (rule {rows.rule}), expected gold answers")
    return is_scored


def _cluster_names(clusters: Sequence[str | None], keys: Sequence[str]) -> list[str] | None:
    """Name the cluster of each row; a row without one is a cluster of its own."""
    if all(name is None for name in clusters):
        return None
    pairs = zip(clusters, keys, strict=True)
    return [f"row {key}" if name is None else f"cluster {name}" for name, key in pairs]


def _by_question(keys: Sequence[str], clusters: Sequence[str | None], a: Numbers, b: Numbers, unscored: int) -> Paired:
    """Join the rotations of each question: it is right only if each of them is."""
    scores: dict[str, tuple[float, float]] = {}
    for key, cluster, *pair in zip(keys, clusters, a.tolist(), b.tolist(), strict=True):
        # A row that could not be read names no question; its key does, if that is an index.
        question = cluster or (str(question_of(int(key))) if key.isdecimal() else key)
        before = scores.get(question, pair)
        scores[question] = min(pair[0], before[0]), min(pair[1], before[1])
    joined = np.array([*scores.values()])
    return Paired("question", [*scores], joined[:, 0], joined[:, 1], None, unscored)


def _by_image(rows: Aligned) -> Paired:
    has_gold = pc.greater(pc.fill_null(pc.list_value_length(rows.a["answers"]), 0), 0)
    a, b = rows.a.filter(has_gold), rows.b.filter(has_gold)
    if not a.num_rows:
        raise ReportError(f"{rows.benchmark}: found no image with reference captions, expected some to compare with")
    keys: list[str] = a["key"].to_pylist()
    metrics = [_caption_scores(side) for side in (a, b)]
    ciders = [np.array([scores.images[key].cider_d for key in keys]) for scores in metrics]
    return Paired("image", keys, ciders[0], ciders[1], None, rows.a.num_rows - len(keys), metrics[0].tokenizer)


def _caption_scores(rows: pa.Table) -> CaptionScores:
    keys = rows["key"].to_pylist()
    captions = pc.fill_null(rows["response_clean"], "").to_pylist()
    references = rows["answers"].to_pylist()
    return caption_metrics(
        dict(zip(keys, captions, strict=True)), dict(zip(keys, references, strict=True)), meteor=False
    )
