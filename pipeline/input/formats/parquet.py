"""Read Parquet shards by row number; images stand in them as bytes, as the hub's struct, or as paths.

The columns stay Arrow columns. Of a row group only what lies before the last row asked for is decoded.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.formats.rows import LIMIT_BYTES, Index, ReadError, Slice

BUFFER_BYTES = 4 * 2**20
PICKED_ROWS = 16
# Types that hold values of another, in any number or shared between rows.
OF_VALUES = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
    pa.types.is_dictionary,
)


def index(file: BinaryIO, unit_rows: int) -> Index:
    """Read a shard's footer and cut its rows."""
    parquet = pq.ParquetFile(file)
    twice = [name for name, count in Counter(parquet.schema_arrow.names).items() if count > 1]
    if twice:
        raise ReadError(f"several columns are called {', '.join(map(repr, twice))}; expected one of each name")
    rows = parquet.metadata.num_rows
    groups = [parquet.metadata.row_group(place) for place in range(parquet.metadata.num_row_groups)]
    row_bytes = max((-(-group.total_byte_size // group.num_rows) for group in groups if group.num_rows), default=1)
    step = max(1, min(unit_rows, LIMIT_BYTES // max(row_bytes, 1)))
    slices = [Slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    return Index(slices, {field.name: field.type for field in parquet.schema_arrow})


def read(file: BinaryIO, start: int, stop: int, left_out: Container[str] = ()) -> pa.Table:
    """Read the rows from `start` up to `stop`; of columns that are left out no bytes are read."""
    parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES)
    groups, skipped = _overlapping(parquet, start, stop)
    fields = [field for field in parquet.schema_arrow if field.name not in left_out]
    names = [field.name for field in fields]
    found: list[pa.RecordBatch] = []
    wanted = stop - start
    # Rows before the first one are passed over in batches: with a single row in each that would take seconds.
    batch_rows = max(wanted, PICKED_ROWS) if skipped else wanted
    for batch in parquet.iter_batches(batch_size=batch_rows, row_groups=groups, columns=names, use_threads=False):
        piece = batch.slice(min(skipped, len(batch)), wanted)
        skipped = max(0, skipped - len(batch))
        found.append(piece)
        wanted -= len(piece)
        if not wanted:
            break
    return pa.Table.from_batches(found, pa.schema(fields))


def pick(file: BinaryIO, column: str, rows: Sequence[int]) -> dict[int, Any]:
    """Return a column's values in some rows, by their numbers; only row groups with such rows are read.

    What is decoded of them is held a few rows at a time.
    """
    parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES)
    found: dict[int, Any] = {}
    first = 0
    for group in range(parquet.metadata.num_row_groups):
        stop = first + parquet.metadata.row_group(group).num_rows
        wanted = sorted(row for row in rows if first <= row < stop)
        if wanted:
            batches = parquet.iter_batches(PICKED_ROWS, row_groups=[group], columns=[column], use_threads=False)
            found |= _picked(batches, column, first, wanted)
        first = stop
    return found


def _picked(batches: Iterable[pa.RecordBatch], column: str, first: int, wanted: Sequence[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for batch in batches:
        here = [row for row in wanted if first <= row < first + len(batch)]
        found |= {row: batch.column(column)[row - first].as_py() for row in here}
        first += len(batch)
        if first > wanted[-1]:
            break
    return found


def fields(file: BinaryIO) -> dict[str, pa.DataType]:
    """Return a shard's columns and their types."""
    return {field.name: field.type for field in pq.ParquetFile(file).schema_arrow}


def column(file: BinaryIO, name: str) -> Sequence[Any]:
    """Return all values of a column."""
    values: list[Any] = pq.ParquetFile(file).read(columns=[name], use_threads=False).column(name).to_pylist()
    return values


def keys(file: BinaryIO, column: str, start: int, stop: int) -> Sequence[Any]:
    """Return a column's values from one row up to another; where its pages are broken, nulls."""
    parquet = pq.ParquetFile(file)
    if column not in parquet.schema_arrow.names:
        return []
    found: list[Any] = []
    for group in range(parquet.metadata.num_row_groups):
        try:
            found += parquet.read_row_group(group, columns=[column]).column(column).to_pylist()
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            found += [None] * parquet.metadata.row_group(group).num_rows
    return found[start:stop]


def is_damage(error: BaseException | None) -> bool:
    """Say whether Arrow complains of what it read, and not the store of being asked."""
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def image_type_fault(kind: pa.DataType) -> str | None:
    """Say what an image column should hold if it cannot be one; None if it can."""
    if isinstance(kind, pa.BaseExtensionType):
        return image_type_fault(kind.storage_type)
    if any(is_of_values(kind) for is_of_values in OF_VALUES):
        return image_type_fault(kind.value_type)
    if pa.types.is_struct(kind):
        names = {field.name for field in kind}
        known = {"bytes", "path", "url", "image_url"}
        return None if names & known else "a struct with `bytes` and `path`, or with `url`"
    is_bytes = "binary" in str(kind)  # there are four kinds of it
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return None if is_bytes or is_text or pa.types.is_null(kind) else "bytes, struct<bytes, path>, a path, or a list"


def _overlapping(parquet: pq.ParquetFile, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that hold the rows, and how many rows of the first come before them."""
    groups: list[int] = []
    before, skipped = 0, 0
    for place in range(parquet.metadata.num_row_groups):
        after = before + parquet.metadata.row_group(place).num_rows
        if before < stop and after > start:
            if not groups:
                skipped = start - before
            groups.append(place)
        before = after
    return groups, skipped
