"""Check everything that can be checked before a run starts, and list all that is wrong at once.

What passes here has shown once that it works: the checkpoint's processor loads, the input can be listed, the output
can be written, the actors fit. This file starts no work.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipeline.execution.cluster.placement import Node, Placement, place_actors
from pipeline.execution.cluster.start import ClusterError, foreseen_nodes, nodes, start_ray
from pipeline.execution.stream import units_on_their_way
from pipeline.input.shards import find_shards
from pipeline.input.sources import typical_unit_rows
from pipeline.input.units import Unit
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.changes import refuse_changed_input
from pipeline.preflight.inputs import Plan, column_faults, cut_input, refuse_duplicates, sample_faults
from pipeline.preflight.memory import CpuEngines, store_faults, weights_faults
from pipeline.preflight.models import ModelProbe, check_setting, is_at_hand, probe_model
from pipeline.preflight.nodes import StoredFile, marked, probe_nodes
from pipeline.settings import ConfigError, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import frozen_parts, read_plan
from pipeline.steps.engine import EngineSpec, answering_engine, checking_engine
from pipeline.steps.read import job_rows_schema, settings_by_source
from pipeline.storage.model_folder import local_copy, weights_digest
from pipeline.storage.probes import conditional_writes
from pipeline.storage.store import StorageError, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreflightResult:
    """What the checks have found out on their way.

    Attributes:
        answering: The model that answers.
        checking: The model that checks, if any.
        plan: The units; the frozen ones where a run has started before.
        weights: Fingerprint of the checkpoints, together.
        is_started: Whether the output holds a run of these settings.
        is_done: Whether that run is finished.
        first_writer_wins: Whether the output lets the first of two writers win; None where it was not tried.
        run: What the run in the output calls itself, if this is one that goes on.
    """

    answering: ModelProbe
    checking: ModelProbe | None
    plan: Plan
    weights: str
    is_started: bool
    is_done: bool
    first_writer_wins: bool | None = None
    run: str = ""

    @property
    def models(self) -> list[ModelProbe]:
        """The one model, or both."""
        return [self.answering, self.checking] if self.checking else [self.answering]


@dataclass(frozen=True)
class Known:
    """What is known to be wrong before anything is looked at, so that it can be said together with the rest.

    Attributes:
        faults: One sentence each.
        doubtful: Settings that stand in for wrong ones; nothing that hangs on them is checked.
    """

    faults: Sequence[str] = ()
    doubtful: frozenset[str] = frozenset()

    def is_sure(self, *settings: str) -> bool:
        """Say whether neither these settings or sections, nor any above or below them, stand in for others."""
        return not any(
            f"{one}.".startswith(f"{name}.") or f"{name}.".startswith(f"{one}.")
            for one in self.doubtful
            for name in settings
        )


def check(settings: PipelineSettings, job: Job, store: Store, known: Known = Known()) -> PreflightResult:
    """Look at the output, the checkpoint and the input.

    Args:
        settings: The run's.
        job: The run's.
        store: The output.
        known: What is wrong already; then this ends with an error.

    Raises:
        ConfigError: All that is wrong with them, listed.
    """
    faults = list(known.faults)
    store = store.while_looking()
    if faults:
        raise ConfigError("the run cannot start", faults + _further_faults(settings, job, store, known))
    output = _read_output(faults, settings, store)
    goes_on = output is not None and output.is_planned and settings.write.on_existing == "resume"
    is_done = output is not None and output.is_done
    engines = [answering_engine(settings, job), *filter(None, [checking_engine(job)])]
    if not goes_on and not all(is_at_hand(engine.model.path) for engine in engines):
        _refuse_before_fetching(faults, settings, job)
    probes = [probe_model(faults, engine, job, settings.read.storage, is_done) for engine in engines]
    answering, checking = probes[0], probes[1] if job.check else None
    faults += _drawing_faults(settings, job)
    if goes_on:
        planned = check_setting(faults, "read", lambda: Plan(_standing_units(store, settings, job)))
    else:
        planned = cut_input(faults, settings, job, answering.processor if answering else None)
    units = planned.units if planned else []
    schema = check_setting(faults, "read", lambda: job_rows_schema(job, units)) if units else None
    columns = column_faults(schema, job) if schema else []
    # Without its columns, no row can be made ready; that is said once.
    faults += columns or (sample_faults(settings, job, planned, answering, checking) if planned else [])
    if units and job.needs_unique_keys and not goes_on:
        check_setting(faults, "read", lambda: refuse_duplicates(units, settings, job))
    first_wins = None
    if output and not output.is_done:  # last, because it is the one check that writes
        first_wins = check_setting(faults, "write.uri", lambda: _probe(store))
    if faults or not (output and answering and planned and units):
        others = _other_answers(settings, store) if goes_on else []
        raise ConfigError("the run cannot start", faults + others + _device_faults(settings, job))
    weights = weights_digest([probe.folder for probe in probes if probe])
    if goes_on:
        ledger.refuse_other_answers(ledger.read_settings(store), dump_settings(settings), weights, store.uri)
        if not is_done:
            refuse_changed_input(output, frozen_parts(store, units, settings.write, job), settings, job)
    return PreflightResult(
        replace(answering, digest=weights_digest([answering.folder])),
        checking and replace(checking, digest=weights_digest([checking.folder])),
        planned,
        weights,
        is_started=goes_on,
        is_done=goes_on and is_done,
        first_writer_wins=first_wins,
        run=output.run if goes_on else "",
    )


def _further_faults(settings: PipelineSettings, job: Job, store: Store, known: Known) -> list[str]:
    """Say what else is wrong, where something is already: no model is fetched for it, and no row made ready."""
    faults: list[str] = []
    if known.is_sure("write.uri", "write.on_existing", "write.storage"):
        output = _read_output(faults, settings, store)
        if output and not output.is_done and not faults:
            check_setting(faults, "write.uri", lambda: _probe(store))
    engines = [answering_engine(settings, job), *filter(None, [checking_engine(job)])]
    for engine in engines:
        if known.is_sure("job.check" if engine.where else "model") and is_at_hand(engine.model.path):
            _look_at_model(faults, engine, settings, job if known.is_sure("job.kind") else None)
    if known.is_sure("read", "job"):
        planned = cut_input(faults, settings, job, None)
        schema = check_setting(faults, "read", lambda: job_rows_schema(job, planned.units)) if planned else None
        faults += column_faults(schema, job) if schema else []
    elif known.is_sure("read", "job.benchmarks"):
        for read in settings_by_source(job, settings.read).values():
            check_setting(faults, "read", partial(find_shards, read.uri, read.format, read.storage))
    is_sure = known.is_sure("model.device", "generate.gpus", "generate.actors", "preprocess.actors", "ray", "job.check")
    return faults + (_device_faults(settings, job) if is_sure else [])


def _look_at_model(faults: list[str], engine: EngineSpec, settings: PipelineSettings, job: Job | None) -> None:
    """Look whether a model can be had, and where it is known for what job, whether it can do that."""
    if job is not None:
        probe_model(faults, engine, job, settings.read.storage, is_done=False)
    else:
        check_setting(faults, f"{engine.where}model.path", lambda: local_copy(engine.model.path, settings.read.storage))


def _read_output(faults: list[str], settings: PipelineSettings, store: Store) -> ledger.Output | None:
    """Read what stands in the output; where the settings do not go on with it or replace it, that is a fault."""
    output = check_setting(faults, "write.uri", lambda: ledger.read_output(store))
    existing = ledger.existing_fault(output, settings.write.on_existing, store.uri) if output else None
    faults += [existing] if existing else []
    return None if existing else output


def _refuse_before_fetching(faults: Sequence[str], settings: PipelineSettings, job: Job) -> None:
    """Refuse what is wrong without looking at models: to fetch one can take an hour.

    Raises:
        ConfigError: The output is no good, there is no input, or the engines' devices are not there.
    """
    found = list(faults)
    for read in settings_by_source(job, settings.read).values():
        check_setting(found, "read", partial(find_shards, read.uri, read.format, read.storage))
    found += _device_faults(settings, job)
    if found:
        raise ConfigError("the run cannot start", found)


def _other_answers(settings: PipelineSettings, store: Store) -> list[str]:
    """Say, where a run does not go on anyhow, which settings would give other answers than those that are there."""
    frozen = ledger.read_settings(store)
    try:
        ledger.refuse_other_answers(frozen, dump_settings(settings), frozen["weights"], store.uri)
    except ConfigError as error:
        return error.faults
    return []


def _device_faults(settings: PipelineSettings, job: Job) -> list[str]:
    """Say, where a run does not start anyhow, whether its engines would find their devices."""
    faults: list[str] = []
    engines = [answering_engine(settings, job), *filter(None, [checking_engine(job)])]
    check_setting(faults, "", lambda: place_actors(foreseen_nodes(settings.ray), *engines))
    return faults


def check_cluster(
    settings: PipelineSettings, job: Job, store: Store, ready: PreflightResult
) -> tuple[Placement, dict[str, str]]:
    """Start or join Ray; return each step's share of it, and the devices that the settings' `auto` means there.

    Raises:
        ConfigError: There is no such Ray, the actors or what they hold do not fit, or a node lacks something.
    """
    faults: list[str] = []
    try:
        start_ray(settings.ray)
    except ClusterError as error:
        raise ConfigError("the run cannot start", [str(error)]) from error
    there = nodes()
    engines = [model.engine for model in ready.models]
    placement = check_setting(faults, "", lambda: place_actors(there, *engines))
    if placement:
        faults += _memory_faults(there, ready, placement)
    with marked(store) as paths:
        # A single node is this machine, where all of it has been found already.
        local = {**_local_paths(ready, settings, job), **paths} if len(there) > 1 else {}
        remote = stored_files(ready, settings, job, store) if len(there) > 1 else {}
        faults += probe_nodes(there, job, local, remote)
    if faults or placement is None:
        raise ConfigError("the run cannot start", faults)
    check_device = _device(engines[1].model.device, placement.check.gpus) if ready.checking else ""
    return placement, {"device": _device(settings.model.device, placement.generate.gpus), "check_device": check_device}


def _standing_units(store: Store, settings: PipelineSettings, job: Job) -> list[Unit]:
    """Read the plan of a run that goes on.

    Raises:
        ValueError: It has sources that these settings do not name.
    """
    units = read_plan(store)
    names = settings_by_source(job, settings.read)
    if others := sorted({unit.source for unit in units} - names.keys()):
        raise ValueError(
            f"the run in {store.uri} reads {_sources(others)}, but these settings read {_sources(names)}; use the "
            "run's own settings, or start over with write.on_existing=replace"
        )
    return units


def _sources(names: Iterable[str]) -> str:
    return ", ".join(names) or "one input without a name"


def _roots(units: Sequence[Unit]) -> dict[str, Unit]:
    """Return where the input lies, and the first unit of each place."""
    return {unit.root: unit for unit in reversed(units)}


def _local_paths(ready: PreflightResult, settings: PipelineSettings, job: Job) -> dict[str, str]:
    """Return what the settings name by a local path, and the setting of each."""
    roots = dict.fromkeys(_roots(ready.plan.units), "read.uri")
    sources = settings_by_source(job, settings.read).values()
    roots |= {uri: setting for read in sources for setting, uri in read.elsewhere.items()}
    named = {**roots, **{model.path: f"{model.engine.where}model.path" for model in ready.models}}
    return {path: setting for path, setting in named.items() if os.path.exists(path)}


def stored_files(ready: PreflightResult, settings: PipelineSettings, job: Job, store: Store) -> dict[str, StoredFile]:
    """Return, for each setting that may name a store, what each node asks it for."""
    storage, sources = settings.read.storage, settings_by_source(job, settings.read)
    reads = {
        f"read.uri of {unit.source}" if unit.source else "read.uri": (
            Store(root, sources[unit.source].storage),
            unit.shard or unit.paths[0],
        )
        for root, unit in _roots(ready.plan.units).items()
    }
    models = {
        f"{model.engine.where}model.path": (Store(model.path, storage), "config.json")
        for model in ready.models
        if "://" in model.path
    }
    return {**reads, "write.uri": (store, ledger.PLAN), **models}


def _memory_faults(there: Sequence[Node], ready: PreflightResult, placement: Placement) -> list[str]:
    pools = [placement.generate, placement.check]
    engines = [
        CpuEngines(model.engine.where, actors.least, model.engine.model.dtype, model.num_weights)
        for model, actors in zip(ready.models, pools, strict=False)
        if not actors.gpus
    ]
    plan, slots = ready.plan, [model.engine.generate.slots for model in ready.models]
    units = min(len(plan.units), units_on_their_way(placement, typical_unit_rows(plan.units), *slots))
    return weights_faults(there, engines) + store_faults(there, plan.row_bytes, plan.unit_rows, units)


def _device(device: str, gpus: float) -> str:
    return device if device != "auto" else "cuda" if gpus else "cpu"


def _drawing_faults(settings: PipelineSettings, job: Job) -> list[str]:
    faults = []
    ignored = sorted({"max_new_tokens", "stop"} & settings.generate.sampling.model_fields_set) if job.picture else []
    faults += [f"generate.sampling.{name}: a picture ends when it is whole; remove this setting" for name in ignored]
    if job.picture is not None and settings.generate.slots < 2:
        faults.append("generate.slots: found 1, expected at least 2: a picture with guidance takes two")
    return faults


def _probe(store: Store) -> bool:
    try:
        first_wins = conditional_writes(store)
    except StorageError as error:
        fault = f"nothing can be written there ({error}); expected a folder that you may write into, or a store"
        raise StorageError(fault) from error
    if not first_wins:
        # Names and contents are deterministic, so two writers of one object still leave equal bytes.
        log.warning(
            "%s has no conditional writes, so the last writer wins; do not start the same run twice at once", store.uri
        )
    return first_wins
