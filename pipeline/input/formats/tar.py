"""Walk through tars: which members there are and where their bytes lie.

Members are found by their headers and read by their place; names are only names, and nothing is ever written to the
file system. Long names (GNU and pax) are understood. What members mean to each other it does not know.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.input.formats.rows import ReadError

BLOCK = 512
LONG_HEADER_LIMIT_BYTES = 2**20
REGULAR, DATALESS, FOLDER, LONG_NAME, PAX = b"0\x007", b"123456", b"5", b"L", b"x"
# What people call a tar and is none; what it is should be said.
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip"}

ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Member:
    """One file in a tar; `first_byte` is where its first header stands, `end_byte` where its data end."""

    name: str
    first_byte: int
    data: int
    end_byte: int

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return self.end_byte - self.data


@dataclass
class Walk:
    """Go through the members between two places of a tar, to the last one that is whole.

    Attributes:
        read_at: Gives the bytes at a place, fewer of them at the end.
        start: Where the first header stands.
        end: Where the members end; null where only reading on tells.
        trouble: Says afterwards why it ended early, if it did.
        is_broken: Says afterwards that it ended at what is no tar.
        num_links: Counts links and devices, which are passed over.
    """

    read_at: ReadAt
    start: int
    end: int | None
    trouble: str | None = None
    is_broken: bool = False
    num_links: int = 0
    _long: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Member]:
        try:
            yield from self._members()
        except ReadError as error:
            self.trouble, self.is_broken = str(error), True

    def _members(self) -> Iterator[Member]:
        position = first_byte = self.start
        while header := self._header(position):
            kind, data = header[156:157], position + BLOCK
            size = self._size(header, position)
            if not self._reaches(data + size):
                self.trouble = f"cut off within {self._name(header)!r}, which has {size} bytes"
                return
            position = data + -(-size // BLOCK) * BLOCK
            if kind in LONG_NAME + PAX:
                self._note_long(kind, data, size)
            elif kind not in b"gK":
                if kind in REGULAR:
                    yield Member(self._name(header), first_byte, data, data + size)
                self.num_links += kind not in REGULAR + FOLDER
                self._long.clear()
                first_byte = position

    def _header(self, position: int) -> bytes:
        """Return the next header; nothing at the end."""
        if self.end is not None and position >= self.end:
            return b""
        header = self.read_at(position, BLOCK)
        if 0 < len(header) < BLOCK:
            self.trouble = f"cut off within a header at byte {position}"
        elif header and not any(header):
            self.trouble = self._trouble_after(position)
        elif header:
            return header
        return b""

    def _reaches(self, end_byte: int) -> bool:
        if self.end is None:
            return len(self.read_at(end_byte - 1, 1)) == 1
        return end_byte <= self.end

    def _size(self, header: bytes, position: int) -> int:
        checked = header[:148] + b" " * 8 + header[156:]
        kind = header[156:157]
        if _number(header[148:156]) != sum(checked):
            packed = [f" ({name})" for magic, name in OTHERS.items() if header.startswith(magic)]
            raise ReadError(f"no tar header at byte {position}: found {header[:16]!r}{''.join(packed)}")
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
        window = 2**16 if self.end is None else min(self.end - position, 2**16)
        if any(self.read_at(position, window)):
            return f"there are more bytes after the end-of-archive mark at byte {position}; they are not read"
        return None


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
