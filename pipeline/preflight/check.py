"""Check everything that can be checked before a run starts, and list all that is wrong at once.

What passes here has shown once that it works: the checkpoint's processor loads, the input can be listed, the output
can be written, the actors fit. This file starts no work.
"""

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.execution.cluster.placement import Engines, Node, Placement, PlacementError, place_actors
from pipeline.execution.cluster.start import ClusterError, nodes, start_ray
from pipeline.execution.stream import units_on_their_way
from pipeline.input.sources import typical_unit_rows
from pipeline.input.units import Unit
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.changes import refuse_changed_input
from pipeline.preflight.inputs import Plan, column_faults, cut_input, refuse_duplicates, sample_faults
from pipeline.preflight.memory import CpuEngines, store_faults, weights_faults
from pipeline.preflight.models import CHECK, check_setting, probe_check_model, probe_model
from pipeline.preflight.nodes import StoredFile, marked, probe_nodes
from pipeline.settings import ConfigError, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import read_plan
from pipeline.steps.read import job_rows_schema, settings_by_source
from pipeline.storage.model_folder import weights_digest
from pipeline.storage.probes import conditional_writes
from pipeline.storage.store import Store

log = logging.getLogger(__name__)

# Where lost nodes are replaced by themselves, that takes minutes.
REPLACED_WITHIN_S, LOOK_EVERY_S = 600.0, 15.0


@dataclass(frozen=True)
class PreflightResult:
    """What the checks have found out on their way.

    Attributes:
        model_path: Where each actor finds the checkpoint, or from where it fetches it.
        units: The plan; the frozen one where a run has started before.
        weights: Fingerprint of the checkpoint.
        is_started: Whether the output holds a run of these settings.
        is_done: Whether that run is finished.
        check_path: Where the actors find the checkpoint that checks, if any does.
        num_weights: Values that an engine loads.
        num_check_weights: The same of the checkpoint that checks.
        row_bytes: Of a row, as it is read or made ready for the model, in the units that take most; 0 where no row was
            sampled.
        unit_rows: Of the largest of these units.
        warnings: What is wrong with the input although its rows can be read, where it was planned just now.
        first_wins: Whether the output lets the first of two writers win; None where it was not tried.
        digests: Fingerprints of the checkpoints by the paths under which the actors find them.
        run: What the run in the output calls itself, if this is one that goes on.
    """

    model_path: str
    units: list[Unit]
    weights: str
    is_started: bool
    is_done: bool
    check_path: str = ""
    num_weights: int = 0
    num_check_weights: int = 0
    row_bytes: int = 0
    unit_rows: int = 0
    warnings: Sequence[str] = ()
    first_wins: bool | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    run: str = ""


