"""Compare what a disturbed run has left with the input and the undisturbed run. It knows nothing of how it came."""

import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage.store import Store
from tests.chaos.scene import Scene
from tests.promise import part_faults, table_faults

PART = re.compile(r"part-\d{5,}\.parquet")
BELONGS = re.compile(
    r"part-\d{5,}\.parquet|_SUCCESS|_report/(report\.(json|html|md)|config\.yaml|unread\.jsonl)|_triptych/(settings\.json|plan\.parquet)"
    r"|_triptych/progress\.json"
    r"|_triptych/attempts/[^/.]+\.json"
)

Poison = Mapping[str, str]  # the key of a row that kills its process: the stage of its error


@dataclass(frozen=True)
class Verdict:
    """What became of the rows.

    Attributes:
        lost: Rows of the input that are not in the parts.
        doubled: Rows that are there more than once.
        wrong_errors: Error rows that should not be, or rows without the error that they should have.
        is_equal: Whether the parts are those of the undisturbed run, as far as a run promises (tests/promise.py); where
            rows were poisoned, whether all others are.
        is_ordered: Whether the rows stand in the order of the input.
        strays: Files that no reader or later run has a use for.
    """

    lost: int
    doubled: int
    wrong_errors: tuple[str, ...]
    is_equal: bool
    is_ordered: bool
    strays: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """Everything that is wrong, in words."""
        said = {
            f"{self.lost} rows are lost": self.lost,
            f"{self.doubled} rows are doubled": self.doubled,
            f"errors that should not be: {', '.join(self.wrong_errors[:5])}": self.wrong_errors,
            "the parts differ from the undisturbed run's": not self.is_equal,
            "the rows are out of order": not self.is_ordered,
            f"stray files: {', '.join(self.strays[:5])}": self.strays,
        }
        return [text for text, is_so in said.items() if is_so]


def judge(scene: Scene, output: Store, poison: Poison | None = None) -> Verdict:
    """Look at everything in an output."""
    poisoned = dict(poison or {})
    names = all_files(output)
    parts = {name: output.read(name) for name in names if PART.fullmatch(name)}
    table, expected = rows_of(parts), rows_of(scene.parts)
    keys = table["key"].to_pylist()
    counted = Counter(keys)
    return Verdict(
        lost=len(set(scene.keys) - set(keys)),
        doubled=sum(count - 1 for count in counted.values()),
        wrong_errors=tuple(_wrong_errors(table, expected, poisoned)),
        is_equal=not (_other_rows(table, expected, poisoned) if poisoned else part_faults(parts, scene.parts)),
        is_ordered=keys == [key for key in scene.keys if key in counted],
        strays=tuple(name for name in names if not BELONGS.fullmatch(name)),
    )


def all_files(output: Store) -> list[str]:
    """List every file of an output; on a disk also those that a Store does not show."""
    if not output.is_local:
        return [entry.path for entry in output.list()]
    root = Path(output.uri)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def rows_of(parts: Mapping[str, bytes]) -> pa.Table:
    """Read parts as one table, in the order of their names."""
    if not parts:
        return pa.table({"key": pa.array([], pa.string()), "error": pa.nulls(0)})
    return pa.concat_tables([pq.read_table(io.BytesIO(data)) for _, data in sorted(parts.items())])


def _other_rows(found: pa.Table, expected: pa.Table, poison: Poison) -> list[str]:
    """Say where rows that are not poisoned are not those expected."""
    return table_faults(_without(found, poison), _without(expected, poison))


def _without(table: pa.Table, poison: Poison) -> pa.Table:
    is_poisoned = pc.is_in(table["key"], value_set=pa.array(list(poison), pa.string()))
    return table.filter(pc.invert(is_poisoned)).combine_chunks()


def _wrong_errors(table: pa.Table, expected: pa.Table, poison: Poison) -> list[str]:
    """Say which rows have another error, or none, than they should."""
    right = {key: _kind(error) for key, error in _errors(expected).items()}
    right |= {key: (stage, "WorkerDied") for key, stage in poison.items()}
    found = _errors(table)
    wrong = [f"{key}: {error}" for key, error in found.items() if right.get(key) != _kind(error)]
    return wrong + [f"{key}: none, expected {right[key]}" for key in right if key not in found]


def _errors(table: pa.Table) -> dict[str, Mapping[str, Any]]:
    pairs = zip(table["key"].to_pylist(), table["error"].to_pylist(), strict=True)
    return {key: error for key, error in pairs if error is not None}


def _kind(error: Mapping[str, Any]) -> tuple[str, str]:
    return error["stage"], error["type"]
