"""What is compared of two outputs: a score a row, a question with all its rotations, or an image with its caption.

It knows scored rows side by side; which test their difference is put to, and what it means, is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.evaluation.align import Aligned
from jobs.report.results import ReportError

# Data sets whose questions come once for each rotation of their options.
CIRCULAR = "mmbench"

Counted = Literal["row", "question", "image"]


@dataclass(frozen=True)
class Paired:
    """Scores side by side.

    Attributes:
        counted: What one score belongs to.
        keys: Its names: a row's key, or a question's.
        a: The first output's scores.
        b: The second's.
        clusters: By what they hang together; None where each stands for itself.
        unscored: Rows without a score on both sides.
    """

    counted: Counted
    keys: Sequence[str]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    clusters: Sequence[str] | None
    unscored: int


def pair(rows: Aligned) -> Paired:
    """Put the scores of one benchmark side by side.

    Raises:
        ReportError: No row has a score, or one has it on one side only.
    """
    is_scored = _scored(rows)
    a, b = rows.a.filter(is_scored), rows.b.filter(is_scored)
    keys: list[str] = a["key"].to_pylist()
    paired = Paired("row", keys, _numbers(a), _numbers(b), _clusters(a["cluster"], keys), len(is_scored) - len(keys))
    return _by_question(paired) if rows.dataset.startswith(CIRCULAR) else paired


def _scored(rows: Aligned) -> pa.ChunkedArray:
    """Say which rows have a score; hidden gold answers leave none on either side."""
    is_scored = rows.a["score"].is_valid()
    differ = pc.not_equal(is_scored, rows.b["score"].is_valid())
    if keys := rows.a["key"].filter(differ).to_pylist():
        raise ReportError(
            f"{rows.benchmark}: found {len(keys):,} rows with a score on one side only, the first is {keys[0]}; "
            "expected both outputs to be scored by the same version"
        )
    if not pc.any(is_scored).as_py():
        raise ReportError(f"{rows.benchmark}: found no row with a score (rule {rows.rule}), expected gold answers")
    return is_scored


def _clusters(column: pa.ChunkedArray, keys: Sequence[str]) -> list[str] | None:
    """Name the cluster of each row; one that has none stands for itself."""
    if column.null_count == len(column):
        return None
    names = zip(column.to_pylist(), keys, strict=True)
    return [f"row {key}" if name is None else f"cluster {name}" for name, key in names]


def _by_question(paired: Paired) -> Paired:
    """Bring rotations together: a question is right only if each of them is."""
    clusters = paired.clusters or paired.keys
    a: dict[str, float] = {}
    b: dict[str, float] = {}
    for question, one, other in zip(clusters, paired.a.tolist(), paired.b.tolist(), strict=True):
        a[question] = min(one, a.get(question, one))
        b[question] = min(other, b.get(question, other))
    keys = [question.partition(" ")[2] for question in a]
    return Paired("question", keys, np.array([*a.values()]), np.array([*b.values()]), None, paired.unscored)


def _numbers(rows: pa.Table) -> NDArray[np.float64]:
    return np.asarray(rows["score"].to_numpy(), dtype=np.float64)
