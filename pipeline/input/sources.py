"""The data sets of a run: each is read by settings of its own, and all of them end up as rows of the same columns.

Most runs have one, which is the input that `read` names; an evaluation of several benchmarks has one for each. This
file knows how their plans follow each other, and not what is in them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.input.formats.rows import ReadError
from pipeline.input.units import InputPlan, ReadSettings, Unit


@dataclass(frozen=True)
class Source:
    """One data set of a run.

    Attributes:
        name: What the run calls it; empty for the only one.
        read: Where it lies and how it is read.
        is_raw: Whether its columns keep the names and types that they have there, all but its key and its images: a job
            that knows the data set makes columns of its own of them (`Job.adapt`). Without it, `question`, `answers`
            and `text` are made what they are called, and `read.columns` renames them.
        reads: The columns that the job reads, as our tables call them; None: all. In the others a value that does not
            fit its column does not cost the row.
    """

    name: str
    read: ReadSettings
    is_raw: bool = False
    reads: tuple[str, ...] | None = None


def join_plans(sources: Sequence[Source], plans: Sequence[InputPlan], root: str) -> InputPlan:
    """Join the plans of a run's sources: units are counted on, and each knows its source.

    Args:
        sources: All of them.
        plans: Of each.
        root: The run's own `read.uri`: shards that lie below it are called by their path from there on.

    Raises:
        ReadError: Two sources have shards of one name, so that a row's place would not tell it apart.
    """
    units: list[Unit] = []
    for source, plan in zip(sources, plans, strict=True):
        for unit in plan.units:
            placed = _placed(unit, root) if source.read.uri != root else unit
            units.append(replace(placed, seq=len(units), source=source.name, is_raw=source.is_raw))
    _refuse_shared(units)
    warnings = [warning for plan in plans for warning in plan.warnings]
    notes = [note for plan in plans for note in plan.notes]
    return InputPlan(units, list(dict.fromkeys(warnings)), list(dict.fromkeys(notes)))


def typical_unit_rows(units: Sequence[Unit]) -> int:
    """Return the rows of the largest unit of the source whose units are smallest: engines are to be full there, too."""
    largest: dict[str, int] = {}
    for unit in units:
        largest[unit.source] = max(largest.get(unit.source, 0), unit.num_rows)
    return min(largest.values())


def _placed(unit: Unit, root: str) -> Unit:
    """Return a unit whose paths begin at the run's own folder, if its files lie below."""
    folder = root.rstrip("/")
    if not unit.root.startswith(f"{folder}/"):
        return unit
    below = unit.root.removeprefix(f"{folder}/").rstrip("/")
    shard = f"{below}/{unit.shard}" if unit.shard else ""
    return replace(unit, root=folder, shard=shard, paths=tuple(f"{below}/{path}" for path in unit.paths))


def _refuse_shared(units: Sequence[Unit]) -> None:
    owners = {(unit.source, path) for unit in units for path in unit.paths or (unit.shard,)}
    counts = Counter(path for _, path in owners)
    shared = sorted(path for path, count in counts.items() if count > 1)
    if shared:
        names = ", ".join(sorted(repr(name) for name, path in owners if path == shared[0]))
        raise ReadError(
            f"sources {names} share the shard {shared[0]!r}, but a row is identified by its shard and its place there; "
            "give each source a run of its own, or a copy in a folder of its own below read.uri"
        )
