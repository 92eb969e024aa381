"""Read WebDataset shards: uncompressed tars whose members `name.jpg`, `name.txt`, `name.json` together are one row.

Members are found by their headers and read by their place; names are only names, and nothing is ever written to the
file system. Long names (GNU and pax) are understood, links, folders and devices are passed over.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa

from pipeline.formats.fields import note_types
from pipeline.formats.rows import (
    IMAGE_EXTENSIONS,
    LIMIT_BYTES,
    SAMPLE_ROWS,
    Cutter,
    Index,
    RawRow,
    ReadError,
    RowError,
    parse_object,
)

BLOCK = 512
LONG_HEADER_LIMIT_BYTES = 2**20
# The folder stays in the key: `cats/0001.jpg` and `dogs/0001.jpg` are different rows.
MEMBER_NAME = re.compile(r"(?:\./)*((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
REGULAR, DATALESS, LONG_NAME, PAX = b"0\x007", b"123456", b"L", b"x"

ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Member:
    """One file in a tar; `first_byte` is where its first header stands, `end_byte` where its data end."""

    name: str
    first_byte: int
    data: int
    end_byte: int


@dataclass
class Walk:
    """Go through the members between two places of a tar; afterwards `trouble` says why it ended early, if it did."""

    read_at: ReadAt
    start: int
    end: int
    trouble: str | None = None
    _long: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Member]:
        position = first_byte = self.start
        while position < self.end:
            header = self.read_at(position, BLOCK)
            if len(header) < BLOCK:
                self.trouble = f"cut off within a header at byte {position}"
                return
            if not any(header):
                self.trouble = self._trouble_after(position)
                return
            kind, data = header[156:157], position + BLOCK
            size = self._size(header, position)
            if data + size > self.end:
                self.trouble = f"cut off within {self._name(header)!r}: {self.end - data} of its {size} bytes are there"
                return
            position = data + -(-size // BLOCK) * BLOCK
            if kind in LONG_NAME + PAX:
                self._note_long(kind, data, size)
            elif kind not in b"gK":
                if kind in REGULAR:
                    yield Member(self._name(header), first_byte, data, data + size)
                self._long.clear()
                first_byte = position

    def _size(self, header: bytes, position: int) -> int:
        checked = header[:148] + b" " * 8 + header[156:]
        kind = header[156:157]
        if _number(header[148:156]) != sum(checked):
            raise ReadError(f"no tar header at byte {position}: found {header[:16]!r}")
        if kind == b"S":
            raise ReadError(f"sparse member {self._name(header)!r} at byte {position}: expected plain files")
        size = int(self._long["size"]) if "size" in self._long else _number(header[124:136])
        if size < 0:
            raise ReadError(f"member at byte {position} has a negative size")
        return 0 if kind in DATALESS else size

    def _note_long(self, kind: bytes, data: int, size: int) -> None:
        if size > LONG_HEADER_LIMIT_BYTES:
            raise ReadError(f"extended header at byte {data} has {size} bytes, at most {LONG_HEADER_LIMIT_BYTES}")
        payload = self.read_at(data, size)
        if kind == LONG_NAME:
            self._long["path"] = _text(payload)
        else:
            self._long.update(_pax(payload))

    def _name(self, header: bytes) -> str:
        if "path" in self._long:
            return self._long["path"]
        prefix = _text(header[345:500]) if header[257:263] == b"ustar\x00" else ""
        return f"{prefix}/{_text(header[:100])}" if prefix else _text(header[:100])

    def _trouble_after(self, position: int) -> str | None:
        if any(self.read_at(position, min(self.end - position, 2**16))):
            return f"there are more bytes after the end-of-archive mark at byte {position}; they are not read"
        return None


def index(file: BinaryIO, size: int, unit_rows: int) -> Index:
    """Go through a shard once and find its rows."""

    def read_at(position: int, count: int) -> bytes:
        file.seek(position)
        return file.read(min(count, size - position))

    walk = Walk(read_at, 0, size, trouble="has no bytes" if size == 0 else None)
    cutter = Cutter(unit_rows)
    fields: dict[str, pa.DataType] = {}
    extensions: set[str] = set()
    for members in rows_of(walk):
        if cutter.num_rows < SAMPLE_ROWS:
            extensions |= set(by_extension(members))
            note_types(fields, _sampled(read_at, members))
        cutter.add(next(iter(members)).first_byte, members[-1].end_byte)
    warnings = [walk.trouble] if walk.trouble else []
    return Index(cutter.close(), fields, warnings, extensions=frozenset(extensions))


def read(read_at: ReadAt, start: int, end: int, image: str | None) -> list[RawRow]:
    """Read the rows between two places; `image` names the extension that holds the image if there may be several."""
    return [_row(read_at, members, image) for members in rows_of(Walk(read_at, start, end))]


def rows_of(members: "Walk | Sequence[Member]") -> Iterator[list[Member]]:
    """Gather consecutive members of one base name; hidden files and files without an extension are nobody's."""
    row: list[Member] = []
    for member in members:
        if not MEMBER_NAME.fullmatch(member.name):
            continue
        if row and _split(row[0].name)[0] != _split(member.name)[0]:
            yield row
            row = []
        row.append(member)
    if row:
        yield row


