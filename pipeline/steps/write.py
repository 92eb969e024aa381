"""Commit units and merge them into parts: whole objects under deterministic names, first writer wins.

A unit is committed by one conditional write; its existence is the mark that it is done. The driver merges consecutive
units into a part in one atomic step and then removes them. This file knows nothing of models and of Ray.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.input.units import Unit
from pipeline.rows import IMAGES, ODDITIES, UNIT, UNIT_ROWS, count_rows
from pipeline.steps.tars import has_pictures, part_tar, tar_path
from pipeline.storage.store import NotFound, Store

UNITS = "_triptych/units"
PART_NAME = re.compile(r"part-(\d{5,})\.parquet")
ROW_GROUP_ROWS = 4096
# Of pictures: who wants to see a few of a part reads the groups they lie in.
ROW_GROUP_BYTES = 16 * 2**20
READERS = 8
FAILURE = pa.struct(
    [
        ("stage", pa.string()),
        ("type", pa.string()),
        ("count", pa.int64()),
        ("key", pa.string()),
        ("message", pa.string()),
    ]
)
ODDITIES_IN_FOOTER = b"triptych.oddities"


@dataclass(frozen=True)
class Part:
    """One output file: its number and the consecutive units that it holds.

    Attributes:
        number: Its place among the parts.
        units: What it is made of.
        tar_text: The column whose texts stand beside its images in a tar; empty if there is no tar.
    """

    number: int
    units: tuple[Unit, ...]
    tar_text: str = ""

    @property
    def path(self) -> str:
        """Where it stands below the output."""
        return f"part-{self.number:05d}.parquet"


def plan_parts(
    units: Sequence[Unit], rows_per_part: int, *, first_rows: int | None = None, tar_text: str = ""
) -> list[Part]:
    """Say which units form which part. It depends on the plan alone, so two runs cut alike.

    Args:
        units: The plan.
        rows_per_part: The most rows of a part; a larger unit is one by itself.
        first_rows: Of the first part, if these are others.
        tar_text: See `Part`.
    """
    sizes: list[int] = []
    rows = 0
    for unit in units:
        limit = first_rows if len(sizes) == 1 and first_rows else rows_per_part
        if not sizes or rows + unit.num_rows > limit:
            sizes.append(0)
            rows = 0
        sizes[-1] += 1
        rows += unit.num_rows
    return group_units(units, sizes, tar_text=tar_text)


def group_units(units: Sequence[Unit], sizes: Sequence[int], *, tar_text: str = "") -> list[Part]:
    """Make parts of consecutive units, so many of each."""
    starts = [0, *accumulate(sizes)]
    return [Part(number, tuple(units[start:stop]), tar_text) for number, (start, stop) in enumerate(pairwise(starts))]


def unit_path(name: str, folder: str = UNITS) -> str:
    """Where a committed unit stands below the output."""
    return f"{folder}/{name}.parquet"


def commit_unit(block: pa.Table, store: Store, folder: str = UNITS) -> pa.Table:
    """Write one answered unit as one object into `folder`, and return a line of numbers about it.

    Raises:
        ValueError: The block is not one whole unit; writing it would lose or double rows.
    """
    names = pc.unique(block.column(UNIT)).to_pylist()
    if len(names) != 1:
        raise ValueError(f"a block holds rows of {len(names)} units {names[:3]}, expected exactly one")
    found, expected = count_rows(block), block.column(UNIT_ROWS)[0].as_py()
    if found != expected:
        raise ValueError(f"unit {names[0]} has {found} rows, the plan says {expected}")
    odd = oddities_of(block)
    block = block.drop_columns([ODDITIES]) if ODDITIES in block.column_names else block
    data = parquet_bytes(with_oddities(block.drop_columns([UNIT, UNIT_ROWS]), odd))
    store.publish(unit_path(names[0], folder), data)
    numbers = {
        "unit": names,
        "rows": [found],
        "answers": [block.num_rows],
        "failed": [block.num_rows - block.column("error").null_count],
        "prompt_tokens": [pc.sum(block.column("prompt_tokens")).as_py() or 0],
        "output_tokens": [pc.sum(block.column("output_tokens")).as_py() or 0],
        "failures": pa.array([_failures(block)], pa.list_(FAILURE)),
    }
    return pa.table(numbers)


def _failures(block: pa.Table) -> list[dict[str, Any]]:
    """Count a unit's failed rows by their kind, with the first of each kind as an example."""
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    failed = block.select(["key", "error"]).filter(block.column("error").is_valid())
    for row in failed.to_pylist():
        error = row["error"]
        kind = {**error, "count": 0, "key": row["key"]}
        kinds.setdefault((error["stage"], error["type"]), kind)["count"] += 1
    return list(kinds.values())


