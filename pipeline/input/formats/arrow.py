"""Read Arrow files, streams or with a footer, as `save_to_disk` of Hugging Face's datasets writes them.

Record batches are found by their messages' headers, and a unit reads those that hold its rows. The layout of a message
is that of "Arrow Columnar Format, Encapsulated message format" and the FlatBuffers schema Message.fbs.
"""

import itertools
import math
import struct
from collections import Counter
from collections.abc import Callable, Container, Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from pipeline.input.formats.fields import plain_values
from pipeline.input.formats.rows import LIMIT_BYTES, Index, ReadError, Slice
from pipeline.input.formats.tar import ReadAt, reader_of
from pipeline.storage.held_bytes import HELD_BYTES

MAGIC, OLD_FEATHER = b"ARROW1\x00\x00", b"FEA1"
GOES_ON = b"\xff\xff\xff\xff"
SCHEMA, DICTIONARY, BATCH = 1, 2, 3
# In the tables of Message.fbs: Message's `header_type`, `header` and `bodyLength`, and RecordBatch's `length`.
KIND, HEADER, BODY, LENGTH = 1, 2, 3, 0
# A schema of thousands of columns has less; what says more is damaged.
LARGEST_HEADER = 64 * 2**20


class Message(NamedTuple):
    """One message of a file: what it is, the bytes that it stands in, and a batch's rows."""

    kind: int
    first_byte: int
    end_byte: int
    num_rows: int


def index(file: BinaryIO, size: int, unit_rows: int) -> Index:
    """Go through a file's messages and cut the rows of its batches.

    Raises:
        ReadError: It is no Arrow file from its first byte on.
    """
    read_at = reader_of(file, size)
    messages: list[Message] = []
    trouble = None
    try:
        messages.extend(_messages(read_at, size))
    except _Broken as broken:
        messages, trouble = broken.before, str(broken)
    if not messages or messages[0].kind != SCHEMA:
        raise ReadError(trouble or f"no Arrow file: found {read_at(0, 16)!r}")
    schema = _schema(read_at, messages[0])
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise ReadError(f"several columns are called {', '.join(map(repr, twice))}; expected one of each name")
    batches = [message for message in messages if message.kind == BATCH and message.num_rows]
    slices = _cut(batches, unit_rows)
    warnings = [f"{trouble}; found {sum(batch.num_rows for batch in batches)} rows before that"] if trouble else []
    largest = max(batches, key=lambda batch: batch.end_byte - batch.first_byte, default=None)
    if largest and largest.end_byte - largest.first_byte > HELD_BYTES:
        size_mb = (largest.end_byte - largest.first_byte) // 10**6
        warnings.append(
            f"has record batches of up to {size_mb} MB; from a store, batches of more than {HELD_BYTES // 10**6} MB "
            "are fetched whole for every unit that has rows in them"
        )
    return Index(slices, {field.name: field.type for field in schema}, warnings)


def read(
    read_at: ReadAt,
    stretch: Callable[[int, int, bool], pa.Buffer],
    first_byte: int,
    end_byte: int,
    skipped: int,
    num_rows: int,
    left_out: Container[str],
) -> pa.Table:
    """Read rows of a file.

    Args:
        read_at: Gives the bytes at a place.
        stretch: Gives the bytes from a place up to another; True says that other units will ask for them, too.
        first_byte: Where the first batch with rows of these begins.
        end_byte: Where the last one ends.
        skipped: Rows of the first batch that come before.
        num_rows: How many rows are wanted.
        left_out: Columns that are not wanted.
    """
    head = _head(read_at, end_byte, first_byte)
    schema = _schema(read_at, head[0])
    first = next(one for one in _messages(read_at, end_byte, first_byte) if one.kind == BATCH)
    body = stretch(first_byte, end_byte, skipped > 0 or first.num_rows > num_rows)
    if len(head) == 1 and not _has_dictionaries(schema):
        batches = list(_batches(body, schema))  # nothing is copied: of a mapped file only what is looked at is read
    else:
        pieces = [*(read_at(*_span(one)) for one in head), body]
        batches = list(pa.ipc.open_stream(pa.BufferReader(b"".join(pieces))))
    names = [name for name in schema.names if name not in left_out]
    kept = pa.schema([schema.field(name) for name in names])
    return pa.Table.from_batches([batch.select(names) for batch in batches], kept).slice(skipped, num_rows)