def check(settings: PipelineSettings, job: Job, store: Store) -> PreflightResult:
    """Look at the output, the checkpoint and the input.

    Raises:
        ConfigError: All that is wrong with them, listed.
    """
    faults: list[str] = []
    store = store.while_looking()
    output = check_setting(faults, "write.uri", lambda: ledger.read_output(store))
    existing = ledger.existing_fault(output, settings.write.on_existing, store.uri) if output else None
    faults += [existing] if existing else []
    goes_on = output is not None and output.is_planned and settings.write.on_existing == "resume"
    is_done = output is not None and output.is_done
    asked = probe_model(faults, settings, job, is_done)
    checking = probe_check_model(faults, settings, job, is_done)
    faults += _drawing_faults(settings, job)
    processor = asked.processor if asked else None
    if goes_on:
        planned = check_setting(faults, "read", lambda: Plan(_standing_units(store, settings, job)))
    else:
        planned = cut_input(faults, settings, job, processor)
    units = planned.units if planned else []
    schema = check_setting(faults, "read", lambda: job_rows_schema(job, units)) if units else None
    columns = column_faults(schema, job) if schema else []
    # Without its columns, no row can be made ready; that is said once.
    faults += columns or (sample_faults(settings, job, planned, asked, checking) if planned else [])
    if units and job.needs_unique_keys and not goes_on:
        check_setting(faults, "read", lambda: refuse_duplicates(units, settings, job))
    first_wins = None
    if output and not output.is_done and not existing:  # last, because it is the one check that writes
        first_wins = check_setting(faults, "write.uri", lambda: _probe(store))
    if faults or not (output and asked and units):
        raise ConfigError("the run cannot start", faults)
    digests = {one.path: weights_digest([one.folder]) for one in (asked, checking) if one}
    weights = weights_digest([asked.folder, checking.folder]) if checking else digests[asked.path]
    if goes_on:
        ledger.refuse_other_answers(ledger.read_settings(store), dump_settings(settings), weights, store.uri)
        if not is_done:
            refuse_changed_input(output, units, settings, job)
    return PreflightResult(
        asked.path,
        units,
        weights,
        is_started=goes_on,
        is_done=goes_on and is_done,
        check_path=checking.path if checking else "",
        num_weights=asked.num_weights,
        num_check_weights=checking.num_weights if checking else 0,
        row_bytes=planned.row_bytes if planned else 0,
        unit_rows=planned.unit_rows if planned else 0,
        warnings=planned.warnings if planned else (),
        first_wins=first_wins,
        digests=digests,
        run=output.run if goes_on else "",
    )


def check_cluster(settings: PipelineSettings, job: Job, store: Store, ready: PreflightResult) -> tuple[Placement, str]:
    """Start or join Ray; return each step's share of it and the device that `auto` means there.

    Raises:
        ConfigError: There is no such Ray, the actors or what they hold do not fit, or a node lacks something.
    """
    faults: list[str] = []
    asked = settings.model.device
    try:
        start_ray(settings.ray)
    except ClusterError as error:
        raise ConfigError("the run cannot start", [str(error)]) from error
    there = nodes()
    engines, checking = Engines(settings.generate, asked), _checking(job)
    placement = check_setting(faults, "", lambda: place_actors(there, engines, settings.preprocess.actors, checking))
    if placement:
        faults += _memory_faults(there, settings, job, ready, placement)
    with marked(store) as paths:
        local, remote = {**_local_paths(ready, settings, job), **paths}, stored_files(ready, settings, job, store)
        # A single node is this machine, where all of it has been found already.
        faults += probe_nodes(there, job, local, remote) if len(there) > 1 else probe_nodes(there, job, {}, {})
    if faults or placement is None:
        raise ConfigError("the run cannot start", faults)
    return placement, _device(asked, placement.generate_gpus)


def place_on_remaining_nodes(settings: PipelineSettings, job: Job, devices: Mapping[str, str]) -> Placement:
    """Return each step's share of what is left after nodes were lost; wait for others while that is too little.

    Args:
        settings: The run's.
        job: The run's.
        devices: `device` and `check_device`; the answers go on coming from what they began on.

    Raises:
        PlacementError: In ten minutes the cluster has not come to hold the least of all actors.
    """
    engines = Engines(settings.generate, devices["device"])
    checking = _checking(job)
    if checking:
        checking = replace(checking, device=devices["check_device"])
    deadline = time.monotonic() + REPLACED_WITHIN_S
    while True:
        try:
            return place_actors(nodes(), engines, settings.preprocess.actors, checking)
        except PlacementError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("%s; waiting for nodes to join", error)
        time.sleep(LOOK_EVERY_S)


def check_device(job: Job, placement: Placement) -> str:
    """Return the device that the checking model's `auto` means there."""
    checking = _checking(job)
    return _device(checking.device, placement.check_gpus) if checking else ""


