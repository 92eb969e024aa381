"""Read zip archives as tars are: members of one base name are a row, wherever they stand in the archive.

The central directory at an archive's end says where members lie, so that units read their own; the standard library
reads it. What members mean, samples.py knows.
"""

import zipfile
import zlib
from collections import Counter
from typing import BinaryIO

import pyarrow as pa

from pipeline.input.formats import samples
from pipeline.input.formats.fields import note_types
from pipeline.input.formats.rows import Cutter, Index, RawRow, ReadError, RowError, Slice, is_sampled
from pipeline.input.formats.tar import Member

IS_ENCRYPTED = 1


class Archive:
    """An open archive and its rows, each of members of one base name, sorted by name."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the central directory.

        Raises:
            ReadError: It is no zip archive.
        """
        self.file = file
        self.passed_over: Counter[str] = Counter()
        try:
            self._zip = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise ReadError(f"no zip archive: {error}") from error
        infos = sorted((info for info in self._zip.infolist() if not info.is_dir()), key=lambda info: info.filename)
        self._infos = {info.header_offset: info for info in infos}
        members = [
            Member(info.filename, info.header_offset, info.header_offset, info.header_offset + info.file_size)
            for info in infos
        ]
        self.rows = list(samples.rows_of(members, self.passed_over))

    def read(self, start: int, stop: int, image: str | None, *, with_images: bool) -> list[RawRow]:
        """Read rows by their numbers; `image` is what the user calls their images, if anything."""
        return [samples.row_of(self.data, members, {}, image, with_images) for members in self.rows[start:stop]]

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


def index(file: BinaryIO, unit_rows: int) -> Index:
    """Read an archive's directory, and the fields of some rows.

    Raises:
        ReadError: It is no zip archive.
    """
    archive = Archive(file)
    cutter = Cutter(unit_rows)
    fields: dict[str, pa.DataType] = {}
    found: Counter[str] = Counter()
    position = 0
    for members in archive.rows:
        if is_sampled(cutter.num_rows) and any(samples.is_field(samples.extension_of(one)) for one in members):
            note_types(fields, samples.row_of(archive.data, members, {}, None, False).values)
        samples.count(found, members)
        end = position + sum(member.size for member in members)
        cutter.add(position, end)
        position = end
    # Rows are found by number: where their members lie, the directory says.
    slices = [Slice(piece.start, piece.stop) for piece in cutter.close()]
    return Index(slices, fields, extensions=found, passed_over=archive.passed_over)
