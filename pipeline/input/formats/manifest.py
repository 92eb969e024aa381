"""Read JSONL, CSV, TSV and plain text: one row a line, or in CSV and TSV several where a quoted cell holds newlines.

A unit's rows lie in one stretch of bytes, found when the run is planned. Blank lines are no rows. Compressed shards are
read as what they hold.
"""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

import pyarrow as pa

from pipeline.input.formats.chats import unfolded_or_none
from pipeline.input.formats.fields import note_types
from pipeline.input.formats.packed import Unpacked, is_packed
from pipeline.input.formats.rows import (
    LIMIT_BYTES,
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

if TYPE_CHECKING:
    from _csv import Reader as CellsReader

LineFormat = Literal["jsonl", "csv", "tsv", "text"]
CHUNK_BYTES = 4 * 2**20
DELIMITERS = {"csv": ",", "tsv": "\t"}
# What Excel writes as the first line of a CSV, to say which letter stands between cells.
SEPARATOR = re.compile(rb"(?:\xef\xbb\xbf)?sep=(.)\r?\n?", re.IGNORECASE)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Dialect:
    """How the cells of a line stand in a CSV or TSV file.

    Attributes:
        delimiter: The letter between them.
        quotes: Whether a cell in quotes may hold delimiters and newlines. None: it may, but a file in which one such
            cell holds what look like whole rows is refused, since there quotes may be letters of the text.
    """

    delimiter: str
    quotes: bool | None


def dialect_of(format: str, delimiter: str | None = None, quotes: bool | None = None) -> Dialect:
    """Return the dialect of a format; in CSV quotes are quotes unless settings say otherwise."""
    return Dialect(delimiter or DELIMITERS.get(format, ","), True if quotes is None and format == "csv" else quotes)


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
    position = 0
    is_chat = False
    for line in _lines(file):
        if line.strip():
            if is_sampled(cutter.num_rows):
                values = _parse(line).values
                said = unfolded_or_none(values) if with_chats else None
                is_chat |= said is not None
                note_types(fields, values | (said or {}))
            cutter.add(position, position + len(line))
        position += len(line)
    return Index(cutter.close(), fields, _warnings(size), shape="chat" if is_chat else "")


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


def cells(data: bytes, dialect: Dialect) -> list[list[str]]:
    """Return the cells of each row in a stretch of lines."""
    text = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    return [values for values in _reader(text, dialect) if not _is_no_row(values)]


class Cells(NamedTuple):
    """A row of a CSV or TSV file, and the bytes that it stands in."""

    values: list[str]
    first_byte: int
    end_byte: int


def cells_of(file: Readable, dialect: Dialect) -> Iterator[Cells]:
    """Go through a CSV or TSV file from its header on; blank lines are no rows.

    Raises:
        ReadError: It cannot be taken apart into rows.
    """
    source = _CountedLines(_lines(file))
    source.pass_over(dialect)
    reader = _reader(source, dialect)
    first_byte, num_columns = source.num_bytes, 0
    try:
        for values in reader:
            if not _is_no_row(values):
                num_columns = num_columns or len(values)
                if dialect.quotes is None and any(_holds_rows(value, dialect, num_columns) for value in values):
                    raise ReadError(
                        f"a cell in quotes in the row from byte {first_byte} on holds what look like whole rows; set "
                        "read.quotes=false if quotes are letters of the text, or read.quotes=true if it is one cell"
                    )
                yield Cells(values, first_byte, source.num_bytes)
            first_byte = source.num_bytes
    except csv.Error as error:
        where = f"the row from byte {first_byte} on"
        if source.has_ended:
            raise ReadError(f"a quote that opens in {where} is never closed; {_QUOTES_ARE_LETTERS}") from error
        raise ReadError(f"cannot take {where} apart: {error}; {_QUOTES_ARE_LETTERS}") from error


_QUOTES_ARE_LETTERS = "if quotes are letters of the text, set read.quotes=false"


def _reader(lines: Iterable[str], dialect: Dialect) -> "CellsReader":
    # The module's own limit of 131,072 letters is less than an image in base64 has.
    csv.field_size_limit(max(csv.field_size_limit(), LIMIT_BYTES))
    if dialect.quotes is False:
        return csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=dialect.delimiter, strict=True)


def _is_no_row(values: Sequence[str]) -> bool:
    return not values or (len(values) == 1 and values[0].isspace())


def _holds_rows(cell: str, dialect: Dialect, num_columns: int) -> bool:
    """Say whether a cell of several lines has one with as many delimiters as a row has: then quotes may be letters."""
    _, *further = cell.split("\n")
    return num_columns > 1 and any(line.count(dialect.delimiter) >= num_columns - 1 for line in further)


def index_text(file: Readable, size: int, unit_rows: int) -> Index:
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
    return [_text(line) for line in data.splitlines() if not _is_blank(line)]


@dataclass
class _CountedLines:
    """Hand out lines as text and count the bytes handed out, so that the reader's own idea of a row decides its end."""

    lines: Iterator[bytes]
    num_bytes: int = 0
    has_ended: bool = False

    def pass_over(self, dialect: Dialect) -> None:
        """Pass over the line with which Excel says what stands between cells.

        Raises:
            ReadError: It says something else than the settings.
        """
        first = next(self.lines, b"")
        match = SEPARATOR.fullmatch(first)
        if match is None:
            self.lines = itertools.chain([first], self.lines) if first else self.lines
            return
        separator = match[1].decode("latin-1")
        if separator != dialect.delimiter:
            found = f"its first line says that {separator!r} stands between cells"
            raise ReadError(f"{found}, expected {dialect.delimiter!r}; set read.delimiter={separator!r}")
        self.num_bytes = len(first)

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            is_first, self.num_bytes = self.num_bytes == 0, self.num_bytes + len(line)
            yield (line.removeprefix(BYTE_ORDER_MARK) if is_first else line).decode("utf-8", "surrogateescape")
        self.has_ended = True


def _lines(file: Readable) -> Iterator[bytes]:
    """Give lines with their ends: a newline, a carriage return, or both. A compressed file that breaks off ends before.

    Raises:
        ReadError: It is UTF-16, whose lines may pass for UTF-8 full of zeros, or a line is larger than any row is.
    """
    rest = b""
    is_first = True
    while chunk := file.read(CHUNK_BYTES):
        if is_first and chunk.startswith(UTF_16_MARKS):
            raise ReadError(f"found UTF-16 (it begins with {chunk[:2]!r}), expected UTF-8")
        is_first = False
        lines = (rest + chunk).splitlines(keepends=True)
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()  # what ends with a carriage return may go on
        yield from lines
        if len(rest) > LIMIT_BYTES:
            raise ReadError(f"found a line of more than {LIMIT_BYTES} bytes, expected one row a line")
    if rest and not getattr(file, "trouble", None):
        yield rest


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
