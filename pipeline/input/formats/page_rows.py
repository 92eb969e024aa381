"""Read a unit's rows from its own pages of a large row group.

Each column that was noted is read by itself, as its pages begin at another row; fields of one nested column are put
together again. What several units need (a page that they share, a dictionary, a small column), a machine fetches once.
"""

from collections.abc import Container, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.input.formats.page_cuts import WHOLE_BYTES, Noted, read_note
from pipeline.input.formats.page_files import Piece, Stretch, open_pages, schema_of, window
from pipeline.input.formats.pages import parsed, read_at, read_footer
from pipeline.input.formats.thrift import get
from pipeline.storage.held_bytes import hold, let_go

# Rows before the first one are passed over so many at a time, where they are small.
PASSED_OVER_ROWS = 1024
BYTE_ARRAY = 6


def read_pages(
    file: BinaryIO, start: int, stop: int, note: Sequence[int], left_out: Container[str], name: str
) -> pa.Table:
    """Read rows.

    Args:
        file: The Parquet file.
        start: The first row, counted in the file.
        stop: One more than the last one.
        note: What the plan noted of their pages.
        left_out: Columns that are not wanted.
        name: Of the file, and of its version.
    """
    number, first, noted = read_note(note)
    reader = _Reader(file, name, number, start - first, stop - first)
    fields = [field for field in reader.schema if field.name not in left_out]
    columns = reader.columns({one.leaf: one for one in noted}, fields)
    reader.let_go()
    return pa.table(columns, pa.schema(fields))


class _Reader:
    """Reads the same rows of one column after the other."""

    def __init__(self, file: BinaryIO, name: str, number: int, start: int, stop: int) -> None:
        self._file, self._name, self._number, self._start, self._stop = file, name, number, start, stop
        self._footer = read_footer(file)
        self.schema = schema_of(self._footer)
        group = parsed(self._footer)[4][1][1][number]
        self._num_rows = int(get(group, 3))
        self._chunks = [get(chunk, 3) for chunk in group[1][1][1]]
        self._paths = [[part.decode() for part in get(chunk, 3)[1]] for chunk in self._chunks]
        self._done_with: list[str] = []

    def columns(self, noted: dict[int, Noted], fields: Sequence[pa.Field]) -> list[pa.Array]:
        """Return columns; what is large and was not noted is passed over from the row group's start."""
        names = [one.name for one in fields]
        leaves = [leaf for leaf, path in enumerate(self._paths) if path[0] in names]
        pieces = [self._whole(leaf) for leaf in leaves if leaf not in noted]
        parts: dict[str, list[pa.Array]] = {name: [] for name in names}
        whole = self._rows(pieces, 0, self._num_rows, is_small=all(map(_is_small, pieces))) if pieces else {}
        noted_here = [noted[leaf] for leaf in leaves if leaf in noted]
        read = [
            whole,
            *(self._rows([self._noted(one)], one.first_row, one.end_row, is_small=False) for one in noted_here),
        ]
        for found in read:
            for name, array in found.items():
                parts[name].append(array)
        return [_merged(parts[one.name], one.type) for one in fields]

    def let_go(self) -> None:
        """Let go of what no later unit needs."""
        for name in self._done_with:
            let_go(name)

    def _rows(self, pieces: Sequence[Piece], first_row: int, end_row: int, *, is_small: bool) -> dict[str, pa.Array]:
        columns = [".".join(self._paths[piece.leaf]) for piece in pieces]
        # Of values left in their dictionary, rows that are passed over take next to nothing.
        is_left = not is_small and all(
            piece.dictionary_bytes and get(self._chunks[piece.leaf], 1) == BYTE_ARRAY for piece in pieces
        )
        parquet = open_pages(self._footer, self._number, pieces, end_row - first_row, columns if is_left else ())
        wanted = self._stop - self._start
        batch_rows = max(wanted, PASSED_OVER_ROWS) if is_small or is_left else wanted
        found = rows_of(parquet, [0], columns, self._start - first_row, wanted, batch_rows)
        table = pa.Table.from_batches([batch for batch in found if len(batch)])
        return {name: pa.concat_arrays(table.column(name).chunks) for name in table.column_names}

    def _noted(self, one: Noted) -> Piece:
        is_alone = one.tail_first == one.end_byte
        has_head, has_tail = one.first_row < self._start, one.end_row > self._stop
        dictionary = self._shared(one.dictionary_first, one.dictionary_end, is_last=bool(one.is_last))
        if is_alone:
            read = self._shared if has_head or has_tail else self._own
            pages = read(one.first_byte, one.end_byte, is_last=not has_tail)
        else:
            head = (self._shared if has_head else self._own)(one.first_byte, one.head_end, is_last=True)
            tail = (self._shared if has_tail else self._own)(one.tail_first, one.end_byte, is_last=False)
            pages = [*head, *self._own(one.head_end, one.tail_first), *tail]
        return Piece(one.leaf, [*dictionary, *pages], sum(part.size for part in dictionary))

    def _whole(self, leaf: int) -> Piece:
        chunk = self._chunks[leaf]
        pages, dictionary = get(chunk, 9), get(chunk, 11)
        first = min(pages, dictionary) if dictionary else pages
        stretches = self._shared(first, first + get(chunk, 7), is_last=self._stop == self._num_rows)
        return Piece(leaf, stretches, pages - first)

    def _own(self, first_byte: int, end_byte: int, *, is_last: bool = True) -> list[Stretch]:
        """Return bytes that no other unit needs."""
        return [window(self._file, first_byte, end_byte)] if end_byte > first_byte else []

    def _shared(self, first_byte: int, end_byte: int, *, is_last: bool) -> list[Stretch]:
        """Return bytes that other units need as well, unless this is the last one that does."""
        if end_byte == first_byte:
            return []
        name, size = f"{self._name} {first_byte}-{end_byte}", end_byte - first_byte
        held = hold(name, size, lambda position, count: read_at(self._file, first_byte + position, count))
        if is_last:
            self._done_with.append(name)
        return [Stretch(held, size)] if held else self._own(first_byte, end_byte)


