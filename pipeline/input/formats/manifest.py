"""Read JSONL, CSV, TSV and plain text: one row a line, or in CSV and TSV several where a quoted cell holds newlines.

A unit's rows lie in one stretch of bytes, found when the run is planned. Blank lines are no rows.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

import pyarrow as pa

from pipeline.input.formats.fields import note_types
from pipeline.input.formats.rows import (
    LIMIT_BYTES,
    Cutter,
    Fault,
    Index,
    RawRow,
    ReadError,
    RowError,
    is_sampled,
    parse_object,
)

if TYPE_CHECKING:
    from _csv import Reader as CellsReader

CHUNK_BYTES = 4 * 2**20
DELIMITERS = {"csv": ",", "tsv": "\t"}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read(data: bytes, format: Literal["jsonl", "csv", "tsv", "text"], header: Sequence[str]) -> list[RawRow]:
    """Read the rows of a stretch of lines; `header` names the cells of a CSV or TSV shard."""
    if format == "csv" or format == "tsv":
        return read_csv(data, header, DELIMITERS[format])
    return read_text(data) if format == "text" else read_jsonl(data)


def index_jsonl(file: BinaryIO, size: int, unit_rows: int) -> Index:
    """Go through a JSONL shard once and find its rows."""
    cutter = Cutter(unit_rows)
    fields: dict[str, pa.DataType] = {}
    position = 0
    for line in _lines(file):
        if line.strip():
            if is_sampled(cutter.num_rows):
                note_types(fields, _parse(line).values)
            cutter.add(position, position + len(line))
        position += len(line)
    return Index(cutter.close(), fields, _warnings(size))


def read_jsonl(data: bytes) -> list[RawRow]:
    """Read the rows of a stretch of lines; a line that is no JSON object is a row with a fault."""
    return [_parse(line) for line in data.split(b"\n") if line.strip()]


def index_csv(file: BinaryIO, size: int, unit_rows: int, delimiter: str = ",") -> Index:
    """Go through a CSV or TSV shard once and find its rows; every column is text."""
    rows = cells_of(file, delimiter)
    header = _header(next(rows, Cells([], 0, 0)).values)
    cutter = Cutter(unit_rows)
    for row in rows:
        cutter.add(row.first_byte, row.end_byte)
    return Index(cutter.close(), dict.fromkeys(header, pa.string()), _warnings(size), header=header)


def read_csv(data: bytes, header: Sequence[str], delimiter: str = ",") -> list[RawRow]:
    """Read the rows of a stretch of lines; a row with too few or too many cells has a fault."""
    return [_named(values, header) for values in cells(data, delimiter)]


def cells(data: bytes, delimiter: str) -> list[list[str]]:
    """Return the cells of each row in a stretch of lines."""
    text = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    return [values for values in _reader(text, delimiter) if values]


class Cells(NamedTuple):
    """A row of a CSV or TSV file, and the bytes that it stands in."""

    values: list[str]
    first_byte: int
    end_byte: int


def cells_of(file: BinaryIO, delimiter: str) -> Iterator[Cells]:
    """Go through a CSV or TSV file from its header on; lines without anything are no rows.

    Raises:
        ReadError: It cannot be taken apart into rows.
    """
    source = _CountedLines(_lines(file))
    reader = _reader(source, delimiter)
    first_byte = 0
    try:
        for values in reader:
            if source.has_ended:
                raise ReadError(f"a quote that opens in the row from byte {first_byte} on is never closed")
            if values:
                yield Cells(values, first_byte, source.num_bytes)
            first_byte = source.num_bytes
    except csv.Error as error:
        raise ReadError(f"not readable near line {reader.line_num}: {error}") from error


def _reader(lines: Iterable[str], delimiter: str) -> "CellsReader":
    # The module's own limit of 131,072 letters is less than an image in base64 has.
    csv.field_size_limit(max(csv.field_size_limit(), LIMIT_BYTES))
    return csv.reader(lines, delimiter=delimiter)


def index_text(file: BinaryIO, size: int, unit_rows: int) -> Index:
    """Go through a text shard once and find its rows, each with the one column `text`."""
    cutter = Cutter(unit_rows)
    position = 0
    for line in _lines(file):
        if not _is_blank(line):
            cutter.add(position, position + len(line))
        position += len(line)
    return Index(cutter.close(), {"text": pa.string()}, _warnings(size))


def read_text(data: bytes) -> list[RawRow]:
    """Read the rows of a stretch of lines as they are; a line that is not UTF-8 is a row with a fault."""
    return [_text(line.removesuffix(b"\r")) for line in data.split(b"\n") if not _is_blank(line)]


@dataclass
class _CountedLines:
    """Hand out lines as text and count the bytes handed out, so that the reader's own idea of a row decides its end."""

    lines: Iterator[bytes]
    num_bytes: int = 0
    has_ended: bool = False

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            is_first, self.num_bytes = self.num_bytes == 0, self.num_bytes + len(line)
            yield (line.removeprefix(BYTE_ORDER_MARK) if is_first else line).decode("utf-8", "surrogateescape")
        self.has_ended = True


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Give lines with their ends.

    Raises:
        ReadError: It is UTF-16, whose lines may pass for UTF-8 full of zeros, or a line is larger than any row is.
    """
    rest = b""
    is_first = True
    while chunk := file.read(CHUNK_BYTES):
        if is_first and chunk.startswith(UTF_16_MARKS):
            raise ReadError(f"found UTF-16 (it begins with {chunk[:2]!r}), expected UTF-8")
        is_first = False
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(rest) > LIMIT_BYTES:
            raise ReadError(f"found a line of more than {LIMIT_BYTES} bytes, expected one row a line")
    if rest:
        yield rest


def _parse(line: bytes) -> RawRow:
    try:
        return RawRow(values=parse_object(line.strip().removeprefix(BYTE_ORDER_MARK), "the line"))
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
    twice = sorted({name for name in names if names.count(name) > 1})
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
