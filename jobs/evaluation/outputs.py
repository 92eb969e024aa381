"""What the command line names: folders of scored rows, which a run or `triptych score` has left, and single files.

It reads and selects rows. What is counted or compared, other files decide.
"""

import posixpath
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.part_files import OpenPart, open_parts
from jobs.report.results import ReportError
from pipeline import NotFound, StorageSettings, Store, ledger, look_at

T = TypeVar("T", bound=Hashable)
# Keys, ids, rules and benchmarks named in a message.
MOST_NAMED = 3


def open_scored_parts(output: Store, names: Sequence[str]) -> Iterator[OpenPart]:
    """Open the parts of an output, one after the other.

    Raises:
        ReportError: A part lacks one of the named columns.
        StorageError: A part cannot be read.
    """
    for part in open_parts(output, look_at(output).files):
        if missing := [name for name in names if name not in part.schema.names]:
            raise ReportError(
                f"found no column {', '.join(missing)} in {output.name(part.path)}, "
                "expected the output of a vqa run or of `triptych score`"
            )
        yield part


def read_rows(
    output: Store, names: Sequence[str], reduce: Callable[[pa.Table], pa.Table] = lambda rows: rows
) -> pa.Table:
    """Read some columns of all parts of an output, in the order of its parts.

    Args:
        output: The output.
        names: The columns.
        reduce: Makes the rows of each part smaller before the next one is read.

    Raises:
        ReportError: There are no parts, or they lack a column.
        StorageError: The output cannot be read.
    """
    tables = [reduce(part.read(names)) for part in open_scored_parts(output, names)]
    if not tables:
        raise ReportError(f"found no part-*.parquet in {output.name('')}, expected scored rows")
    # Each part has a dictionary of its own.
    return pa.concat_tables(tables).combine_chunks()


def read_frozen(output: Store) -> Mapping[str, Any]:
    """Return what a run, or `triptych score`, has frozen in an output; empty where there are only parts.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        return ledger.read_settings(output)
    except NotFound:
        return {}


def dataset_of(frozen: Mapping[str, Any], benchmark: str) -> str:
    """Return the data set that a benchmark's rows are from: as the settings say, else the one of the same name."""
    benchmarks = frozen.get("settings", {}).get("job", {}).get("benchmarks") or {}
    return str((benchmarks.get(benchmark) or {}).get("dataset") or benchmark)


def benchmarks_of(rows: pa.Table) -> list[str]:
    """Return the benchmarks that rows belong to, in the order in which they come."""
    return [str(name) for name in pc.unique(rows["benchmark"]).to_pylist()]


def rows_of(rows: pa.Table, benchmark: str, uri: str) -> pa.Table:
    """Return the rows of one benchmark; messages name the uri that they are from.

    Raises:
        ReportError: There are none, or two of them have the same key.
    """
    selected = rows.filter(pc.equal(rows["benchmark"], benchmark))
    if not selected.num_rows:
        raise ReportError(f"found {first_few(benchmarks_of(rows))} in {uri}, expected rows of {benchmark}")
    counts = pc.value_counts(selected["key"])
    if twice := counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist():
        raise ReportError(
            f"found {len(twice):,} keys more than once in {benchmark} in {uri} ({first_few(twice)}), expected each once"
        )
    return selected


def repeated(values: Iterable[T]) -> list[T]:
    """Return the values that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def first_few(values: Sequence[object]) -> str:
    """Name the first few of some values, and how many more there are."""
    shown = ", ".join(str(value) for value in values[:MOST_NAMED])
    return f"{shown} and {len(values) - MOST_NAMED:,} more" if len(values) > MOST_NAMED else shown


def read_file(uri: str, storage: StorageSettings) -> bytes:
    """Read a single file.

    Raises:
        StorageError: It cannot be read.
    """
    folder, name = posixpath.split(uri)
    return Store(folder or ".", storage).read(name)


def write_file(uri: str, data: bytes, storage: StorageSettings) -> str:
    """Write a single file in one step, over an earlier one; return its full uri.

    Raises:
        StorageError: It cannot be written.
    """
    folder, name = posixpath.split(uri)
    store = Store(folder or ".", storage)
    store.replace(name, data)
    return store.name(name)
