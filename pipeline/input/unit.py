"""A unit: consecutive rows of one shard that are read, answered and committed together, and all it takes to read them.

How an input is cut into units, units.py knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.input.columns import IMAGE_PATH, OURS, UNREAD
from pipeline.input.formats.rows import Shape
from pipeline.input.formats.table import Format
from pipeline.input.read_settings import ReadSettings as ReadSettings
from pipeline.storage.store import Entry


@dataclass(frozen=True)
class Unit:
    """Consecutive rows of one shard, and all it takes to read them.

    Attributes:
        seq: Place in the run.
        root: The uri below which `shard` and `paths` lie.
        shard: Path of the shard; empty where every file is a shard of one row.
        format: How the shard is read.
        start: First row in the shard (or in the sorted listing).
        stop: One more than the last row.
        schema: The columns that reading gives, serialized; the same in every unit of a source.
        first_byte: Where the rows begin in a tar or a file of lines.
        end_byte: Where they end.
        size: Bytes of the shard when it was planned; of all files, where each is a row.
        etag: What its listing said of the content then (see `Entry`); one tag of all files, where each is a row.
        paths: The files, where each is a row.
        header: The cells' names in a CSV shard.
        is_packed: Whether the shard is a gzip stream; its bytes are counted in its content.
        only: Which of these rows are wanted, counted from `start`; empty means all.
        source: The data set of the run that they belong to; empty where there is one.
        is_raw: Whether its columns keep their own names and types (see `pipeline.input.sources.Source`).
        join_size: Bytes of the files in which images are looked up, where they are.
        join_etag: One tag of all of these files.
        shape: What the rows are beyond their format (see `pipeline.input.formats.shapes`); empty in older plans.
        sidecars: Where every file is a row, the extensions of the files beside each, joined by commas; empty if none
            has any. Their sizes and tags count among `size` and `etag`.
        pages: Where the pages lie in a large row group of Parquet (see pipeline/input/formats/page_cuts.py).
        hive: Columns that come from the names of the shard's folders (see pipeline/input/hive.py).
        skipped: Rows that stand in the unit's bytes before its first one: an Arrow shard is read by whole batches.
    """

    seq: int
    root: str
    shard: str
    format: Format
    start: int
    stop: int
    schema: bytes
    first_byte: int = 0
    end_byte: int = 0
    size: int = 0
    etag: str | None = None
    paths: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    is_packed: bool = False
    only: tuple[int, ...] = ()
    source: str = ""
    is_raw: bool = False
    join_size: int = 0
    join_etag: str | None = None
    shape: Shape = ""
    sidecars: tuple[str, ...] = ()
    pages: tuple[int, ...] = ()
    skipped: int = 0
    hive: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The unit's name in the ledger: its place, so that names sort as the rows do."""
        return f"{self.seq:08d}"

    @property
    def num_rows(self) -> int:
        """How many rows reading the unit gives."""
        return len(self.only) or self.stop - self.start

    @property
    def planned(self) -> Entry:
        """The shard as it was when it was planned; where each file is a row, all of them as one."""
        return Entry(self.shard, self.size, self.etag)

    @property
    def planned_join(self) -> Entry:
        """The files in which images are looked up, as one, as they were then."""
        return Entry("", self.join_size, self.join_etag)

    @property
    def table_schema(self) -> pa.Schema:
        """The columns that reading the unit gives."""
        return pa.schema([field.remove_metadata() for field in self._marked_schema])

    @property
    def unread(self) -> frozenset[str]:
        """The columns that the job does not read; older plans name none."""
        return frozenset(field.name for field in self._marked_schema if _is_marked(field, UNREAD))

    @property
    def image_path(self) -> pa.DataType | None:
        """The type of the column `image_path`, if that is ours; older plans have none."""
        ours = (field for field in self._marked_schema if field.name == IMAGE_PATH and _is_marked(field, OURS))
        return next((field.type for field in ours), None)

    @property
    def _marked_schema(self) -> pa.Schema:
        return pa.ipc.read_schema(pa.py_buffer(self.schema))


@dataclass(frozen=True)
class InputPlan:
    """The units of an input, in order, and what is wrong with shards whose rows can be read all the same.

    Attributes:
        units: All of them.
        warnings: What is wrong.
        notes: The layout of each source, for people.
    """

    units: list[Unit]
    warnings: list[str]
    notes: Sequence[str] = ()


def _is_marked(field: pa.Field, mark: Mapping[str, str]) -> bool:
    return any(name.encode() in (field.metadata or {}) for name in mark)
