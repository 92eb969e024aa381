"""Read rows of an open Parquet shard, and go on where the rows before have ended.

Each column of a large row group is read by itself, as its pages begin at another row; fields of one nested column are
put together again. What several units need of it (a page, a dictionary, a small column), a machine fetches once.
"""

import contextlib
import struct
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.input.formats.fields import plain_values
from pipeline.input.formats.page_cuts import SHARED_BYTES, WHOLE_BYTES, Noted, note, packed_bytes, read_note
from pipeline.input.formats.page_files import Pages, Rows, footer_of_pages
from pipeline.input.formats.page_headers import Leaf
from pipeline.input.formats.page_streams import CannotStream
from pipeline.input.formats.pages import Chunk, fields_of_leaves, find_pages, leaf_of
from pipeline.input.formats.rows import LIMIT_BYTES
from pipeline.input.formats.thrift import NotThrift
from pipeline.storage.held_bytes import HeldFile
from pipeline.storage.ranged_file import without_buffer

# Of columns that are read from their start, so much is asked for at once; rows before the first one so many at a time.
BUFFER_BYTES, SMALL_BUFFER_BYTES = 4 * 2**20, 2**18
PASSED_OVER_ROWS, PASSED_OVER_LARGE_ROWS = 1024, 16


class Opened:
    """An open shard."""

    def __init__(self, file: BinaryIO, name: str = "") -> None:
        """Read the footer.

        Args:
            file: The shard.
            name: Of the shard, and of its version, where a machine's processes shall share what they fetch.
        """
        self._file = file = without_buffer(file)  # a page's header is much smaller than what a buffer reads
        self._shared = HeldFile(file, name) if name else None
        self._pages_in = cast(BinaryIO, self._shared or file)
        self._parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        self.metadata, self.schema = self._parquet.metadata, self._parquet.schema_arrow
        self._fields = fields_of_leaves(self.schema)
        # Readers, with the pages that they read of, where it is one column's.
        self._kept: dict[tuple[Any, ...], tuple[Rows, Pages | None]] = {}
        self._footers: dict[int, pq.FileMetaData] = {}
        self._chunks: dict[tuple[int, int], Chunk | None] = {}

    def read(self, start: int, stop: int, left_out: Container[str] = (), pages: Sequence[int] = ()) -> pa.Table:
        """Return rows; of columns that are left out no bytes are read.

        Args:
            start: The first row.
            stop: One more than the last one.
            left_out: Columns that are not wanted.
            pages: Where their pages lie, if the plan noted that.

        Raises:
            pa.ArrowException: Pages are broken.
        """
        fields = [field for field in self.schema if field.name not in left_out]
        with _damage(f"rows {start} to {stop}"):
            if not fields:
                return pa.table({"": pa.nulls(stop - start)}).select([])
            if not pages:
                return self._plain(fields, start, stop)
            group, first, noted = read_note(pages)
            return self._noted(fields, group, start - first, stop - first, {one.leaf: one for one in noted})

    def pick(self, column: str, rows: Sequence[int]) -> dict[int, Any]:
        """Return a column's values in some rows, by their numbers; no other rows are held."""
        fields = [self.schema.field(column)]
        found = {}
        for row in sorted(rows):
            with _damage(f"row {row}"):
                group, first = self._group_of(row)
                noted = self._noted_at(fields[0], group, row - first)
                if noted:
                    table = self._noted(fields, group, row - first, row - first + 1, noted)
                else:
                    table = self._plain(fields, row, row + 1)
            (found[row],) = plain_values(table.column(0))
        return found

    def _plain(self, fields: Sequence[pa.Field], start: int, stop: int) -> pa.Table:
        """Read rows of any row groups, from the start of the first."""
        group, first = self._group_of(start)
        leaves = self._leaves(fields)
        key = (None, *leaves)
        rows, _ = self._kept.pop(key, (None, None))
        if rows is None or not first <= rows.row <= start:
            rows = Rows(self._parquet, range(group, self.metadata.num_row_groups), leaves, first)
        table = rows.take(start, stop, max(stop - start, PASSED_OVER_LARGE_ROWS))
        self._keep(key, rows, None, table.nbytes)
        return table

    def _noted(
        self, fields: Sequence[pa.Field], group: int, start: int, stop: int, noted: Mapping[int, Noted]
    ) -> pa.Table:
        """Read rows of one row group; columns that were not noted from their start."""
        leaves = self._leaves(fields)
        parts: dict[str, list[pa.ChunkedArray]] = {field.name: [] for field in fields}
        num_bytes = 0
        others = [leaf for leaf in leaves if leaf not in noted]
        for some in [others, *([leaf] for leaf in leaves if leaf in noted)]:
            if not some:
                continue
            key = (group, *some)
            one = noted.get(some[0])
            if one is None:
                rows, pages, step = *self._from_start(key, start), self._step(group, some, stop - start)
            else:
                rows, pages, step = *self._from_pages(key, one, start, stop), max(stop - start, PASSED_OVER_LARGE_ROWS)
            table = rows.take(start, stop, step)
            num_bytes += table.nbytes
            self._keep(key, rows, pages, num_bytes)
            for name in table.column_names:
                parts[name].append(table.column(name))
        if self._shared and stop == self.metadata.row_group(group).num_rows:
            for leaf in map(self._leaf_of(group), noted):
                self._shared.let_go(leaf.first_byte, leaf.end_byte)
        return pa.table([_merged(parts[field.name], field.type) for field in fields], pa.schema(fields))

    def _from_start(self, key: tuple[int, ...], start: int) -> tuple[Rows, None]:
        rows, _ = self._kept.pop(key, (None, None))
        if rows is None or rows.row > start:
            parquet = pq.ParquetFile(
                self._pages_in, metadata=self.metadata, buffer_size=SMALL_BUFFER_BYTES, pre_buffer=False
            )
            rows = Rows(parquet, key[:1], key[1:], 0)
        return rows, None

    def _from_pages(self, key: tuple[int, ...], one: Noted, start: int, stop: int) -> tuple[Rows, Pages]:
        rows, pages = self._kept.pop(key, (None, None))
        if self._shared:
            self._shared.own = one.own(start, stop)
        if (
            rows is None
            or pages is None
            or not one.first_row <= rows.row <= start
            or pages.needs_dictionary != bool(one.dictionary_end)
        ):
            group, number = key
            if group not in self._footers:
                self._footers[group] = footer_of_pages(self._file, group)
            pages = Pages(self._pages_in, self._leaf_of(group)(number), one.place, start)
            rows = pages.rows(self._footers[group])
        pages.end_byte = one.end_byte
        return rows, pages

    def _keep(self, key: tuple[Any, ...], rows: Rows, pages: Pages | None, num_bytes: int) -> None:
        """Keep a reader for the rows after these, unless all readers together hold too much."""
        self._kept[key] = rows, pages
        if pa.total_allocated_bytes() - num_bytes > LIMIT_BYTES:
            self._kept.clear()

    def _group_of(self, row: int) -> tuple[int, int]:
        """Return the row group that holds a row, and its first row."""
        first = 0
        for group in range(self.metadata.num_row_groups):
            end = first + self.metadata.row_group(group).num_rows
            if row < end:
                return group, first
            first = end
        raise pa.ArrowInvalid(f"found {first} rows, expected row {row}")

    def _leaves(self, fields: Sequence[pa.Field]) -> list[int]:
        names = {field.name for field in fields}
        return [leaf for leaf, name in enumerate(self._fields) if name in names]

    def _leaf_of(self, group: int) -> Callable[[int], Leaf]:
        return lambda number: leaf_of(self.metadata, group, number)

    def _step(self, group: int, leaves: Sequence[int], wanted: int) -> int:
        found = self.metadata.row_group(group)
        is_small = all(found.column(leaf).total_compressed_size <= WHOLE_BYTES for leaf in leaves)
        return max(wanted, PASSED_OVER_ROWS) if is_small else wanted

    def _noted_at(self, field: pa.Field, group: int, row: int) -> dict[int, Noted]:
        """Return where the pages of a row lie; nothing where its row group is small, or its pages cannot be told."""
        if packed_bytes(self.metadata.row_group(group)) <= SHARED_BYTES or not is_splittable(field.type):
            return {}
        noted = {}
        for number in self._leaves([field]):
            key = group, number
            if key not in self._chunks:
                num_rows = self.metadata.row_group(group).num_rows
                self._chunks[key] = find_pages(self._file, self._leaf_of(group)(number), num_rows)
            chunk = self._chunks[key]
            if chunk and chunk.num_bytes > WHOLE_BYTES:
                noted[number] = note(chunk, row, row + 1)
        return noted


