"""Read a unit's rows from its own pages of a large row group.

Each column that was noted is read by itself, as its pages begin at another row; fields of one nested column are put
together again. What several units need (a page that they share, a dictionary, a small column), a machine fetches once.
"""

import io
from collections.abc import Container, Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.input.formats.page_cuts import WHOLE_BYTES, Noted, read_note
from pipeline.input.formats.page_files import Piece, Stretch, metadata_of, open_pages, source, window
from pipeline.input.formats.page_streams import CannotStream, rows_of_page
from pipeline.input.formats.pages import (
    DATA_PAGE_V2,
    PLAIN_DICTIONARY,
    RLE_DICTIONARY,
    parsed,
    read_at,
    read_footer,
    read_header,
)
from pipeline.input.formats.rows import LIMIT_BYTES
from pipeline.input.formats.thrift import NotThrift, Struct, get
from pipeline.storage.held_bytes import hold, let_go

# Rows before the first one are passed over so many at a time, where they are small.
PASSED_OVER_ROWS = 1024
BYTE_ARRAY = 6
# Values of a smaller dictionary are left in it until the rows that are passed over are gone.
LEFT_BYTES = 16 * 2**20
# Of chunks that are read from their start no more is asked for at once.
BUFFER_BYTES = 2**18


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

    Raises:
        pa.ArrowException: Pages are broken.
    """
    try:
        return _read_pages(file, start, stop, note, left_out, name)
    except (NotThrift, CannotStream, IndexError) as error:
        raise pa.ArrowInvalid(f"cannot find the pages of rows {start} to {stop}: {error}") from error


def _read_pages(
    file: BinaryIO, start: int, stop: int, note: Sequence[int], left_out: Container[str], name: str
) -> pa.Table:
    number, first, noted = read_note(note)
    reader = _Reader(file, name, number, start - first, stop - first)
    fields = [field for field in reader.schema if field.name not in left_out]
    columns = reader.columns({one.leaf: one for one in noted}, fields)
    reader.let_go()
    pa.default_memory_pool().release_unused()  # pages are larger than what is read of them
    return pa.table(columns, pa.schema(fields))


class _Reader:
    """Reads the same rows of one column after the other."""

    def __init__(self, file: BinaryIO, name: str, number: int, start: int, stop: int) -> None:
        self._file, self._name, self._number, self._start, self._stop = file, name, number, start, stop
        self._footer = read_footer(file)
        self._metadata = metadata_of(self._footer)
        self.schema = self._metadata.schema.to_arrow_schema()
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
        whole = self._from_start(pieces) if pieces else {}
        noted_here = [noted[leaf] for leaf in leaves if leaf in noted]
        read = [whole, *(self._rows(*self._noted(one), is_small=False, is_known=True) for one in noted_here)]
        for found in read:
            for name, array in found.items():
                parts[name].append(array)
        return [_merged(parts[one.name], one.type) for one in fields]

    def let_go(self) -> None:
        """Let go of what no later unit needs."""
        for name in self._done_with:
            let_go(name)

    def _from_start(self, pieces: Sequence[Piece]) -> dict[str, pa.Array]:
        is_small = all(sum(part.size for part in piece.stretches) <= WHOLE_BYTES for piece in pieces)
        return self._rows(pieces, 0, self._num_rows, is_small=is_small, is_known=is_small)

    def _rows(
        self, pieces: Sequence[Piece], first_row: int, end_row: int, *, is_small: bool, is_known: bool
    ) -> dict[str, pa.Array]:
        columns = [".".join(self._paths[piece.leaf]) for piece in pieces]
        # Of values left in a dictionary, rows that are passed over take next to nothing; a large one is held twice.
        is_left = not is_small and all(
            0 < piece.dictionary_bytes <= LEFT_BYTES and get(self._chunks[piece.leaf], 1) == BYTE_ARRAY
            for piece in pieces
        )
        num_rows, buffer_bytes = end_row - first_row, 0 if is_known else BUFFER_BYTES
        dictionaries = columns if is_left else []
        parquet = open_pages(self._footer, self._number, pieces, num_rows, dictionaries, buffer_bytes)
        wanted = self._stop - self._start
        batch_rows = max(wanted, PASSED_OVER_ROWS) if is_small or is_left else wanted
        found = rows_of(parquet, [0], columns, self._start - first_row, wanted, batch_rows)
        table = pa.Table.from_batches([batch for batch in found if len(batch)])
        return {name: pa.concat_arrays(table.column(name).chunks) for name in table.column_names}

    def _noted(self, one: Noted) -> tuple[list[Piece], int, int]:
        """Return the pages that were noted of a column, and which rows they hold."""
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
        if sum(part.size for part in [*dictionary, *pages]) > LIMIT_BYTES // 2 and (
            cut := self._cut(one, pages, dictionary)
        ):
            return cut
        piece = Piece(one.leaf, [*dictionary, *pages], sum(part.size for part in dictionary))
        return [piece], one.first_row, one.end_row

    def _cut(
        self, one: Noted, pages: Sequence[Stretch], dictionary: Sequence[Stretch]
    ) -> tuple[list[Piece], int, int] | None:
        """Put this unit's rows in place of pages that are too large to be unpacked; None where that cannot be done."""
        column = self._metadata.row_group(self._number).column(one.leaf)
        schema = self._metadata.schema.column(one.leaf)
        if column.physical_type != "BYTE_ARRAY" or schema.max_repetition_level:
            return None
        kind = (column.compression, schema.max_definition_level)
        kept: list[Stretch] = []
        row, first_row, last, is_shared = one.first_row, one.end_row, one.end_row, False
        try:
            of_all = [source(part, 0, part.size, *kind) for part in dictionary]
            held = sum(get(each.header, 2) for each in of_all)
            for part, first, end, header in _pages_in(pages):
                is_second = get(header, 1) == DATA_PAGE_V2
                values, encoding = (get(header, 8 if is_second else 5, field) for field in (1, 4 if is_second else 2))
                start, stop = max(0, self._start - row), min(values, self._stop - row)
                has_indices = encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY)
                if start >= stop:
                    pass
                elif get(header, 2) + has_indices * held > LIMIT_BYTES:
                    own = source(part, first, end, *kind)
                    data = rows_of_page(own, start, stop, of_all[0] if has_indices else None)
                    of_all = [source(each, 0, each.size, *kind) for each in dictionary]  # for the next page
                    kept.append(Stretch(io.BytesIO(data), len(data)))
                    first_row, last = min(first_row, row + start), row + stop
                else:
                    kept.append(window(part.file, first, end))
                    is_shared = is_shared or has_indices
                    first_row, last = min(first_row, row), row + values
                row += values
        except (CannotStream, NotThrift, TypeError, IndexError):
            return None  # Arrow says what is wrong with them, or can read them
        needed = dictionary if is_shared else []
        return [Piece(one.leaf, [*needed, *kept], sum(part.size for part in needed))], first_row, last

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


def _pages_in(stretches: Sequence[Stretch]) -> Iterator[tuple[Stretch, int, int, Struct]]:
    """Give each page with the stretch that it lies in, where it begins and ends there, and its header."""
    for part in stretches:
        position = 0
        while position < part.size:
            header, length = read_header(part.file, position, part.size)
            end = position + length + get(header, 3)
            yield part, position, end, header
            position = end


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
