"""Scored rows, read back from the folder where a run or `triptych score` has left them, only the columns asked for.

It knows parts and names of columns; what is counted, compared or written of the rows, others know.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.parts import open_parts
from jobs.report.results import ReportError
from pipeline import NotFound, Store, ledger

# Keys, rules and benchmarks named in a message.
MOST_NAMED = 3


def read_rows(
    store: Store, names: Sequence[str], narrowed: Callable[[pa.Table], pa.Table] = lambda rows: rows
) -> pa.Table:
    """Read some columns of all parts of an output, in the order of its parts.

    Args:
        store: The output.
        names: The columns.
        narrowed: Makes less of the rows of each part before the next one is read.

    Raises:
        ReportError: There are no parts, or they lack a column.
        StorageError: The output cannot be read.
    """
    tables = []
    for part in open_parts(store):
        if missing := [name for name in names if name not in part.schema.names]:
            raise ReportError(
                f"found no column {', '.join(missing)} in {store.name(part.path)}, "
                "expected the output of a vqa run or of `triptych score`"
            )
        tables.append(narrowed(part.read(names)))
    if not tables:
        raise ReportError(f"found no part-*.parquet in {store.name('')}, expected scored rows")
    # Columns of words come back with words of their own for each part.
    return pa.concat_tables(tables).combine_chunks()


def origin(store: Store) -> Mapping[str, Any]:
    """Return what a run, or `triptych score`, has frozen in an output; empty where there are but parts.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        return ledger.read_settings(store)
    except NotFound:
        return {}


def dataset_of(origin: Mapping[str, Any], benchmark: str) -> str:
    """Return which data set the rows of a benchmark are of; where nothing says so, it is called so itself."""
    asked = origin.get("settings", {}).get("job", {}).get("benchmarks") or {}
    return str((asked.get(benchmark) or {}).get("dataset") or benchmark)


def benchmarks_of(rows: pa.Table) -> list[str]:
    """Return the benchmarks that rows belong to, in the order in which they come."""
    return [str(name) for name in pc.unique(rows["benchmark"]).to_pylist()]


def of_benchmark(rows: pa.Table, benchmark: str, uri: str) -> pa.Table:
    """Return the rows of one benchmark.

    Raises:
        ReportError: There are none, or two of them have the same key.
    """
    found = rows.filter(pc.equal(rows["benchmark"], benchmark))
    if not found.num_rows:
        raise ReportError(f"found {named(benchmarks_of(rows))} in {uri}, expected rows of {benchmark}")
    refuse_duplicates(found["key"], f"{benchmark} in {uri}")
    return found


def refuse_duplicates(keys: pa.ChunkedArray, where: str) -> None:
    """Refuse keys that stand for two rows: one would count twice, or it would be unclear which is meant.

    Raises:
        ReportError: It names some of them.
    """
    counts = pc.value_counts(keys)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    if twice:
        raise ReportError(f"found {len(twice):,} keys more than once in {where} ({named(twice)}), expected each once")


def named(values: Sequence[object]) -> str:
    """Name the first few of some values, and say how many more there are."""
    shown = ", ".join(str(value) for value in values[:MOST_NAMED])
    return f"{shown} and {len(values) - MOST_NAMED:,} more" if len(values) > MOST_NAMED else shown
