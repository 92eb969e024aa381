"""Two outputs aligned row by row: they must have the same keys, the same content and the same rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation.outputs import benchmarks_of, dataset_of, first_few, read_frozen, read_rows, rows_of
from jobs.report.results import ReportError
from jobs.scoring.rules import has_row_scores
from pipeline import Store

COLUMNS = (
    "key", "benchmark", "cluster", "row_hash", "image_hash", "rule", "preset", "model", "answers", "response_clean",
    "parse_status", "score", "error",
)  # fmt: skip
# The settings of a vqa job that decide how answers are read, beside the rule.
READING = ("reasoning", "fallback")
TEXTS = ("answers", "response_clean")
HAS_GOLD = "has_gold"  # whether a row has gold answers, even if their texts are not kept


@dataclass(frozen=True)
class Aligned:
    """The rows of one benchmark in two outputs; row i of one is row i of the other.

    Attributes:
        benchmark: Its name.
        dataset: The data set that it is.
        rule: The rule that scored both.
        a: The rows of the first output, in its order.
        b: The rows of the second.
    """

    benchmark: str
    dataset: str
    rule: str
    a: pa.Table
    b: pa.Table

    @property
    def has_gold(self) -> bool:
        """Whether any row has gold answers, or could not be read, so that it may have had some."""
        return bool(pc.any(pc.or_(self.a[HAS_GOLD], self.a["row_hash"].is_null())).as_py())


def align(a: Store, b: Store, benchmarks: Sequence[str] = ()) -> list[Aligned]:
    """Align two outputs, benchmark by benchmark; without names, both must have the same benchmarks.

    Raises:
        ReportError: The outputs are not of the same rows, or not scored alike.
        StorageError: An output cannot be read.
    """
    rows_a, rows_b = (read_rows(output, COLUMNS, _without_texts) for output in (a, b))
    names = benchmarks or _common(benchmarks_of(rows_a), benchmarks_of(rows_b), (a.uri, b.uri))
    frozen = read_frozen(a)
    _refuse_other_reading(frozen, read_frozen(b))
    return [
        _aligned(name, dataset_of(frozen, name), rows_of(rows_a, name, a.uri), rows_of(rows_b, name, b.uri))
        for name in names
    ]


def _refuse_other_reading(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Refuse answers that were read with other settings, where the outputs have settings."""
    jobs = [frozen.get("settings", {}).get("job", {}) for frozen in (a, b)]
    for name in READING:
        values = [job.get(name) for job in jobs]
        if None not in values and values[0] != values[1]:
            raise ReportError(
                f"job.{name}: found {values[0]!r} in A and {values[1]!r} in B, expected the same on both sides; "
                "`triptych score` reads stored answers again"
            )


def _without_texts(rows: pa.Table) -> pa.Table:
    """Keep texts only of rows that have no score of their own; those of all would not fit memory."""
    unscored = [rule for rule in pc.unique(rows["rule"]).to_pylist() if rule and not has_row_scores(rule)]
    is_unscored = pc.is_in(rows["rule"], value_set=pa.array(unscored, pa.string()))
    rows = rows.append_column(HAS_GOLD, rows["answers"].is_valid())
    for name in TEXTS:
        kept = pc.if_else(is_unscored, rows[name], pa.nulls(rows.num_rows, rows[name].type))
        rows = rows.set_column(rows.column_names.index(name), name, kept)
    return rows


def _common(a: Sequence[str], b: Sequence[str], uris: tuple[str, str]) -> Sequence[str]:
    for these, others, uri in ((a, b, uris[0]), (b, a, uris[1])):
        if alone := [name for name in these if name not in others]:
            raise ReportError(
                f"found {first_few(alone)} only in {uri}, expected the same benchmarks on both sides; "
                "`--benchmark NAME` compares only those that it names"
            )
    return a


def _aligned(benchmark: str, dataset: str, a: pa.Table, b: pa.Table) -> Aligned:
    _refuse_other_keys(benchmark, a["key"], b["key"])
    b = b.take(pc.index_in(a["key"].combine_chunks(), value_set=b["key"].combine_chunks()))
    _refuse_other_content(benchmark, a, b)
    rules = [sorted(map(str, pc.unique(side["rule"]).to_pylist())) for side in (a, b)]
    if rules[0] != rules[1] or len(rules[0]) > 1:
        raise ReportError(
            f"{benchmark}: found scores by {first_few(rules[0])} in A and by {first_few(rules[1])} in B, expected one "
            "rule for both; `triptych score` scores stored answers again"
        )
    return Aligned(benchmark, dataset, rules[0][0], a, b)


def _refuse_other_keys(benchmark: str, a: pa.ChunkedArray, b: pa.ChunkedArray) -> None:
    sides = []
    for side, these, others in (("A", a, b), ("B", b, a)):
        only = these.filter(pc.invert(pc.is_in(these, value_set=others.combine_chunks()))).to_pylist()
        if only:
            sides.append(f"{len(only):,} only in {side} ({first_few(only)})")
    if sides:
        raise ReportError(
            f"{benchmark}: found {len(a):,} keys in A and {len(b):,} in B, {' and '.join(sides)}; "
            "expected the same rows on both sides"
        )


def _refuse_other_content(benchmark: str, a: pa.Table, b: pa.Table) -> None:
    # Scored from stored answers, a row's images were not read, and their hash is null.
    have_images = pc.and_(a["image_hash"].is_valid(), b["image_hash"].is_valid())
    differ = {
        # A row that could not be read has no hash, on either side.
        "question, answers or options": pc.not_equal(pc.fill_null(a["row_hash"], ""), pc.fill_null(b["row_hash"], "")),
        "images": pc.and_(have_images, pc.fill_null(pc.not_equal(a["image_hash"], b["image_hash"]), False)),
    }
    for what, rows in differ.items():
        if keys := a["key"].filter(rows).to_pylist():
            raise ReportError(
                f"{benchmark}: found {len(keys):,} rows whose {what} differ between A and B ({first_few(keys)}), "
                "expected the same data set on both sides"
            )
