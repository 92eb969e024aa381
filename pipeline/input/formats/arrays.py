"""Read JSON files: the objects of one array, wherever it stands, or objects one after the other.

A file is walked once and never held: objects are found by their brackets, so that a unit's rows are one stretch of
bytes, as in JSONL. What the objects mean it does not know.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from pipeline.input.formats import coco
from pipeline.input.formats.chats import Sampled
from pipeline.input.formats.fields import note_types
from pipeline.input.formats.packed import Unpacked, is_packed
from pipeline.input.formats.rows import (
    LIMIT_BYTES,
    Cutter,
    Index,
    RawRow,
    Readable,
    ReadError,
    RowError,
    Shape,
    is_sampled,
    parse_object,
)

CHUNK_BYTES = 4 * 2**20
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'\{[^{}"]*+(?:' + _STRING + rb'[^{}"]*+)*+\}'
_NESTED = rb'\{[^{}"]*+(?:(?:' + _STRING + rb"|" + _FLAT + rb')[^{}"]*+)*+\}'
# A string, a bracket, or a quote whose string goes on behind what is held.
TOKEN = re.compile(_STRING + rb'|[\[\]{}]|"', re.DOTALL)
# Where elements stand, an object is taken in one step, which is ten times as fast: one with objects in it, or without.
OBJECT = re.compile(_NESTED + rb"|" + _STRING + rb'|[\[\]{}]|"', re.DOTALL)
SCALAR = re.compile(rb"[^\s,]+")
MARKS = (b"\xff\xfe", b"\xfe\xff")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A document that is one row is held to be looked at; a larger one is some array's.
LARGEST_DOCUMENT = 16 * 2**20
# Objects whose fields are arrays by the hundred are dictionaries, and not tables.
MOST_ARRAYS = 64


class Element(NamedTuple):
    """A value in a JSON file, where it stands, and its bytes.

    Attributes:
        array: The field of the document that holds the array with it; empty for a document that is an array; None for a
            document itself.
        first_byte: Where it begins.
        data: Its bytes; empty of a document that is too large to be held.
        end_byte: Where it ends.
    """

    array: str | None
    first_byte: int
    data: bytes
    end_byte: int


@dataclass
class Walk:
    """Go through the documents of a file and, in the first one, through the elements of its arrays.

    Attributes:
        file: What is read.
        is_flat: Whether only documents are wanted.
        trouble: Says afterwards why it ended early, if it did.
    """

    file: Readable
    is_flat: bool = False
    trouble: str | None = None
    _held: bytes = b""
    _base: int = 0  # the place of the first byte held
    _position: int = 0  # what comes before is taken apart
    _depth: int = 0
    _document: int = 0  # where the document begins that is open
    _array: str | None = None  # the array that is open
    _level: int = 0  # the depth at which its elements stand
    _first: int = 0  # where the element begins that is open
    _gap: int = 0  # where the last element has ended
    _name: bytes = b""
    _kind: bytes = b""

    def __iter__(self) -> Iterator[Element]:
        while chunk := self.file.read(CHUNK_BYTES):
            if not self._position and chunk.startswith(MARKS):
                raise ReadError(f"found UTF-16 (it begins with {chunk[:2]!r}), expected UTF-8")
            if not self._position and not self._held:
                chunk = chunk.removeprefix(BYTE_ORDER_MARK).rjust(len(chunk))
            self._held += chunk
            yield from self._tokens()
            self._let_go()
        end = self._base + len(self._held)
        is_open = self._depth or self._held[self._position - self._base :].startswith(b'"')
        self.trouble = getattr(self.file, "trouble", None) or ("the file is cut off" if is_open else None)
        if not self.trouble:
            yield from self._scalars(None, end)

    def _tokens(self) -> Iterator[Element]:
        pattern = self._pattern()
        while match := pattern.search(self._held, self._position - self._base):
            token, start = match[0], self._base + match.start()
            if token == b'"':  # its string goes on behind what is held
                self._position = start
                return
            self._position = self._base + match.end()
            if len(token) > 1:
                yield from self._string(token, start)
            elif token in b"[{":
                yield from self._opened(token, start)
            else:
                yield from self._closed(start)
            pattern = self._pattern()
        self._position = self._base + len(self._held)

    def _pattern(self) -> "re.Pattern[bytes]":
        is_among_elements = self._depth == self._level and (self._array is not None or self.is_flat)
        return OBJECT if is_among_elements else TOKEN

    def _string(self, token: bytes, start: int) -> Iterator[Element]:
        """Take a string, or a whole object, which stands where elements do."""
        if self._depth == self._level and (self._array is not None or not self._depth):
            yield from self._scalars(self._array, start)
            yield self._element(self._array, start)
        elif self._depth == 1:
            self._name = token

    def _opened(self, token: bytes, start: int) -> Iterator[Element]:
        if self._depth == self._level and (self._array is not None or not self._depth):
            yield from self._scalars(self._array, start)
            self._first = start
        if not self._depth:
            self._document, self._kind = start, token
        is_array = token == b"[" and not self.is_flat and self._array is None
        if is_array and (self._depth == 0 or (self._depth == 1 and self._kind == b"{")):
            self._array = "" if not self._depth else self._name[1:-1].decode("utf-8", "replace")
            self._level, self._gap = self._depth + 1, start + 1
        self._depth += 1

    def _closed(self, start: int) -> Iterator[Element]:
        self._depth -= 1
        if self._depth < 0:
            raise ReadError(f"found a bracket that closes nothing at byte {start}")
        if self._array is not None and self._depth == self._level:
            yield self._element(self._array, self._first)
        elif self._array is not None and self._depth == self._level - 1:
            yield from self._scalars(self._array, start)
            self._array, self._level = None, 0
        if not self._depth:
            yield self._element(None, self._document)
            self.is_flat = True  # arrays of what follows are within rows

    def _element(self, array: str | None, first: int) -> Element:
        data = self._held[first - self._base : self._position - self._base] if first >= self._base else b""
        self._gap = self._position
        return Element(array, first, data, self._position)

    def _scalars(self, array: str | None, end: int) -> Iterator[Element]:
        """Give what stands between two elements and is neither a comma nor blank: numbers, null, whatever is wrong."""
        gap = max(self._gap, self._base)
        for match in SCALAR.finditer(self._held, gap - self._base, end - self._base):
            yield Element(array, self._base + match.start(), match[0], self._base + match.end())

    def _let_go(self) -> None:
        """Forget what is taken apart, but for the element that is open, and for small documents."""
        wanted = self._position
        if self._depth == self._level:
            wanted = min(wanted, self._gap)
        elif self._array is not None and self._depth > self._level:
            wanted = min(wanted, self._first)
        if self._depth and self._document >= self._base and self._position - self._document <= LARGEST_DOCUMENT:
            wanted = min(wanted, self._document)
        if self._base + len(self._held) - wanted > LIMIT_BYTES:
            raise ReadError(f"found a value of more than {LIMIT_BYTES} bytes at byte {wanted}, expected rows")
        self._held, self._base = self._held[wanted - self._base :], max(wanted, self._base)


@dataclass
class _Rows:
    """What may be the rows of a file."""

    cutter: Cutter
    chats: Sampled
    fields: dict[str, pa.DataType] = field(default_factory=dict)
    num_objects: int = 0

    def add(self, element: Element) -> None:
        self.num_objects += element.data[:1] == b"{"
        if element.data and is_sampled(self.cutter.num_rows):
            note_types(self.fields, self.chats.fields_of(_parse(element.data).values))
        self.cutter.add(element.first_byte, element.end_byte)


def index(file: BinaryIO, size: int, unit_rows: int, shapes: Collection[Shape]) -> Index:
    """Go through a file once and find its rows; places are those in its content where it is compressed.

    Args:
        file: The shard.
        size: Its bytes.
        unit_rows: The most rows of a unit.
        shapes: What rows may be beyond their fields.

    Raises:
        ReadError: It holds no array of objects, or several.
    """
    packed = Unpacked(file) if is_packed(file) else None
    walk = Walk(packed or file)

    def new_rows() -> _Rows:
        return _Rows(Cutter(unit_rows), Sampled("chat" in shapes))

    documents, arrays = new_rows(), dict[str, _Rows]()
    for element in walk:
        if element.array is None:
            documents.add(element)
            continue
        if element.array not in arrays and len(arrays) == MOST_ARRAYS:
            raise ReadError(f"found more than {MOST_ARRAYS} arrays in one object, expected one array of objects")
        rows = arrays.setdefault(element.array, new_rows())
        rows.add(element)
    tables = {name: rows for name, rows in arrays.items() if rows.num_objects}
    is_coco = "coco" in shapes and coco.is_coco(tables)
    chosen = tables[coco.IMAGES] if is_coco else _only(documents, tables)
    fields = dict(chosen.fields)
    if is_coco:
        fields |= coco.fields(tables[coco.ANNOTATIONS].fields, coco.CATEGORIES in tables)
    shape: Shape = "coco" if is_coco else chosen.chats.shape
    warnings = [] if size else ["has no bytes"]
    if walk.trouble:
        warnings = [f"{walk.trouble}; found {chosen.cutter.num_rows} rows before that"]
    return Index(
        chosen.cutter.close(),
        fields,
        warnings,
        passed_over=chosen.chats.passed_over,
        is_packed=packed is not None,
        shape=shape,
    )


def _only(documents: _Rows, tables: dict[str, _Rows]) -> _Rows:
    """Return the rows of a file that has one kind of them.

    Raises:
        ReadError: There are several, and nobody has said which is meant.
    """
    # JSON lines under another name, or one row.
    if documents.cutter.num_rows > 1 or documents.chats.is_found or not tables:
        return documents
    if len(tables) > 1:
        found = ", ".join(f"{name!r} ({rows.num_objects})" for name, rows in tables.items())
        example = next(iter(tables))
        raise ReadError(
            f"found several arrays of objects: {found}; expected one. Take one out: "
            f"jq -c '.{example}[]' FILE.json > {example}.jsonl"
        )
    return next(iter(tables.values()))


def read(data: bytes) -> list[RawRow]:
    """Read the rows of a stretch of elements; what is no object is a row with a fault."""
    return [_parse(element.data) for element in Walk(_Bytes(data), is_flat=True)]


class _Bytes:
    """Bytes in memory, read at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, count: int) -> bytes:
        data, self._data = self._data, b""
        return data


def _parse(data: bytes) -> RawRow:
    try:
        return RawRow(values=parse_object(data, "the element"))
    except RowError as error:
        return RawRow(fault=error.fault)
