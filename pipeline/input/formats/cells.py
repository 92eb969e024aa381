"""Take files of lines apart: into lines and, of CSV and TSV, into cells.

It knows bytes and letters; what becomes of them, manifest.py knows.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pipeline.input.formats.rows import (
    LIMIT_BYTES,
    Readable,
    ReadError,
)

if TYPE_CHECKING:
    from _csv import Reader as CellsReader

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
    source = _CountedLines(lines_of(file))
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


def lines_of(file: Readable) -> Iterator[bytes]:
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
