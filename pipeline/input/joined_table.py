"""A table of images that is looked into by id: Parquet, or CSV and TSV with images in base64.

Where each id stands is read once; of the images a bounded number of bytes is held. It knows formats, and nothing of the
rows that look.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.input.formats import manifest, parquet
from pipeline.input.formats.inline import NotBase64, inlined
from pipeline.input.formats.rows import Fault, ReadError
from pipeline.input.read_settings import JoinSettings
from pipeline.input.shards import Shards
from pipeline.storage.store import Entry, StorageError, Store

# Questions on one image follow each other, more or less: so much is held of those looked up last.
HELD_BYTES = 64 * 2**20

Bytes = bytes | Fault


@dataclass(frozen=True)
class Places:
    """Where the ids of one file stand.

    Attributes:
        ids: As text; null where a row has none.
        firsts: Of each the row, or in a text file its first byte.
        ends: In a text file the byte after it.
        column: Which cell holds the image in a text file.
    """

    ids: pa.Array
    firsts: "np.ndarray[Any, np.dtype[np.int64]]"
    ends: "np.ndarray[Any, np.dtype[np.int64]]"
    column: int = 0


@dataclass
class Table:
    """A table of images that is looked into.

    Attributes:
        shards: Its files.
        join: What its columns are called.
        ids: Of all files, one after the other.
        places: Of each file.
        starts: At which id each file begins.
        held: Images looked up lately, by the place of their id.
    """

    shards: Shards
    join: JoinSettings
    ids: pa.Array
    places: Sequence[Places]
    starts: "np.ndarray[Any, np.dtype[np.int64]]"
    held: "OrderedDict[int, Bytes]" = field(default_factory=OrderedDict)
    held_bytes: int = 0

    def images(self, ids: Collection[str]) -> dict[str, Bytes]:
        """Return the image of each id, or what is wrong with it.

        Raises:
            StorageError: The store refuses or does not answer.
        """
        asked = sorted(set(ids))
        found = pc.index_in(pa.array(asked, pa.string()), value_set=self.ids).to_pylist()
        place_of = {name: place for name, place in zip(asked, found, strict=True) if place is not None}
        images = self._fetched(place_of.values())
        return {name: images[place_of[name]] if name in place_of else self._unknown(name) for name in asked}

    def _fetched(self, places: Collection[int]) -> dict[int, Bytes]:
        images = {place: self.held[place] for place in places if place in self.held}
        missing = sorted(set(places) - images.keys())
        number = np.searchsorted(self.starts, missing, side="right") - 1
        for file in np.unique(number).tolist():
            here = [place for place, of in zip(missing, number.tolist(), strict=True) if of == file]
            images |= self._read(file, here)
        for place, image in images.items():
            self._hold(place, image)
        return images

    def _read(self, file: int, places: Sequence[int]) -> dict[int, Bytes]:
        start, known = int(self.starts[file]), self.places[file]
        path = self.shards.entries[file].path
        if self.shards.format == "parquet":
            rows = {place: int(known.firsts[place - start]) for place in places}
            values = _picked(self.shards.store, path, self.join.image, list(rows.values()))
            return {place: _image(values[row], self._name(path)) for place, row in rows.items()}
        stretches = {place: (int(known.firsts[place - start]), int(known.ends[place - start])) for place in places}
        return {place: self._cell(path, *stretch, known.column) for place, stretch in stretches.items()}

    def _cell(self, path: str, first: int, end: int, column: int) -> Bytes:
        data = self.shards.store.read(path, first, end)
        (values,) = manifest.cells(data, manifest.dialect_of(self.shards.format, quotes=self.join.quotes))
        return _image(values[column] if column < len(values) else None, self._name(path))

    def _hold(self, place: int, image: Bytes) -> None:
        """Keep an image for rows to come, and let go of those that nobody has asked for longest."""
        if place in self.held:
            self.held.move_to_end(place)
            return
        self.held[place] = image
        self.held_bytes += _size(image)
        while self.held_bytes > HELD_BYTES and len(self.held) > 1:
            _, gone = self.held.popitem(last=False)
            self.held_bytes -= _size(gone)

    def _unknown(self, name: str) -> Fault:
        where = self.shards.store.name("") if len(self.places) > 1 else self._name(self.shards.entries[0].path)
        return Fault("UnknownId", f"{name[:80]!r} is not among the {len(self.ids)} ids in {self.join.key!r} of {where}")

    def _name(self, path: str) -> str:
        return self.shards.store.name(path)


def index_table(shards: Shards, join: JoinSettings) -> Table:
    """Read where every id stands; of Parquet only the column with the ids.

    Raises:
        ReadError: A column is missing, or two rows have one id.
        StorageError: The store refuses or does not answer.
    """
    places = [_places(shards, entry, join) for entry in shards.entries]
    ids = pa.concat_arrays([one.ids for one in places])
    counts = pc.value_counts(ids.drop_null())
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[:3].to_pylist()
    if twice:
        listed = ", ".join(map(repr, twice))
        raise ReadError(
            f"{shards.store.name('')}: several rows have the id {listed} in {join.key!r}, expected one each"
        )
    starts = np.cumsum([0, *(len(one.ids) for one in places)])[:-1]
    return Table(shards, join, ids, places, starts)


def _places(shards: Shards, entry: Entry, join: JoinSettings) -> Places:
    def look(file: BinaryIO) -> Places:
        if shards.format == "parquet":
            return _places_in_parquet(file, join)
        return _places_in_cells(file, manifest.dialect_of(shards.format, quotes=join.quotes), join)

    try:
        return shards.store.use(entry.path, look)
    except ReadError as error:
        raise ReadError(f"read.join: {shards.store.name(entry.path)}: {error}") from error


def _places_in_parquet(file: BinaryIO, join: JoinSettings) -> Places:
    fields = parquet.fields(file)
    _check_columns(fields, join)
    if fault := parquet.image_type_fault(fields[join.image]):
        raise ReadError(f"image column {join.image!r} holds {fields[join.image]}, expected {fault}")
    ids = pa.array([id_of(value) for value in parquet.column(file, join.key)], pa.string())
    rows = np.arange(len(ids), dtype=np.int64)
    return Places(ids, rows, rows)


def _places_in_cells(file: BinaryIO, dialect: manifest.Dialect, join: JoinSettings) -> Places:
    rows = manifest.cells_of(file, dialect)
    header = next(rows, manifest.Cells([], 0, 0)).values
    _check_columns(header, join)
    key = header.index(join.key)
    ids, firsts, ends = [], [], []
    for row in rows:
        ids.append(id_of(row.values[key]) if key < len(row.values) else None)
        firsts.append(row.first_byte)
        ends.append(row.end_byte)
    return Places(
        pa.array(ids, pa.string()), np.array(firsts, np.int64), np.array(ends, np.int64), header.index(join.image)
    )


def _check_columns(there: Mapping[str, Any] | Sequence[str], join: JoinSettings) -> None:
    for setting, name in (("key", join.key), ("image", join.image)):
        if name not in there:
            raise ReadError(f"read.join.{setting} names {name!r}, but the columns are: {', '.join(there) or 'none'}")


def id_of(value: Any) -> str | None:
    """Return an id as text; None for what is none."""
    if type(value) not in (int, str) or value == "":
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in str(value)) else str(value)


def _picked(store: Store, path: str, column: str, rows: Sequence[int]) -> Mapping[int, Any]:
    """Read images of some rows; where their pages are broken, what is wrong with them."""
    try:
        return store.use(path, lambda file: parquet.pick(file, column, rows))
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
    return image or Fault(
        "WrongType", f"the row of the id holds {found} in {where}, expected an image's bytes or base64"
    )


def _size(image: Bytes) -> int:
    return len(image) if isinstance(image, bytes) else 0
