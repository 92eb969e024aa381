"""Read JSONL, CSV, TSV and plain text: one row a line, or in CSV and TSV several where a quoted cell holds newlines.

A unit's rows lie in one stretch of bytes, found when the run is planned. Blank lines are no rows. Compressed shards are
read as what they hold.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO, Literal, NamedTuple

import pyarrow as pa

from pipeline.input.formats.cells import BYTE_ORDER_MARK, Cells, Dialect, cells, cells_of, lines_of
from pipeline.input.formats.chats import Sampled
from pipeline.input.formats.fields import note_types
from pipeline.input.formats.packed import Unpacked, is_packed
from pipeline.input.formats.rows import (
    Cutter,
    Fault,
    Index,
    RawRow,
    Readable,
    ReadError,
    RowError,
    Shape,
    is_sampled,
    parse_object,
)

LineFormat = Literal["jsonl", "csv", "tsv", "text"]


def read(data: bytes, format: LineFormat, header: Sequence[str], dialect: Dialect) -> list[RawRow]:
    """Read the rows of a stretch of lines; `header` names the cells of a CSV or TSV shard."""
    if format == "csv" or format == "tsv":
        return read_csv(data, header, dialect)
    return read_text(data) if format == "text" else read_jsonl(data)


def index(
    file: BinaryIO, size: int, unit_rows: int, format: LineFormat, dialect: Dialect, shapes: Collection[Shape] = ()
) -> Index:
    """Go through a shard of lines once, compressed or not, and find its rows; places are those in its content.

    Args:
        file: The shard.
        size: Its bytes.
        unit_rows: The most rows of a unit.
        format: How its lines are read.
        dialect: Of CSV and TSV.
        shapes: What rows of JSONL may be beyond their fields.

    Raises:
        ReadError: It cannot be taken apart.
    """
    packed = Unpacked(file) if is_packed(file) else None
    content = packed or file
    match format:
        case "jsonl":
            found = index_jsonl(content, size, unit_rows, with_chats="chat" in shapes)
        case "csv" | "tsv":
            found = index_csv(content, size, unit_rows, dialect)
        case "text":
            found = index_text(content, size, unit_rows)
    if packed is None:
        return found
    trouble = [f"{packed.trouble}; found {found.num_rows} rows before that"] if packed.trouble else []
    return replace(found, warnings=[*found.warnings, *trouble], is_packed=True)


def index_jsonl(file: Readable, size: int, unit_rows: int, *, with_chats: bool = False) -> Index:
    """Go through a JSONL shard once and find its rows."""
    cutter = Cutter(unit_rows)
    fields: dict[str, pa.DataType] = {}
    chats = Sampled(with_chats)
    for line in filled_lines_of(file):
        if is_sampled(cutter.num_rows):
            note_types(fields, chats.fields_of(_parse(line.data).values))
        cutter.add(line.first_byte, line.end_byte)
    return Index(cutter.close(), fields, _warnings(size), passed_over=chats.passed_over, shape=chats.shape)


class Line(NamedTuple):
    """A line of a JSONL file, and where it stands."""

    data: bytes
    first_byte: int
    end_byte: int


def filled_lines_of(file: Readable) -> Iterator[Line]:
    """Go through a JSONL file; blank lines are no rows.

    Raises:
        ReadError: It cannot be taken apart into lines.
    """
    position = 0
    for line in lines_of(file):
        if line.strip():
            yield Line(line, position, position + len(line))
        position += len(line)


def read_jsonl(data: bytes) -> list[RawRow]:
    """Read the rows of a stretch of lines; a line that is no JSON object is a row with a fault."""
    return [_parse(line) for line in data.splitlines() if line.strip()]


def index_csv(file: Readable, size: int, unit_rows: int, dialect: Dialect) -> Index:
    """Go through a CSV or TSV shard once and find its rows; every column is text."""
    rows = cells_of(file, dialect)
    header = _header(next(rows, Cells([], 0, 0)).values)
    cutter = Cutter(unit_rows)
    for row in rows:
        cutter.add(row.first_byte, row.end_byte)
    return Index(cutter.close(), dict.fromkeys(header, pa.string()), _warnings(size), header=header)


def read_csv(data: bytes, header: Sequence[str], dialect: Dialect) -> list[RawRow]:
    """Read the rows of a stretch of lines; a row with too few or too many cells has a fault."""
    return [_named(values, header) for values in cells(data, dialect)]


def index_text(file: Readable, size: int, unit_rows: int) -> Index:
    """Go through a text shard once and find its rows, each with the one column `text`."""
    cutter = Cutter(unit_rows)
    position = 0
    for line in lines_of(file):
        if not _is_blank(line):
            cutter.add(position, position + len(line))
        position += len(line)
    return Index(cutter.close(), {"text": pa.string()}, _warnings(size))


def read_text(data: bytes) -> list[RawRow]:
    """Read the rows of a stretch of lines as they are; a line that is not UTF-8 is a row with a fault."""
    return [_text(line) for line in data.splitlines() if not _is_blank(line)]


def _parse(line: bytes) -> RawRow:
    try:
        return RawRow(values=parse_object(line.strip(), "the line"))
    except RowError as error:
        return RawRow(fault=error.fault)


def _is_blank(line: bytes) -> bool:
    return not line.removeprefix(BYTE_ORDER_MARK).strip()


def _text(line: bytes) -> RawRow:
    try:
        return RawRow(values={"text": line.removeprefix(BYTE_ORDER_MARK).decode("utf-8")})
    except UnicodeDecodeError as error:
        return RawRow(fault=Fault("NotUtf8", f"the line is not UTF-8: {error.reason} at byte {error.start}"))


def _header(names: Sequence[str]) -> list[str]:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ReadError(f"the header names {', '.join(map(repr, twice))} more than once")
    if any("\udc80" <= character <= "\udcff" for name in names for character in name):
        raise ReadError(f"the header is not UTF-8: {names!r}")
    return list(names)


def _named(cells: Sequence[str], header: Sequence[str]) -> RawRow:
    row = RawRow(values=dict(zip(header, cells, strict=False)))
    if len(cells) != len(header):
        row.fault = RowError("WrongCells", f"found {len(cells)} cells, expected {len(header)} as in the header").fault
    return row


def _warnings(size: int) -> list[str]:
    return [] if size else ["has no bytes"]