def by_extension(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Sort a row's members by their extension in lower case."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(_split(member.name)[1], []).append(member)
    return found


def _row(read_at: ReadAt, members: Sequence[Member], image: str | None) -> RawRow:
    row = RawRow(key=_split(members[0].name)[0])
    found = by_extension(members)
    try:
        row.values = _fields(read_at, found)
        row.image = _image(read_at, found, image)
    except RowError as error:
        row.fault = error.fault
    return row


def _fields(read_at: ReadAt, found: Mapping[str, Sequence[Member]]) -> dict[str, object]:
    values: dict[str, object] = {}
    if "json" in found:
        values.update(parse_object(_data(read_at, _only(found["json"])), _only(found["json"]).name))
    if "txt" in found:
        member = _only(found["txt"])
        try:
            values["text"] = _data(read_at, member).decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError("NotUtf8", f"{member.name} is not UTF-8: {error.reason} at byte {error.start}") from error
    return values


def _image(read_at: ReadAt, found: Mapping[str, Sequence[Member]], image: str | None) -> bytes | None:
    wanted = (image,) if image else IMAGE_EXTENSIONS
    images = [member for extension in wanted for member in found.get(extension, ())]
    names = {member.name for member in images}
    if len(names) > 1:
        listed = ", ".join(sorted(names))
        raise RowError("SeveralImages", f"found {listed}; name one extension in read.columns.image")
    if not images:
        return None
    member = _only(images)
    if member.data == member.end_byte:
        raise RowError("NoBytes", f"member {member.name} has no bytes, expected an image")
    return _data(read_at, member)


def _only(members: Sequence[Member]) -> Member:
    if len(members) > 1:
        raise RowError("DuplicateMember", f"member {members[0].name} stands {len(members)} times in its row")
    return members[0]


def _data(read_at: ReadAt, member: Member) -> bytes:
    size = member.end_byte - member.data
    if size > LIMIT_BYTES:
        raise RowError("TooLarge", f"member {member.name} has {size} bytes, at most {LIMIT_BYTES} are read")
    return read_at(member.data, size)


def _sampled(read_at: ReadAt, members: Sequence[Member]) -> dict[str, object]:
    try:
        return _fields(read_at, by_extension(members))
    except RowError:  # it is an error row when its turn comes
        return {}


def _split(name: str) -> tuple[str, str]:
    match = MEMBER_NAME.fullmatch(name)
    assert match is not None, name
    return match[1], match[2].lower()


def _number(digits: bytes) -> int:
    if digits[0] in (0x80, 0xFF):  # GNU: large numbers stand as big-endian integers
        return int.from_bytes(digits[1:], "big", signed=digits[0] == 0xFF)
    text = digits.split(b"\x00")[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError:
        return -1


def _text(raw: bytes) -> str:
    return raw.split(b"\x00")[0].decode("utf-8", "backslashreplace")


def _pax(payload: bytes) -> dict[str, str]:
    """Read the records (length, space, key=value, newline) that matter to us."""
    found: dict[str, str] = {}
    position = 0
    while match := re.compile(rb"(\d{1,8}) ([^=]+)=").match(payload, position):
        end = position + int(match[1])
        if match[2] == b"path":
            found["path"] = payload[match.end() : end - 1].decode("utf-8", "backslashreplace")
        if match[2] == b"size" and payload[match.end() : end - 1].isdigit():
            found["size"] = payload[match.end() : end - 1].decode()
        if end <= match.end() - 1:
            raise ReadError(f"extended header is not readable: record of {match[1]!r} bytes")
        position = end
    return found
