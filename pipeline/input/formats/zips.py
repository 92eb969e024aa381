"""Read zip archives as tars are: members of one base name are a row, wherever they stand in the archive.

The central directory at an archive's end says where members lie, so that units read their own, in the order in which
they lie there; the standard library unpacks them. What members mean, samples.py knows.
"""

import bisect
import contextlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow as pa

from pipeline.input.formats import samples
from pipeline.input.formats.chats import Sampled
from pipeline.input.formats.fields import note_types
from pipeline.input.formats.rows import LIMIT_BYTES, Cutter, Index, RawRow, ReadError, RowError, Shape, is_sampled
from pipeline.input.formats.tar import Member
from pipeline.storage.ranged_file import SizedFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

IS_ENCRYPTED = 1
# Of a local header, at least (APPNOTE.TXT 4.3.7).
HEADER_BYTES = 30
# What small reads fetch ahead: members are fetched by their places, and more would be in vain.
AHEAD_BYTES = 2**16
# Members no farther apart are fetched at once: to ask once more takes longer.
GAP_BYTES = 2**18
# Of so many rows the fields are fetched at once when a run is planned.
ROWS_AT_ONCE = 100


class Archive:
    """An open archive and its rows, each of members of one base name."""

    def __init__(self, file: BinaryIO, size: int, *, is_by_name: bool = False) -> None:
        """Read the central directory.

        Args:
            file: The archive.
            size: Its bytes.
            is_by_name: Whether rows are sorted by name, as in older plans, and not by where their first member lies.

        Raises:
            ReadError: It is no zip archive.
        """
        self.is_by_name = is_by_name
        self.passed_over: Counter[str] = Counter()
        self._pieces = _Pieces(file, size)
        try:
            self._zip = zipfile.ZipFile(cast(BinaryIO, self._pieces))
        except zipfile.BadZipFile as error:
            raise ReadError(f"no zip archive: {error}") from error
        infos = sorted((info for info in self._zip.infolist() if not info.is_dir()), key=lambda info: info.filename)
        self._infos = {info.header_offset: info for info in infos}
        members = [
            Member(info.filename, info.header_offset, info.header_offset, info.header_offset + info.file_size)
            for info in infos
        ]
        self.rows = list(samples.rows_of(members, self.passed_over))
        if not is_by_name:
            self.rows.sort(key=lambda row: min(member.first_byte for member in row))
        # A member ends where the next one begins, the last where the directory does.
        starts = sorted(self._infos)
        self._ends = dict(zip(starts, [*starts[1:], self._zip.start_dir], strict=True)) if starts else {}

    def read(self, start: int, stop: int, image: str | None, *, with_images: bool) -> list[RawRow]:
        """Read rows by their numbers; `image` is what the user calls their images, if anything."""
        rows = self.rows[start:stop]
        with self._at_hand(_wanted(rows, image, with_images=with_images)):
            return [samples.row_of(self.data, members, {}, image, with_images) for members in rows]

    def fields(self, rows: Sequence[Sequence[Member]]) -> list[RawRow]:
        """Read what some rows say beside their images."""
        with self._at_hand(_wanted(rows, None, with_images=False)):
            return [samples.row_of(self.data, members, {}, None, False) for members in rows]

    def data(self, member: Member) -> bytes:
        """Return a member's content.

        Raises:
            RowError: It is encrypted, or cannot be unpacked.
        """
        info = self._infos[member.first_byte]
        if info.flag_bits & IS_ENCRYPTED:
            raise RowError("Encrypted", f"member {member.name} is encrypted, expected plain members")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise RowError("Unreadable", f"member {member.name} cannot be unpacked: {error}") from error

    @contextlib.contextmanager
    def _at_hand(self, members: Iterable[Member]) -> Iterator[None]:
        """Fetch members by their places, up to `LIMIT_BYTES`; the others are read when they are asked for."""
        spans: list[tuple[int, int]] = []
        left = LIMIT_BYTES
        for first in sorted(member.first_byte for member in members):
            goes_on = bool(spans) and first - spans[-1][1] <= GAP_BYTES
            begin, end = spans[-1] if goes_on else (first, first)
            left -= self._ends[first] - end
            if left < 0:
                break
            spans[len(spans) - goes_on :] = [(begin, self._ends[first])]
        self._pieces.fetch(spans)
        try:
            yield
        finally:
            self._pieces.fetch([])


class _Pieces(SizedFile):
    """A file of which pieces are in memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(size)
        self._file = file
        self._pieces: list[tuple[int, bytes]] = []

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        """Hold what lies between some places, and nothing else."""
        self._pieces = []
        for first, end in spans:
            self._file.seek(first)
            self._pieces.append((first, self._file.read(end - first)))

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self._held(len(view))
        if not data:
            self._file.seek(self._position)
            data = self._file.read(len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _held(self, count: int) -> bytes:
        place = bisect.bisect_right(self._pieces, self._position, key=lambda piece: piece[0]) - 1
        if place < 0:
            return b""
        first, data = self._pieces[place]
        return data[self._position - first : self._position - first + count]


def index(file: BinaryIO, size: int, unit_rows: int, shapes: Collection[Shape] = ()) -> Index:
    """Read an archive's directory, and the fields of some rows; `shapes` is what these may be beyond their fields.

    Raises:
        ReadError: It is no zip archive.
    """
    archive = Archive(file, size)
    cutter = Cutter(unit_rows)
    found: Counter[str] = Counter()
    position = 0
    for members in archive.rows:
        samples.count(found, members)
        # Headers count, so that no slice ends at 0, as all do in older plans.
        end = position + sum(HEADER_BYTES + member.size for member in members)
        cutter.add(position, end)
        position = end
    fields: dict[str, pa.DataType] = {}
    chats = Sampled("chat" in shapes, has_members=True)
    sampled = [
        members
        for place, members in enumerate(archive.rows)
        if is_sampled(place) and any(samples.is_field(samples.extension_of(one)) for one in members)
    ]
    for start in range(0, len(sampled), ROWS_AT_ONCE):
        for row in archive.fields(sampled[start : start + ROWS_AT_ONCE]):
            note_types(fields, chats.fields_of(row.values))
    passed_over = {**archive.passed_over, **chats.passed_over}
    return Index(cutter.close(), fields, extensions=found, passed_over=passed_over, shape=chats.shape)


def _wanted(rows: Sequence[Sequence[Member]], image: str | None, *, with_images: bool) -> Iterator[Member]:
    """Give the members that rows are read from; those that no row may have are not even fetched."""
    for member in (member for members in rows for member in members if member.size <= LIMIT_BYTES):
        extension = samples.extension_of(member)
        if samples.is_field(extension) or (with_images and samples.is_image(extension, image)):
            yield member