@contextlib.contextmanager
def _damage(what: str) -> Iterator[None]:
    try:
        yield
    except (NotThrift, CannotStream, IndexError, struct.error) as error:
        raise pa.ArrowInvalid(f"cannot find the pages of {what}: {error}") from error


def is_splittable(kind: pa.DataType) -> bool:
    """Say whether a column can be put together of its fields, each of which was read by itself."""
    if pa.types.is_struct(kind):
        return all(is_splittable(one.type) for one in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_splittable(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    # Lists of a fixed size are read from a row's beginning, and pages of bytes may begin within one.
    return not pa.types.is_nested(kind) or (
        pa.types.is_fixed_size_list(kind) and pa.types.is_primitive(kind.value_type)
    )


def _merged(columns: Sequence[pa.ChunkedArray], kind: pa.DataType) -> pa.ChunkedArray:
    """Make one column of its fields, some of which were read by themselves."""
    if len(columns) == 1 and columns[0].type == kind:
        return columns[0]
    return pa.chunked_array([_merged_arrays([column.combine_chunks() for column in columns], kind)])


def _merged_arrays(arrays: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    if len(arrays) == 1 and arrays[0].type == kind:
        return arrays[0]
    if pa.types.is_struct(kind):
        named = [(part, {one.name for one in part.type}) for part in arrays]
        values = [
            _merged_arrays([part.field(one.name) for part, names in named if one.name in names], one.type)
            for one in kind
        ]
        return pa.StructArray.from_arrays(values, fields=list(kind), mask=arrays[0].is_null())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values = _merged_arrays([part.flatten() for part in arrays], kind.value_type)
        lengths = arrays[0].value_lengths().fill_null(0)
        offsets = pa.concat_arrays([pa.array([0], lengths.type), pc.cumulative_sum(lengths)])
        make = pa.ListArray if pa.types.is_list(kind) else pa.LargeListArray
        return make.from_arrays(offsets, values, kind, mask=arrays[0].is_null())
    (array,) = arrays
    return array.cast(kind)