def is_splittable(kind: pa.DataType) -> bool:
    """Say whether a column can be put together of its fields, each of which was read by itself."""
    if pa.types.is_struct(kind):
        return all(is_splittable(one.type) for one in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_splittable(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return not pa.types.is_nested(kind) or (
        pa.types.is_fixed_size_list(kind) and not pa.types.is_nested(kind.value_type)
    )


def _is_small(piece: Piece) -> bool:
    return sum(part.size for part in piece.stretches) <= WHOLE_BYTES


def rows_of(
    parquet: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str], skipped: int, wanted: int, batch_rows: int
) -> list[pa.RecordBatch]:
    """Return rows of some row groups; what comes after them is not decoded, and what comes before is held in pieces.

    Args:
        parquet: The file.
        groups: Its row groups.
        columns: The columns.
        skipped: How many rows come before the first one.
        wanted: How many rows.
        batch_rows: So many rows are decoded at once.
    """
    found: list[pa.RecordBatch] = []
    for batch in parquet.iter_batches(batch_rows, row_groups=list(groups), columns=list(columns), use_threads=False):
        piece = batch.slice(min(skipped, len(batch)), wanted)
        skipped = max(0, skipped - len(batch))
        found.append(piece)
        wanted -= len(piece)
        if not wanted:
            break
    return found


def _merged(arrays: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    """Make one column of its fields, some of which were read by themselves."""
    if len(arrays) == 1 and arrays[0].type == kind:
        return arrays[0]
    if pa.types.is_struct(kind):
        named = [(part, {one.name for one in part.type}) for part in arrays]
        values = [
            _merged([part.field(one.name) for part, names in named if one.name in names], one.type) for one in kind
        ]
        return pa.StructArray.from_arrays(values, fields=list(kind), mask=arrays[0].is_null())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values = _merged([part.flatten() for part in arrays], kind.value_type)
        lengths = arrays[0].value_lengths().fill_null(0)
        offsets = pa.concat_arrays([pa.array([0], lengths.type), pc.cumulative_sum(lengths)])
        make = pa.ListArray if pa.types.is_list(kind) else pa.LargeListArray
        return make.from_arrays(offsets, values, kind, mask=arrays[0].is_null())
    (array,) = arrays
    return array.cast(kind)
