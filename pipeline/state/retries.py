"""What is written down of retries: which failed rows are run again, and with which error each stood there before.

Each retry has a folder of its own in the output, with a plan like the run's; a mark says of each part that its rows are
replaced. This file knows parts and plans, and neither models nor Ray.
"""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.columns import ERROR
from pipeline.input.unit_files import units_from_parquet, units_to_parquet
from pipeline.input.units import Unit
from pipeline.state.ledger import RunError, read_settings
from pipeline.state.rewrite import RowId
from pipeline.steps.write import READERS, Part, parquet_bytes
from pipeline.storage.store import Store

RETRIES = "_triptych/retries"
PLAN = "plan.parquet"
# Beside each unit of a retry's plan: its rows as they stood in the part before.
BEFORE = pa.list_(pa.struct([("key", pa.string()), ("shard", pa.string()), ("index", pa.int64()), ("error", ERROR)]))


@dataclass(frozen=True)
class RetryPlan:
    """One retry as it was written down: its number, and the parts that it concerns, made of its units alone.

    Attributes:
        number: Its place among the retries.
        parts: What is written anew.
        run: What the run calls itself whose rows they are.
    """

    number: int
    parts: list[Part]
    run: str = ""

    @property
    def folder(self) -> str:
        """Where it stands below the output."""
        return f"{RETRIES}/{self.number:04d}"

    @property
    def units_folder(self) -> str:
        """Where its committed units stand."""
        return f"{self.folder}/units/{self.run}" if self.run else f"{self.folder}/units"

    def mark(self, part: Part) -> str:
        """Name the file that says what came of one part; its existence says that the part is written anew."""
        return f"{self.folder}/part-{part.number:05d}.json"


def last_number(store: Store) -> int:
    """Return the number of the retry that was begun last; 0 if there was none."""
    return max((number for number, name in _files(store) if name == PLAN), default=0)


def open_retry(store: Store, parts: Sequence[Part], number: int) -> RetryPlan | None:
    """Return a retry that was begun, if parts of it are still to be written anew."""
    if not number:
        return None
    plan = _read(store, number, parts)
    marks = {f"{RETRIES}/{number:04d}/{name}" for number, name in _files(store)}
    return None if {plan.mark(part) for part in plan.parts} <= marks else plan


def failed_rows(store: Store, parts: Iterable[Part]) -> list[tuple[Unit, list[dict[str, Any]]]]:
    """Return the units that hold failed rows, restricted to these, with the rows as they stand in the parts."""
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(lambda part: _failed_of(store, part), parts)
        return [pair for pairs in found for pair in pairs]


def freeze_retry(
    store: Store, parts: Sequence[Part], number: int, found: Sequence[tuple[Unit, Sequence[dict[str, Any]]]]
) -> RetryPlan:
    """Write down what is run again and how it stood there; return what another driver has, if that was faster."""
    table = pq.read_table(pa.BufferReader(units_to_parquet([unit for unit, _ in found])))
    table = table.append_column("before", pa.array([list(rows) for _, rows in found], BEFORE))
    store.publish(f"{RETRIES}/{number:04d}/{PLAN}", parquet_bytes(table))
    return _read(store, number, parts)


def restrict(parts: Iterable[Part], units: Iterable[Unit]) -> list[Part]:
    """Return the parts that some units belong to, made of these alone."""
    wanted = {unit.seq: unit for unit in units}
    narrowed = (
        replace(part, units=tuple(wanted[unit.seq] for unit in part.units if unit.seq in wanted)) for part in parts
    )
    return [part for part in narrowed if part.units]


def row_ids_of(unit: Unit) -> list[RowId]:
    """Return shard and index of all rows between a unit's start and stop."""
    if unit.paths:
        return [(path, 0) for path in unit.paths]
    return [(unit.shard, index) for index in range(unit.start, unit.stop)]


def _failed_of(store: Store, part: Part) -> list[tuple[Unit, list[dict[str, Any]]]]:
    columns = ["key", "shard", "index", "error"]
    rows = store.use(part.path, lambda file: pq.read_table(pa.PythonFile(file), columns=columns))
    failed: dict[RowId, dict[str, Any]] = {}
    for row in rows.filter(rows["error"].is_valid()).to_pylist():
        failed.setdefault((row["shard"], row["index"]), row)
    if not failed:
        return []
    found = []
    for unit in part.units:
        places = row_ids_of(unit)
        only = tuple(number for number, place in enumerate(places) if place in failed)
        if only:
            found.append((replace(unit, only=only), [failed.pop(places[number]) for number in only]))
    if failed:
        raise RunError(f"{store.name(part.path)} holds rows that are not in the plan, first {next(iter(failed))}")
    return found


def _files(store: Store) -> list[tuple[int, str]]:
    """List what retries have left, as their numbers and the names of their files."""
    pattern = re.compile(rf"{RETRIES}/(\d{{4,}})/([^/]+)")
    matches = (pattern.fullmatch(entry.path) for entry in store.list(RETRIES))
    return [(int(match[1]), match[2]) for match in matches if match]


def _read(store: Store, number: int, parts: Sequence[Part]) -> RetryPlan:
    units = units_from_parquet(store.read(f"{RETRIES}/{number:04d}/{PLAN}"))
    return RetryPlan(number, restrict(parts, units), read_settings(store).get("run", ""))
