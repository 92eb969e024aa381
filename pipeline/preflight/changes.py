"""See, before a run goes on, whether the input that it has still to read is what was planned.

Names, sizes and versions from one listing tell: no file is opened, and units that are committed are not asked about.
"""

from collections.abc import Mapping, Sequence

from pipeline.input.joins import join_version
from pipeline.input.shards import change, joined, list_files
from pipeline.input.sidecars import sidecar_paths
from pipeline.input.stretches import older_fault
from pipeline.input.units import ReadSettings, Unit
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.settings import ConfigError
from pipeline.state.ledger import Output
from pipeline.steps.read import settings_by_source
from pipeline.steps.write import Part
from pipeline.storage.store import Entry, StorageError, Store

MOST_SAID = 5


def refuse_changed_input(output: Output, parts: Sequence[Part], settings: PipelineSettings, job: Job) -> None:
    """Refuse to go on where a file of a unit that is not yet committed is gone or another than when it was planned.

    Raises:
        ConfigError: It names the shards, or the files of a unit, and says what has changed.
    """
    shards = {unit.shard or unit.name: unit for unit in _left(output, parts)}
    if not shards:
        return
    sources = settings_by_source(job, settings.read)
    firsts = {unit.source: unit for unit in shards.values()}
    listed = _listed([sources[name] for name in firsts])
    faults = [fault for unit in shards.values() if (fault := _fault(unit, listed, sources[unit.source].on_changed))]
    faults += [fault for name, unit in firsts.items() if (fault := join_fault(unit, sources[name]))]
    if not faults:
        return
    more = [f"... and so on, {len(faults)} in all"] if len(faults) > MOST_SAID else []
    advice = (
        "put the old files back (cp -p and rsync -a keep a file's time), write elsewhere, or start over with "
        "write.on_existing=replace; if only their times or tags are new, go on with read.on_changed=accept"
    )
    raise ConfigError("the input is not what it was when the run was planned", [*faults[:MOST_SAID], *more, advice])


def join_fault(unit: Unit, read: ReadSettings) -> str | None:
    """Say how the table in which a unit's images are looked up has changed since it was planned."""
    if read.join is None:
        return None
    try:
        version = join_version(read.join, read.storage)
    except StorageError as error:
        return f"read.join.uri: {error}"
    difference = version and change(version, unit.planned_join, read.on_changed)
    return f"{read.join.uri}: {difference}" if difference else None


def _left(output: Output, parts: Sequence[Part]) -> list[Unit]:
    """Return the units that are neither in a part nor committed."""
    missing = (part for part in parts if part.number not in output.parts)
    return [unit for part in missing for unit in part.units if unit.name not in output.units]


def _listed(sources: Sequence[ReadSettings]) -> dict[str, Entry]:
    """List the files of sources, by their whole names.

    Raises:
        ConfigError: A source cannot be listed; all those are named.
    """
    found: dict[str, Entry] = {}
    faults = []
    for read in sources:
        try:
            store, entries = list_files(read.uri, read.storage)
        except StorageError as error:
            faults.append(f"read: {error}")
            continue
        found |= {_whole(store.uri, entry.path): entry for entry in entries}
    if faults:
        raise ConfigError("the run cannot start", faults)
    return found


def _whole(root: str, path: str) -> str:
    return f"{root.removesuffix('/')}/{path}"


def _fault(unit: Unit, listed: Mapping[str, Entry], on_changed: str) -> str | None:
    paths, store = [*(unit.paths or (unit.shard,)), *sidecar_paths(unit.paths, unit.sidecars)], Store(unit.root)
    found = {path: entry for path in paths if (entry := listed.get(_whole(unit.root, path)))}
    if gone := [path for path in paths if path not in found]:
        more = f" (and {len(gone) - 1} more files of its unit)" if len(gone) > 1 else ""
        return f"{store.name(gone[0])}: is missing{more}"
    if older := older_fault(unit):
        return f"{store.name(unit.shard)}: {older}"
    if unit.paths and unit.etag is None:  # the plan of an older version, which says nothing of files that are rows
        return None
    now = joined([found[path] for path in paths]) if unit.paths else found[unit.shard]
    difference = change(now, unit.planned, on_changed)
    first, last = store.name(paths[0]), paths[-1]
    name = f"the {len(paths)} files from {first} to {last}" if unit.paths else first
    return f"{name}: {difference}" if difference else None
