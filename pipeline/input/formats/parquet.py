"""Read Parquet shards by row number; images stand in them as bytes, as the hub's struct, or as paths.

The columns stay Arrow columns. Of a large row group, pages are read by those units that have rows in them; of a small
one, what lies before the last row asked for. Nothing reads ahead: a row group may be larger than memory.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.formats.fields import plain_values
from pipeline.input.formats.page_cuts import is_large, look_at
from pipeline.input.formats.page_rows import Opened as Opened
from pipeline.input.formats.page_rows import is_splittable
from pipeline.input.formats.pages import fields_of_leaves
from pipeline.input.formats.rows import LIMIT_BYTES, Index, ReadError, Slice
from pipeline.storage.ranged_file import without_buffer

BUFFER_BYTES = 4 * 2**20
# Types that hold values of another, in any number or shared between rows.
OF_VALUES = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
    pa.types.is_dictionary,
)


def index(file: BinaryIO, unit_rows: int, limit: int | None = None) -> Index:
    """Read a shard's footer and cut its rows; of large row groups the pages' headers are read, too.

    Args:
        file: The shard.
        unit_rows: The most rows of a slice.
        limit: No more rows are wanted.
    """
    file = without_buffer(file)
    parquet = pq.ParquetFile(file, pre_buffer=False)
    twice = [name for name, count in Counter(parquet.schema_arrow.names).items() if count > 1]
    if twice:
        raise ReadError(f"several columns are called {', '.join(map(repr, twice))}; expected one of each name")
    slices, warnings = _slices(file, parquet, unit_rows, limit)
    return Index(slices, {field.name: field.type for field in parquet.schema_arrow}, warnings)


def _slices(
    file: BinaryIO, parquet: pq.ParquetFile, unit_rows: int, limit: int | None
) -> tuple[list[Slice], list[str]]:
    """Cut rows: within a large row group by its pages, within all row groups between two such as if they were one."""
    metadata = parquet.metadata
    schema = parquet.schema_arrow
    whole = {leaf for leaf, name in enumerate(fields_of_leaves(schema)) if not is_splittable(schema.field(name).type)}
    slices: list[Slice] = []
    unknown: set[str] = set()
    small: list[pq.RowGroupMetaData] = []
    first = start = 0  # of this row group; of the small ones before it
    for place in range(metadata.num_row_groups):
        found = metadata.row_group(place)
        if limit is not None and first >= limit:
            break
        group = look_at(file, metadata, place, unit_rows, whole) if is_large(metadata, place, unit_rows) else None
        if group is not None and (found.num_rows > unit_rows or group.most_bytes > LIMIT_BYTES // 2):
            slices += _even(small, start, unit_rows)
            slices += group.cut(unit_rows, first, found.num_rows if limit is None else limit - first)
            unknown |= set(group.unknown)
            small, start = [], first + found.num_rows
        else:
            small.append(found)
        first += found.num_rows
    slices += _even(small, start, unit_rows)
    warnings = [
        f"column {name!r} cannot be read by its pages, so units read it from the start of their row group; smaller row "
        "groups are read faster"
        for name in sorted(unknown)
    ]
    return slices, warnings


def _even(groups: Sequence[pq.RowGroupMetaData], first: int, unit_rows: int) -> list[Slice]:
    """Cut the rows of consecutive row groups evenly."""
    end = first + sum(group.num_rows for group in groups)
    row_bytes = max((-(-group.total_byte_size // group.num_rows) for group in groups if group.num_rows), default=1)
    step = max(1, min(unit_rows, LIMIT_BYTES // max(row_bytes, 1)))
    return [Slice(start, min(start + step, end)) for start in range(first, end, step)]


def fields(file: BinaryIO) -> dict[str, pa.DataType]:
    """Return a shard's columns and their types."""
    return {field.name: field.type for field in pq.ParquetFile(file, pre_buffer=False).schema_arrow}


def column(file: BinaryIO, name: str) -> Sequence[Any]:
    """Return all values of a column."""
    parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    batches = parquet.iter_batches(columns=[name], use_threads=False)
    return [value for batch in batches for value in plain_values(batch.column(0))]


def keys(file: BinaryIO, column: str, start: int, stop: int) -> Sequence[Any]:
    """Return a column's values from one row up to another; where its pages are broken, nulls."""
    parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    if column not in parquet.schema_arrow.names:
        return []
    groups, skipped = _overlapping(parquet, start, stop)
    found: list[Any] = []
    for group in groups:
        values: list[Any] = []
        try:
            for batch in parquet.iter_batches(row_groups=[group], columns=[column], use_threads=False):
                values += plain_values(batch.column(0))
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
        found += values + [None] * (parquet.metadata.row_group(group).num_rows - len(values))
    return found[skipped : skipped + stop - start]


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
