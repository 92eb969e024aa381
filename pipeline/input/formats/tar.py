"""Walk through tars: which members there are and where their bytes lie.

Members are found by their headers and read by their place; names are only names, and nothing is ever written to the
file system. Long names and sparse members (GNU and pax) are understood, and links to other members. What members mean
to each other it does not know.
"""

import io
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.input.formats.rows import ReadError

BLOCK = 512
LONG_HEADER_LIMIT_BYTES = 2**20
REGULAR, DATALESS, FOLDER, LONG_NAME, LONG_TARGET, PAX = b"0\x007", b"123456", b"5", b"L", b"K", b"x"
HARD_LINK, SYMBOLIC_LINK, SPARSE = b"1", b"2", b"S"
# Where a header says that one more block of a sparse member's map follows, in the first and in further ones; and where
# its whole size stands (GNU tar manual, "Storing Sparse Files").
MAP_GOES_ON, FURTHER_MAP_GOES_ON, WHOLE_SIZE = 482, 504, slice(483, 495)
# What records of a pax header say. A sparse member has a name and a size of its own in them.
PAX_RECORDS = {
    b"path": "path",
    b"linkpath": "target",
    b"size": "size",
    b"GNU.sparse.name": "path",
    b"GNU.sparse.size": "whole_size",
    b"GNU.sparse.realsize": "whole_size",
}
# What people call a tar and is none; what it is should be said.
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip"}

ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Member:
    """One file in a tar.

    Attributes:
        name: As the tar has it.
        first_byte: Where its first header stands.
        data: Where its data begin.
        end_byte: Where they end.
        target: The name of the member that a link stands for; None of what has data itself.
        whole_size: Of a sparse member, of which the tar keeps only what is not zero: the bytes that it stands for.
    """

    name: str
    first_byte: int
    data: int
    end_byte: int
    target: str | None = None
    whole_size: int | None = None

    @property
    def size(self) -> int:
        """Bytes of its content."""
        return self.end_byte - self.data if self.whole_size is None else self.whole_size


def content_of(member: Member, read_at: "ReadAt") -> bytes:
    """Return a member's content."""
    if member.whole_size is None:
        return read_at(member.data, member.size)
    # Sparse members have three forms; they are rare, and the standard library knows them all.
    piece = io.BytesIO(read_at(member.first_byte, member.end_byte - member.first_byte))
    with tarfile.open(fileobj=piece, mode="r:") as archive:
        first = archive.next()
        file = first and archive.extractfile(first)
        if not file:
            raise ReadError(f"sparse member {member.name!r} is not readable")
        return file.read()


@dataclass
class Walk:
    """Go through the members between two places of a tar, to the last one that is whole.

    Attributes:
        read_at: Gives the bytes at a place, fewer of them at the end.
        start: Where the first header stands.
        end: Where the members end; null where only reading on tells.
        trouble: Says afterwards why it ended early, if it did.
        is_broken: Says afterwards that it ended at what is no tar.
        num_devices: Counts devices, which are passed over.
    """

    read_at: ReadAt
    start: int
    end: int | None
    trouble: str | None = None
    is_broken: bool = False
    num_devices: int = 0
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
            data += BLOCK * self._map_blocks(header, data)
            if not self._reaches(data + size):
                self.trouble = f"cut off within {self._name(header)!r}, which has {size} bytes"
                return
            position = data + -(-size // BLOCK) * BLOCK
            if kind in LONG_NAME + LONG_TARGET + PAX:
                self._note_long(kind, data, size)
            elif kind != b"g":
                name = self._name(header)
                if kind in REGULAR + SPARSE:
                    yield Member(name, first_byte, data, data + size, whole_size=self._whole_size(header))
                elif kind in HARD_LINK + SYMBOLIC_LINK:
                    yield Member(name, first_byte, data, data, target=self._target(header, name))
                self.num_devices += kind not in REGULAR + SPARSE + HARD_LINK + SYMBOLIC_LINK + FOLDER
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
        if _number(header[148:156]) != sum(checked):
            packed = [f" ({name})" for magic, name in OTHERS.items() if header.startswith(magic)]
            raise ReadError(f"no tar header at byte {position}: found {header[:16]!r}{''.join(packed)}")
        size = int(self._long["size"]) if "size" in self._long else _number(header[124:136])
        if size < 0:
            raise ReadError(f"member at byte {position} has a negative size")
        return 0 if header[156:157] in DATALESS else size

    def _map_blocks(self, header: bytes, position: int) -> int:
        """Count the blocks that a sparse member's map takes behind its header."""
        count, goes_on = 0, header[156:157] == SPARSE and header[MAP_GOES_ON] == 1
        while goes_on:
            block = self.read_at(position + count * BLOCK, BLOCK)
            count += 1
            goes_on = len(block) == BLOCK and block[FURTHER_MAP_GOES_ON] == 1
        return count

    def _whole_size(self, header: bytes) -> int | None:
        if header[156:157] == SPARSE:
            return _number(header[WHOLE_SIZE])
        return int(self._long["whole_size"]) if "whole_size" in self._long else None

    def _target(self, header: bytes, name: str) -> str:
        """Return the name of the member that a link means, from the tar's root on."""
        target = self._long.get("target", _text(header[157:257]))
        is_relative = header[156:157] == SYMBOLIC_LINK and not target.startswith("/")
        return posixpath.normpath(posixpath.join(posixpath.dirname(name), target) if is_relative else target)

    def _note_long(self, kind: bytes, data: int, size: int) -> None:
        if size > LONG_HEADER_LIMIT_BYTES:
            raise ReadError(f"extended header at byte {data} has {size} bytes, at most {LONG_HEADER_LIMIT_BYTES}")
        payload = self.read_at(data, size)
        if kind in LONG_NAME + LONG_TARGET:
            self._long["path" if kind == LONG_NAME else "target"] = _text(payload)
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
        name, value = PAX_RECORDS.get(match[2]), payload[match.end() : end - 1]
        if name in ("path", "target") or (name and value.isdigit()):
            found[name] = value.decode("utf-8", "backslashreplace")
        if end <= match.end() - 1:
            raise ReadError(f"extended header is not readable: record of {match[1]!r} bytes")
        position = end
    return found


def reader_of(file: BinaryIO, size: int) -> ReadAt:
    """Return a way to read at places of an open file, up to its size."""

    def read_at(position: int, count: int) -> bytes:
        file.seek(position)
        return file.read(min(count, size - position))

    return read_at