def parquet_bytes(table: pa.Table) -> bytes:
    """Serialise a table so that equal rows give equal bytes, however the table was put together."""
    sink = io.BytesIO()
    group_rows = _group_rows(table)
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        for start in range(0, table.num_rows, group_rows):
            # Where one chunk ends and the next begins shows in the file, as the ends of pages.
            writer.write_table(table.slice(start, group_rows).combine_chunks(), row_group_size=group_rows)
    return sink.getvalue()


def _group_rows(table: pa.Table) -> int:
    if not has_pictures(table.schema):
        return ROW_GROUP_ROWS
    num_bytes = int(pc.sum(pc.binary_length(table["image"])).as_py() or 0)
    return max(1, min(ROW_GROUP_ROWS, int(table.num_rows) * ROW_GROUP_BYTES // max(1, num_bytes)))


class Parts:
    """The driver's view of the parts: it merges each as soon as the last of its units is committed.

    What is complete at the start is merged at once; later ones on a thread, one after another, so that a slow store
    holds up nothing.
    """

    def __init__(
        self,
        store: Store,
        parts: Iterable[Part],
        committed: Iterable[str],
        schema: pa.Schema,
        merge: "Callable[[Store, Part, pa.Schema], None] | None" = None,
    ) -> None:
        """Start from what is there.

        Args:
            store: The output.
            parts: Those that do not stand there yet.
            committed: Names of committed units.
            schema: Every part has it.
            merge: Makes a part; `merge_part` if it is not said.
        """
        self._store = store
        self._merge = merge or merge_part
        self._schema = schema
        self._part_of = {unit.name: part for part in parts for unit in part.units}
        self._missing = {part.number: {unit.name for unit in part.units} for part in self._part_of.values()}
        self._merger = ThreadPoolExecutor(1, thread_name_prefix="merge")
        self._failure: Exception | None = None
        for name in committed:
            if part := self._completed(name):
                self._merge(self._store, part, self._schema)

    @property
    def missing_units(self) -> set[str]:
        """Names of units that are not committed."""
        return {name for names in self._missing.values() for name in names}

    def add(self, name: str) -> None:
        """Take note of a committed unit, and have its part merged if it was the last one.

        Raises:
            Exception: What an earlier merge failed of.
        """
        if self._failure:
            raise self._failure
        if part := self._completed(name):
            self._merger.submit(self._merge_next, part)

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Wait until all that is complete is merged; after an error, for the merge that is under way alone.

        Raises:
            Exception: What a merge failed of.
        """
        self._merger.shutdown(cancel_futures=error is not None)
        if error is None and self._failure:
            raise self._failure

    def _merge_next(self, part: Part) -> None:
        """Merge a part unless an earlier one failed: where the store is gone, each would wait for it in vain."""
        if self._failure is None:
            try:
                self._merge(self._store, part, self._schema)
            except Exception as error:  # raised again where the run hears of it
                self._failure = error

    def _completed(self, name: str) -> Part | None:
        """Note that a unit is committed; return its part if that was the last one."""
        part = self._part_of.get(name)
        if part is None or part.number not in self._missing:
            return None
        self._missing[part.number].discard(name)
        if self._missing[part.number]:
            return None
        del self._missing[part.number]
        return part


def merge_part(
    store: Store, part: Part, schema: pa.Schema, folder: str = UNITS, check: Callable[[], None] = lambda: None
) -> None:
    """Publish a part made of its committed units, its tar before it, then remove those.

    Where the part stands, so does the tar; one whose part a crash kept away has the bytes that it would get again.

    Args:
        store: The output.
        part: What to make.
        schema: The part gets it.
        folder: Where the units stand.
        check: Called before and after anything is written; raises if this run may write there no more.

    Raises:
        ValueError: A unit has not the rows that the plan gives it.
    """
    try:
        with ThreadPoolExecutor(READERS) as readers:
            of_units = unit_schema(part, schema)
            tables = list(readers.map(lambda unit: read_unit_rows(store, unit, of_units, folder), part.units))
        rows = with_oddities(pa.concat_tables(tables), sum((oddities_in(table.schema) for table in tables), Counter()))
        check()
        if part.tar_text:
            _publish(store, tar_path(part.number), part_tar(part.number, rows, part.tar_text), check)
        _publish(store, part.path, parquet_bytes(without_images(rows)), check)
    except NotFound:
        check()
        # Another driver may have merged the part and removed its units under our hands; anything else is an error.
        if not store.exists(part.path):
            raise
    store.delete([unit_path(unit.name, folder) for unit in part.units])


def _publish(store: Store, path: str, data: bytes, check: Callable[[], None]) -> None:
    """Write what units make, and take it back if the output became another run's while it was under way."""
    is_ours = store.publish(path, data)
    try:
        check()
    except Exception:  # if it is only that the check failed, the units still stand, and it is made of them again
        if is_ours:
            store.delete([path])
        raise


def unit_schema(part: Part, schema: pa.Schema) -> pa.Schema:
    """Return the columns of a part's units: those that rows have beside them are for the tar alone."""
    return schema.append(IMAGES) if part.tar_text and not has_pictures(schema) else schema


def without_images(rows: pa.Table) -> pa.Table:
    """Return rows as a part has them."""
    return rows.drop_columns([IMAGES.name]) if IMAGES.name in rows.column_names else rows


def read_unit_rows(store: Store, unit: Unit, schema: pa.Schema, folder: str = UNITS) -> pa.Table:
    """Read a committed unit.

    Raises:
        ValueError: It has not the rows that the plan gives it.
    """
    path = unit_path(unit.name, folder)
    table = pq.read_table(io.BytesIO(store.read(path)))
    found = count_rows(table)
    if found != unit.num_rows:
        raise ValueError(f"{store.name(path)} has {found} rows, the plan says {unit.num_rows}")
    return with_oddities(table.cast(schema), oddities_in(table.schema))


def oddities_of(block: pa.Table) -> Counter[str]:
    """Count what was odd about the images of a unit's rows that are well; failed rows have an error to tell of them."""
    if ODDITIES not in block.column_names:
        return Counter()
    well = block.column(ODDITIES).filter(block.column("error").is_null())
    return Counter(pc.list_flatten(well).to_pylist())


def oddities_in(schema: pa.Schema) -> Counter[str]:
    """Return what was counted of the rows of a unit or part; it stands beside the columns in the footer."""
    return Counter(json.loads((schema.metadata or {}).get(ODDITIES_IN_FOOTER, b"{}")))


def with_oddities(rows: pa.Table, odd: Mapping[str, int]) -> pa.Table:
    """Return the rows with such counts for their footer; none where there is nothing to count."""
    counts = {ODDITIES_IN_FOOTER: json.dumps(dict(sorted(odd.items())))} if odd else None
    return rows.replace_schema_metadata(counts)
