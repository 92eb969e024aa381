"""A table of images that is looked into by id: Parquet, or JSONL, CSV and TSV with images in base64.

Where each id stands is read once; of the images a bounded number of bytes is held. It knows formats, and nothing of the
rows that look into it.
"""

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.input.formats import cells, manifest, parquet
from pipeline.input.formats.inline import NotBase64, in_data_address, inlined, is_data_address
from pipeline.input.formats.packed import Unpacked, is_packed
from pipeline.input.formats.rows import Fault, Readable, ReadError
from pipeline.input.formats.table import FORMATS
from pipeline.input.read_settings import JoinSettings
from pipeline.input.shards import Shards
from pipeline.input.streams import read_unpacked, use_parquet
from pipeline.storage.held_bytes import hold
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
        firsts: In a file of lines the first byte of each row; nothing in Parquet, where rows are found by number.
        ends: The byte after it.
        header: The names of a CSV or TSV file's cells.
        is_packed: Whether the file is compressed; places are those in its content.
    """

    ids: pa.Array
    firsts: Numbers
    ends: Numbers
    header: Sequence[str] = ()
    is_packed: bool = False


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
        format = self.shards.format
        rows = {number: number - int(self.starts[file]) for number in numbers}
        if format == "parquet":
            values = _picked(store, entry, self.join.image, list(rows.values()))
        else:
            assert format in ("jsonl", "csv", "tsv"), "index_table has seen to it"
            dialect = cells.dialect_of(format, quotes=self.join.quotes)
            values = {}
            with _content_of(index, entry, store) as read:
                for row in rows.values():
                    data = read(int(index.firsts[row]), int(index.ends[row]))
                    (found,) = manifest.read(data, format, index.header, dialect)
                    values[row] = found.values.get(self.join.image)
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
        ReadError: It is no table, a column is missing, two rows have one id, or it is compressed and cut off.
        StorageError: The store refuses or does not answer.
    """
    if not FORMATS[shards.format].is_joined:
        tables = ", ".join(format for format, traits in FORMATS.items() if traits.is_joined)
        raise ReadError(f"read.join.uri: found {shards.format} at {shards.store.uri}, expected {tables}")
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
        packed = Unpacked(file) if is_packed(file) else None
        if shards.format == "jsonl":
            found = _index_lines(packed or file, join)
        else:
            found = _index_cells(packed or file, cells.dialect_of(shards.format, quotes=join.quotes), join)
        if packed and packed.trouble and join.uri:  # of a shard that is its own table the plan says so, and goes on
            raise ReadError(packed.trouble)
        return replace(found, is_packed=packed is not None)

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


def _index_cells(file: Readable, dialect: cells.Dialect, join: JoinSettings) -> FileIndex:
    rows = cells.cells_of(file, dialect)
    header = next(rows, cells.Cells([], 0, 0)).values
    _check_columns(header, join)
    key = header.index(join.key)
    ids, firsts, ends = [], [], []
    for row in rows:
        ids.append(id_of(row.values[key]) if key < len(row.values) else None)
        firsts.append(row.first_byte)
        ends.append(row.end_byte)
    return FileIndex(pa.array(ids, pa.string()), np.array(firsts, np.int64), np.array(ends, np.int64), header)


def _index_lines(file: Readable, join: JoinSettings) -> FileIndex:
    columns: dict[str, None] = {}
    ids, firsts, ends = [], [], []
    for line in manifest.filled_lines_of(file):
        (row,) = manifest.read_jsonl(line.data)
        columns |= dict.fromkeys(row.values)
        ids.append(id_of(row.values.get(join.key)))
        firsts.append(line.first_byte)
        ends.append(line.end_byte)
    _check_columns(list(columns), join)
    return FileIndex(pa.array(ids, pa.string()), np.array(firsts, np.int64), np.array(ends, np.int64))


@contextlib.contextmanager
def _content_of(index: FileIndex, entry: Entry, store: Store) -> Iterator[Callable[[int, int], bytes]]:
    """Give a way to read at places of a file's content; of a compressed one it is kept on this machine's disk."""
    if not index.is_packed:
        yield functools.partial(store.read, entry.path)
        return
    unpacked = functools.partial(read_unpacked, store, entry)
    name = f"content of {store.name(entry.path)} {entry.size} {entry.etag}"
    size = int(index.ends[-1]) if len(index.ends) else 0
    held = hold(name, size, lambda position, count: unpacked(position, position + count))
    if held is None:  # what stands before a row is then unpacked for it; rows come in order
        yield unpacked
        return
    with held:

        def read(first: int, end: int) -> bytes:
            held.seek(first)
            return bytes(held.read(end - first))

        yield read


def _check_columns(columns: Mapping[str, Any] | Sequence[str], join: JoinSettings) -> None:
    for setting, name in (("key", join.key), ("image", join.image)):
        if name not in columns:
            raise ReadError(f"read.join.{setting} names {name!r}, but the columns are: {', '.join(columns) or 'none'}")
        if list(columns).count(name) > 1:
            raise ReadError(f"read.join.{setting} names {name!r}, which several columns are called")


def id_of(value: Any) -> str | None:
    """Return an id as text; None for what is none."""
    if type(value) not in (int, str) or value == "":
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in str(value)) else str(value)


def _picked(store: Store, entry: Entry, column: str, rows: Sequence[int]) -> dict[int, Any]:
    """Read images of some rows; where their pages are broken, what is wrong with them."""
    try:
        return use_parquet(store, entry, lambda shard: shard.pick(column, rows))
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
        if isinstance(value, str):
            image = in_data_address(value) if is_data_address(value) else inlined(value)
        else:
            image = None
    except NotBase64 as error:
        return Fault("NotBase64", str(error))
    found = f"{value[:80]!r}" if isinstance(value, str) else type(value).__name__
    return image or Fault("WrongType", f"{where} holds {found} for this id, expected the bytes of an image, or base64")


def _size(image: Bytes) -> int:
    return len(image) if isinstance(image, bytes) else 0