def _standing_units(store: Store, settings: PipelineSettings, job: Job) -> list[Unit]:
    """Read the plan of a run that goes on.

    Raises:
        ValueError: It has sources that these settings do not name.
    """
    units = read_plan(store)
    names = settings_by_source(job, settings.read)
    if others := sorted({unit.source for unit in units} - names.keys()):
        raise ValueError(
            f"the run in {store.uri} reads {_sources(others)}, but these settings {_sources(names)}; expected those "
            "that the run began with, or write.on_existing=replace"
        )
    return units


def _sources(names: Iterable[str]) -> str:
    return ", ".join(names) or "one input without a name"


def _roots(units: Sequence[Unit]) -> dict[str, Unit]:
    """Return where the input lies, and the first unit of each place."""
    return {unit.root: unit for unit in reversed(units)}


def _local_paths(ready: PreflightResult, settings: PipelineSettings, job: Job) -> dict[str, str]:
    """Return what the settings name by a local path, and the setting of each."""
    roots = dict.fromkeys(_roots(ready.units), "read.uri")
    sources = settings_by_source(job, settings.read).values()
    roots |= {uri: setting for read in sources for setting, uri in read.elsewhere.items()}
    named = {**roots, ready.model_path: "model.path", ready.check_path: f"{CHECK}model.path"}
    return {path: setting for path, setting in named.items() if os.path.exists(path)}


def stored_files(ready: PreflightResult, settings: PipelineSettings, job: Job, store: Store) -> dict[str, StoredFile]:
    """Return, for each setting that may name a store, what each node asks it for."""
    storage, sources = settings.read.storage, settings_by_source(job, settings.read)
    models = {"model.path": ready.model_path, f"{CHECK}model.path": ready.check_path}
    places = {setting: (Store(path, storage), "config.json") for setting, path in models.items() if "://" in path}
    reads = {
        f"read.uri of {unit.source}" if unit.source else "read.uri": (
            Store(root, sources[unit.source].storage),
            unit.shard or unit.paths[0],
        )
        for root, unit in _roots(ready.units).items()
    }
    return {**reads, "write.uri": (store, ledger.PLAN), **places}


def _memory_faults(
    there: Sequence[Node], settings: PipelineSettings, job: Job, ready: PreflightResult, placement: Placement
) -> list[str]:
    engines = []
    if not placement.generate_gpus:
        engines.append(CpuEngines("", placement.generate_actors, settings.model.dtype, ready.num_weights))
    if job.check and not placement.check_gpus:
        dtype = job.check.settings.model.dtype
        engines.append(CpuEngines(CHECK, placement.check_actors, dtype, ready.num_check_weights))
    check_slots = job.check.settings.generate.slots if job.check else 0
    usual = typical_unit_rows(ready.units)
    units = min(len(ready.units), units_on_their_way(placement, settings.generate.slots, usual, check_slots))
    return weights_faults(there, engines) + store_faults(there, ready.row_bytes, ready.unit_rows, units)


def _device(asked: str, gpus: float) -> str:
    return asked if asked != "auto" else "cuda" if gpus else "cpu"


def _checking(job: Job) -> Engines | None:
    if job.check is None:
        return None
    return Engines(job.check.settings.generate, job.check.settings.model.device, CHECK)


def _drawing_faults(settings: PipelineSettings, job: Job) -> list[str]:
    faults = []
    if job.picture is None and settings.write.webdataset:
        faults.append(f"write.webdataset: found true, but job {job.kind} draws no pictures")
    ignored = sorted({"max_new_tokens", "stop"} & settings.generate.sampling.model_fields_set) if job.picture else []
    faults += [f"generate.sampling.{name}: a picture ends when it is whole; remove this setting" for name in ignored]
    if job.picture is not None and settings.generate.slots < 2:
        faults.append("generate.slots: found 1, expected at least 2: a picture with guidance takes two")
    return faults


def _probe(store: Store) -> bool:
    first_wins = conditional_writes(store)
    if not first_wins:
        # Names and contents are deterministic, so two writers of one object still leave equal bytes.
        log.warning("%s lets a later writer win over an earlier one; do not run twice at once", store.uri)
    return first_wins
