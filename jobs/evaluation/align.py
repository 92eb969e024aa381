"""Two outputs brought together row by row: the same keys, the same content, the same rule, or nothing is compared.

It knows scored rows; what their difference means is not known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation.rows import benchmarks_of, dataset_of, named, of_benchmark, origin, read_rows
from jobs.report.results import ReportError
from jobs.scoring.rules import has_row_scores
from pipeline import Store

COLUMNS = (
    "key",
    "benchmark",
    "cluster",
    "row_hash",
    "image_hash",
    "rule",
    "preset",
    "model",
    "answers",
    "response_clean",
    "parse_status",
    "score",
    "error",
)

# What of a run's settings decides how answers are read, beside the rule.
READING = ("reasoning", "fallback")
TEXTS = ("answers", "response_clean")
HAS_GOLD = "has_gold"  # whether there were gold answers, even if their texts are not kept


@dataclass(frozen=True)
class Aligned:
    """The rows of one benchmark in two outputs; row i of one is row i of the other.

    Attributes:
        benchmark: Its name.
        dataset: Which data set it is.
        rule: What both were scored by.
        a: The rows of the first output, in its order.
        b: Those of the second.
    """

    benchmark: str
    dataset: str
    rule: str
    a: pa.Table
    b: pa.Table

    @property
    def has_gold(self) -> bool:
        """Whether a row has gold answers, or none could be read, so that nobody knows."""
        is_read = self.a["row_hash"].is_valid()
        return bool(pc.any(pc.or_(self.a[HAS_GOLD], pc.invert(is_read))).as_py())


def align(a: Store, b: Store, benchmarks: Sequence[str] = ()) -> list[Aligned]:
    """Bring two outputs together, benchmark by benchmark.

    Args:
        a: The folder of the first; what is measured against.
        b: The folder of the second.
        benchmarks: Those to look at; none means all, which must then be the same on both sides.

    Raises:
        ReportError: The outputs are not of the same rows, or not scored alike.
        StorageError: An output cannot be read.
    """
    tables = (read_rows(a, COLUMNS, _without_texts), read_rows(b, COLUMNS, _without_texts))
    names = benchmarks or _common(benchmarks_of(tables[0]), benchmarks_of(tables[1]), (a.uri, b.uri))
    known = origin(a)
    _refuse_other_reading(known, origin(b))
    return [
        _aligned(
            name,
            dataset_of(known, name),
            of_benchmark(tables[0], name, a.uri),
            of_benchmark(tables[1], name, b.uri),
        )
        for name in names
    ]


def _refuse_other_reading(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Refuse outputs whose answers were read otherwise, as far as their settings are known, though by one rule."""
    jobs = [one.get("settings", {}).get("job", {}) for one in (a, b)]
    for name in READING:
        said = [job.get(name) for job in jobs]
        if None not in said and said[0] != said[1]:
            raise ReportError(
                f"job.{name}: found {said[0]!r} in A and {said[1]!r} in B, expected answers that were read alike; "
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
                f"found {named(alone)} only in {uri}, expected the same benchmarks on both sides; "
                "`--benchmark NAME` compares those that it names"
            )
    return a


def _aligned(benchmark: str, dataset: str, a: pa.Table, b: pa.Table) -> Aligned:
    _refuse_other_keys(benchmark, a["key"], b["key"])
    b = b.take(pc.index_in(a["key"].combine_chunks(), value_set=b["key"].combine_chunks()))
    _refuse_other_content(benchmark, a, b)
    rules = [sorted(map(str, pc.unique(side["rule"]).to_pylist())) for side in (a, b)]
    if rules[0] != rules[1] or len(rules[0]) > 1:
        raise ReportError(
            f"{benchmark}: found scores by {named(rules[0])} in A and by {named(rules[1])} in B, expected one rule for "
            "both; `triptych score` scores stored answers again"
        )
    return Aligned(benchmark, dataset, rules[0][0], a, b)


def _refuse_other_keys(benchmark: str, a: pa.ChunkedArray, b: pa.ChunkedArray) -> None:
    only = [
        these.filter(pc.invert(pc.is_in(these, value_set=others.combine_chunks()))).to_pylist()
        for these, others in ((a, b), (b, a))
    ]
    if only[0] or only[1]:
        sides = [f"{len(keys):,} only in {side} ({named(keys)})" for side, keys in zip("AB", only, strict=True) if keys]
        raise ReportError(
            f"{benchmark}: found {len(a):,} keys in A and {len(b):,} in B, {' and '.join(sides)}; "
            "expected the same rows on both sides"
        )


def _refuse_other_content(benchmark: str, a: pa.Table, b: pa.Table) -> None:
    # Scored from stored answers, a row's images were not looked at, and their hash is null.
    both = pc.and_(a["image_hash"].is_valid(), b["image_hash"].is_valid())
    differ = {
        # Rows that could not even be read have none, which then is so on both sides.
        "question, answers or options": pc.not_equal(pc.fill_null(a["row_hash"], ""), pc.fill_null(b["row_hash"], "")),
        "images": pc.and_(both, pc.fill_null(pc.not_equal(a["image_hash"], b["image_hash"]), False)),
    }
    for what, rows in differ.items():
        if keys := a["key"].filter(rows).to_pylist():
            raise ReportError(
                f"{benchmark}: found {len(keys):,} rows whose {what} differ between A and B ({named(keys)}), "
                "expected the same data set on both sides"
            )
