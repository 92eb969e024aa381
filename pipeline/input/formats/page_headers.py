"""Read what pages of a column of Parquet say of themselves, and what is known of the column.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from dataclasses import dataclass
from typing import BinaryIO

from pipeline.input.formats.thrift import NotThrift, Struct, get, read_struct

# A header takes 20 to 100 bytes; its statistics may hold two values of up to 4 KiB.
HEADER_BYTES, LONGEST_HEADER_BYTES = 256, 2**20
DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = range(4)
PLAIN, PLAIN_DICTIONARY, RLE, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 2, 3, 7, 8
INDICES = (PLAIN_DICTIONARY, RLE_DICTIONARY)
# Types of which a page can be read piece by piece.
OF_BYTES = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
# The struct of each kind of page in its header.
HEADS = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}


@dataclass(frozen=True)
class Leaf:
    """One column of a row group, or one field of a nested one.

    Attributes:
        number: Its place among all of the file, fields of nested ones counted by themselves.
        first_byte: Where its pages begin.
        end_byte: Where they end.
        codec: How they are packed, as Parquet calls it.
        max_levels: The greatest level of its lists, and of its nulls; 0: there are none.
        type: Of its values, as Parquet calls it.
        width: The bytes of each; 0: each has its length before it.
    """

    number: int
    first_byte: int
    end_byte: int
    codec: str
    max_levels: tuple[int, int]
    type: str
    width: int


@dataclass(frozen=True)
class Header:
    """What a page says of itself.

    Attributes:
        kind: Of the page.
        length: Bytes of the header.
        unpacked: Bytes of what comes after it, unpacked.
        packed: As they stand there.
        num_values: Of lists, those of their elements; nulls count.
        num_rows: Pages of the first version do not say it.
        num_nulls: So many values are known to be null.
        encoding: Of the values.
        level_bytes: Of the levels of lists, and of nulls, before what is packed; None: they are a part of it.
        level_encodings: Of both.
        is_packed: Whether the values are.
    """

    kind: int
    length: int
    unpacked: int
    packed: int
    num_values: int = 0
    num_rows: int | None = None
    num_nulls: int = 0
    encoding: int = PLAIN
    level_bytes: tuple[int, int] | None = None
    level_encodings: tuple[int | None, int | None] = (RLE, RLE)
    is_packed: bool = True

    @property
    def has_indices(self) -> bool:
        """Whether values stand in the dictionary."""
        return self.kind in (DATA_PAGE, DATA_PAGE_V2) and self.encoding in INDICES


def read_header(file: BinaryIO, position: int, end: int) -> Header:
    """Return the header of the page at a position, in a column that ends at `end`.

    Raises:
        NotThrift: There is none, or the page does not end within its column.
    """
    count = HEADER_BYTES
    while True:
        count = min(count, end - position)
        data = read_at(file, position, count)
        try:
            header = _header(*read_struct(data))
            break
        except NotThrift:
            if count in (end - position, LONGEST_HEADER_BYTES):
                raise
            count = min(count * 16, LONGEST_HEADER_BYTES)
    if position + header.length + header.packed > end:
        raise NotThrift(f"the page at byte {position} does not end within its column")
    return header


def _header(fields: Struct, length: int) -> Header:
    kind, unpacked_bytes, packed = (get(fields, number) for number in (1, 2, 3))
    if kind not in HEADS:
        return _checked(Header(kind, length, unpacked_bytes, packed))
    head = get(fields, HEADS[kind]) or {}
    count, size = get(head, 1), (kind, length, unpacked_bytes, packed)
    if kind == DATA_PAGE_V2:
        nulls, rows, encoding, of_nulls, of_lists = (get(head, number) for number in range(2, 7))
        is_packed = get(head, 7) is not False
        return _checked(Header(*size, count, rows, nulls, encoding, (of_lists, of_nulls), is_packed=is_packed))
    of_levels = get(head, 4), get(head, 3)
    return _checked(Header(*size, count, None, get(head, 5, 3) or 0, get(head, 2), level_encodings=of_levels))


def _checked(header: Header) -> Header:
    numbers = (header.kind, header.unpacked, header.packed, header.num_values, header.num_nulls, header.encoding)
    rows = () if header.level_bytes is None else (header.num_rows, *header.level_bytes)
    if not all(type(number) is int and number >= 0 for number in (*numbers, *rows)):
        raise NotThrift("found a page's header with numbers left out, or below 0")
    return header


def read_at(file: BinaryIO, position: int, count: int) -> bytes:
    """Read at a place.

    Raises:
        NotThrift: The file ends before.
    """
    file.seek(position)
    data = file.read(count)
    if len(data) < count:
        raise NotThrift(f"found {len(data)} bytes at {position}, expected {count}")
    return data