def _batches(body: pa.Buffer, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    reader = pa.BufferReader(body)
    while reader.tell() < body.size:
        yield pa.ipc.read_record_batch(pa.ipc.read_message(reader), schema)


def keys(read_at: ReadAt, size: int, first_byte: int, end_byte: int, column: str) -> Iterator[object]:
    """Give a column's values in the batches between two places, one batch in memory at a time."""
    head = _head(read_at, size, end_byte)
    if column not in _schema(read_at, head[0]).names:
        return
    for message in _messages(read_at, end_byte, first_byte):
        if message.kind == BATCH:
            before = [one for one in head if one.first_byte < message.first_byte]
            stream = b"".join(read_at(*_span(one)) for one in (*before, message))
            with pa.ipc.open_stream(pa.BufferReader(stream)) as reader:
                yield from plain_values(reader.read_all().column(column))


class _Broken(Exception):
    """Says where a file breaks off, and which messages come before."""

    def __init__(self, message: str, before: list[Message]) -> None:
        super().__init__(message)
        self.before = before


def _span(message: Message) -> tuple[int, int]:
    return message.first_byte, message.end_byte - message.first_byte


def _head(read_at: ReadAt, size: int, end: int) -> list[Message]:
    """Return the schema, and the dictionaries that batches before a place need."""
    head: list[Message] = []
    goes_on = True
    for message in _messages(read_at, size):
        if message.kind == SCHEMA:
            goes_on = _has_dictionaries(_schema(read_at, message))
        if message.first_byte >= end or (message.kind == BATCH and not goes_on):
            break
        if message.kind != BATCH:
            head.append(message)
    return head


def _has_dictionaries(schema: pa.Schema) -> bool:
    return any("dictionary<" in str(field.type) for field in schema)


def _schema(read_at: ReadAt, message: Message) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(read_at(*_span(message))))


def _messages(read_at: ReadAt, size: int, start: int | None = None) -> Iterator[Message]:
    """Walk through a file's messages by their headers.

    Raises:
        ReadError: It is another kind of file.
        _Broken: It breaks off.
    """
    begin = read_at(0, 8)
    if begin.startswith(OLD_FEATHER):
        raise ReadError("found Feather of version 1, expected Arrow's own format; pyarrow.feather writes it anew")
    position = start if start is not None else len(MAGIC) if begin == MAGIC else 0
    before: list[Message] = []
    while position < size:
        prefix = read_at(position, 8)
        has_mark = prefix.startswith(GOES_ON)
        if len(prefix) < 8:
            raise _Broken(f"cut off at byte {position}", before)
        length = struct.unpack("<i", prefix[4:] if has_mark else prefix[:4])[0]
        data = position + (8 if has_mark else 4)
        if length == 0:
            return
        if not 0 < length <= LARGEST_HEADER:
            raise _Broken(f"no Arrow message at byte {position}: found {prefix!r}", before)
        message = _message(read_at(data, length), position, data + length)
        if message is None:
            raise _Broken(f"no Arrow message at byte {position}", before)
        if message.end_byte > size:
            raise _Broken(f"cut off within the message at byte {position}", before)
        before.append(message)
        yield message
        position = message.end_byte


def _message(header: bytes, first_byte: int, body: int) -> Message | None:
    """Read a message's header; None if it is none."""
    try:
        root = struct.unpack_from("<I", header)[0]
        kind = header[place] if (place := _field(header, root, KIND)) else 0
        length = struct.unpack_from("<q", header, place)[0] if (place := _field(header, root, BODY)) else 0
        num_rows = 0
        if kind == BATCH and (place := _field(header, root, HEADER)):
            batch = place + struct.unpack_from("<I", header, place)[0]
            num_rows = struct.unpack_from("<q", header, place)[0] if (place := _field(header, batch, LENGTH)) else 0
    except (struct.error, IndexError):
        return None
    is_sound = kind in (SCHEMA, DICTIONARY, BATCH) and length >= 0 and num_rows >= 0
    return Message(kind, first_byte, body + length, num_rows) if is_sound else None


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a field of a FlatBuffers table stands; 0 if it has its default."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", data, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", data, fields + place)[0]
    return table + offset if offset else 0


def _cut(batches: list[Message], unit_rows: int) -> list[Slice]:
    """Gather batches into slices of `unit_rows` rows and `LIMIT_BYTES` at most, and cut larger ones into even pieces.

    A slice has whole batches or a piece of one: so all that share a batch ask for the same bytes.
    """
    groups: list[list[Message]] = []
    num_rows = 0
    for batch in batches:
        num_rows += batch.num_rows
        if groups and num_rows <= unit_rows and batch.end_byte - groups[-1][0].first_byte <= LIMIT_BYTES:
            groups[-1].append(batch)
        else:
            groups.append([batch])
            num_rows = batch.num_rows
    slices: list[Slice] = []
    start = 0
    for group in groups:
        first_byte, end_byte = group[0].first_byte, group[-1].end_byte
        num_rows = sum(batch.num_rows for batch in group)
        num_pieces = max(math.ceil(num_rows / unit_rows), math.ceil((end_byte - first_byte) / LIMIT_BYTES))
        num_pieces = min(num_pieces, num_rows)
        ends = [num_rows * piece // num_pieces for piece in range(num_pieces + 1)]
        slices += [
            Slice(start + skipped, start + stop, first_byte, end_byte, skipped=skipped)
            for skipped, stop in itertools.pairwise(ends)
        ]
        start += num_rows
    return slices
