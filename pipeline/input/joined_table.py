"""A table of images that is looked into by id: Parquet, or CSV and TSV with images in base64.

Where each id stands is read once; of the images a bounded number of bytes is held. It knows formats, and nothing of the
rows that look into it.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.input.formats import cells, parquet
from pipeline.input.formats.inline import NotBase64, inlined
from pipeline.input.formats.rows import Fault, ReadError
from pipeline.input.read_settings import JoinSettings
from pipeline.input.shards import Shards
from pipeline.storage.store import Entry, StorageError, Store

# Questions on one image follow each other, more or less: so much is held of those looked up last.
HELD_BYTES = 64 * 2**20

Bytes = bytes | Fault


Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class FileIndex:
    """Where the ids of one file stand.

    Attributes:
        ids: As text; null where a row has none.
        firsts: In a text file the first byte of each row; nothing in Parquet, where rows are found by number.
        ends: The byte after it.
        column: Which cell holds the image in a text file.
    """

    ids: pa.Array
    firsts: Numbers
    ends: Numbers
    column: int = 0


@dataclass
class Table:
    """A table of images that is looked into.

    Attributes:
        shards: Its files.
        join: What its columns are called.
        files: Of each file, where its ids stand.
        ids: Of all files, one after the other; by its number among these an image is known.
        starts: The number of each file's first id.
        held: Images looked up lately, by number.
    """

    shards: Shards
    join: JoinSettings
    files: Sequence[FileIndex]
    ids: pa.Array
    starts: Numbers
    held: "OrderedDict[int, Bytes]" = field(default_factory=OrderedDict)
    held_bytes: int = 0

    def images(self, ids: Collection[str]) -> dict[str, Bytes]:
        """Return the image of each id, or what is wrong with it.

        Raises:
            StorageError: The store refuses or does not answer.
        """
        names = sorted(set(ids))
        numbers = pc.index_in(pa.array(names, pa.string()), value_set=self.ids).to_pylist()
        images = self._fetched({number for number in numbers if number is not None})
        return {
            name: self._unknown(name) if number is None else images[number]
            for name, number in zip(names, numbers, strict=True)
        }

    def _fetched(self, numbers: Collection[int]) -> dict[int, Bytes]:
        images = {number: self.held[number] for number in numbers if number in self.held}
        missing = sorted(set(numbers) - images.keys())
        files = (np.searchsorted(self.starts, missing, side="right") - 1).tolist()
        for file in sorted(set(files)):
            images |= self._read(file, [number for number, of in zip(missing, files, strict=True) if of == file])
        for number, image in images.items():
            self._hold(number, image)
        return images

    def _read(self, file: int, numbers: Sequence[int]) -> dict[int, Bytes]:
        index, entry, store = self.files[file], self.shards.entries[file], self.shards.store
        rows = {number: number - int(self.starts[file]) for number in numbers}
        if self.shards.format == "parquet":
            values = _picked(store, entry, self.join.image, list(rows.values()))
        else:
            dialect = cells.dialect_of(self.shards.format, quotes=self.join.quotes)
            values = {}
            for row in rows.values():
                data = store.read(entry.path, int(index.firsts[row]), int(index.ends[row]))
                (found,) = cells.cells(data, dialect)
                values[row] = found[index.column] if index.column < len(found) else None
        return {number: _image(values[row], store.name(entry.path)) for number, row in rows.items()}

    def _hold(self, number: int, image: Bytes) -> None:
        """Keep an image for rows to come, and let go of those that nobody has asked for longest."""
        if number in self.held:
            self.held.move_to_end(number)
            return
        self.held[number] = image
        self.held_bytes += _size(image)
        while self.held_bytes > HELD_BYTES and len(self.held) > 1:
            _, gone = self.held.popitem(last=False)
            self.held_bytes -= _size(gone)

    def _unknown(self, name: str) -> Fault:
        path = "" if len(self.files) > 1 else self.shards.entries[0].path
        where = f"{self.join.key!r} of {self.shards.store.name(path)}"
        return Fault("UnknownId", f"{name[:80]!r} is not among the {len(self.ids)} ids in {where}")


def index_table(shards: Shards, join: JoinSettings) -> Table:
    """Read where every id stands; of Parquet only the column with the ids.

    Raises:
        ReadError: A column is missing, or two rows have one id.
        StorageError: The store refuses or does not answer.
    """
    files = [_index_file(shards, entry, join) for entry in shards.entries]
    ids = pa.concat_arrays([file.ids for file in files])
    counts = pc.value_counts(ids.drop_null())
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[:3].to_pylist()
    if twice:
        listed = ", ".join(map(repr, twice))
        raise ReadError(
            f"{shards.store.name('')}: several rows have the id {listed} in {join.key!r}, expected one each"
        )
    return Table(shards, join, files, ids, np.cumsum([0, *(len(file.ids) for file in files)])[:-1])


def _index_file(shards: Shards, entry: Entry, join: JoinSettings) -> FileIndex:
    def index(file: BinaryIO) -> FileIndex:
        if shards.format == "parquet":
            return _index_parquet(file, join)
        return _index_cells(file, cells.dialect_of(shards.format, quotes=join.quotes), join)

    try:
        return shards.store.use(entry.path, index, entry.size)
    except ReadError as error:
        raise ReadError(f"read.join: {shards.store.name(entry.path)}: {error}") from error


def _index_parquet(file: BinaryIO, join: JoinSettings) -> FileIndex:
    fields = parquet.fields(file)
    _check_columns(fields, join)
    if fault := parquet.image_type_fault(fields[join.image]):
        raise ReadError(f"image column {join.image!r} holds {fields[join.image]}, expected {fault}")
    ids = pa.array([id_of(value) for value in parquet.column(file, join.key)], pa.string())
    return FileIndex(ids, np.zeros(0, np.int64), np.zeros(0, np.int64))


def _index_cells(file: BinaryIO, dialect: cells.Dialect, join: JoinSettings) -> FileIndex:
    rows = cells.cells_of(file, dialect)
    header = next(rows, cells.Cells([], 0, 0)).values
    _check_columns(header, join)
    key = header.index(join.key)
    ids, firsts, ends = [], [], []
    for row in rows:
        ids.append(id_of(row.values[key]) if key < len(row.values) else None)
        firsts.append(row.first_byte)
        ends.append(row.end_byte)
    numbers = np.array(firsts, np.int64), np.array(ends, np.int64)
    return FileIndex(pa.array(ids, pa.string()), *numbers, header.index(join.image))


def _check_columns(columns: Mapping[str, Any] | Sequence[str], join: JoinSettings) -> None:
    for setting, name in (("key", join.key), ("image", join.image)):
        if name not in columns:
            raise ReadError(f"read.join.{setting} names {name!r}, but the columns are: {', '.join(columns) or 'none'}")


def id_of(value: Any) -> str | None:
    """Return an id as text; None for what is none."""
    if type(value) not in (int, str) or value == "":
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in str(value)) else str(value)


def _picked(store: Store, entry: Entry, column: str, rows: Sequence[int]) -> dict[int, Any]:
    """Read images of some rows; where their pages are broken, what is wrong with them."""
    try:
        return store.use(entry.path, lambda file: parquet.pick(file, column, rows), entry.size)
    except StorageError as error:
        if not parquet.is_damage(error.__cause__):
            raise
        return dict.fromkeys(rows, Fault("Unreadable", str(error)))


def _image(value: Any, where: str) -> Bytes:
    """Return the bytes that a table holds as an image."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, bytes | Fault):
        return value
    try:
        image = inlined(value) if isinstance(value, str) else None
    except NotBase64 as error:
        return Fault("NotBase64", str(error))
    found = f"{value[:80]!r}" if isinstance(value, str) else type(value).__name__
    return image or Fault("WrongType", f"{where} holds {found} for this id, expected the bytes of an image, or base64")


def _size(image: Bytes) -> int:
    return len(image) if isinstance(image, bytes) else 0
