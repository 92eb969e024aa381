"""Check everything that can be checked before a run starts, and list all that is wrong at once.

What passes here has shown once that it works: the checkpoint's processor loads, the input can be listed, the output
can be written, the actors fit. This file starts no work.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from pipeline.execution.cluster.lean_ray import without_helpers
from pipeline.execution.cluster.placement import Node, Placement, place_actors
from pipeline.execution.cluster.start import ClusterError, nodes, start_ray, stopped_with_the_block
from pipeline.execution.stream import units_on_their_way
from pipeline.input.sources import typical_unit_rows
from pipeline.input.units import Unit
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings, RaySettings
from pipeline.preflight.changes import refuse_changed_input
from pipeline.preflight.further import (
    Known,
    device_faults,
    further_faults,
    look_at_output,
    other_answers,
    refuse_before_fetching,
    try_output,
)
from pipeline.preflight.inputs import Plan, column_faults, cut_input, refuse_duplicates, sample_faults
from pipeline.preflight.memory import CpuEngines, store_faults, weights_faults
from pipeline.preflight.models import (
    ModelProbe,
    Weighing,
    check_setting,
    count_weights,
    is_at_hand,
    probe_model,
)
from pipeline.preflight.nodes import StoredFile, marked, probe_nodes
from pipeline.settings import ConfigError, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import frozen_parts, read_plan
from pipeline.steps.engine import answering_engine, checking_engine
from pipeline.steps.read import job_rows_schema, settings_by_source
from pipeline.storage.model_folder import weights_digest
from pipeline.storage.store import Store

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
        has_own_ray: Whether a Ray was started here on the way.
    """

    answering: ModelProbe
    checking: ModelProbe | None
    plan: Plan
    weights: str
    is_started: bool
    is_done: bool
    first_writer_wins: bool | None = None
    run: str = ""
    has_own_ray: bool = False

    @property
    def models(self) -> list[ModelProbe]:
        """The one model, or both."""
        return [self.answering, self.checking] if self.checking else [self.answering]


def check(
    settings: PipelineSettings,
    job: Job,
    store: Store,
    known: Known | None = None,
    *,
    is_written: bool = True,
    starts_ray: bool = False,
) -> PreflightResult:
    """Look at the output, the checkpoint and the input.

    Args:
        settings: The run's.
        job: The run's.
        store: The output.
        known: What is wrong already; then this ends with an error.
        is_written: Whether the output is tried by writing to it.
        starts_ray: Whether a Ray of our own, if one is asked for, is started while the last look is taken, that at the
            weights; it is stopped again where these do not fit.

    Raises:
        ConfigError: All that is wrong with them, listed.
    """
    store = store.while_looking()
    if known is not None and known.faults:
        raise ConfigError("the run cannot start", [*known.faults, *further_faults(settings, job, store, known)])
    with stopped_with_the_block():
        return _check(settings, job, store, is_written, starts_ray and settings.ray.address is None)


def _check(
    settings: PipelineSettings, job: Job, store: Store, is_written: bool, starts_own_ray: bool
) -> PreflightResult:
    faults: list[str] = []
    output = look_at_output(faults, settings, store)
    goes_on = output is not None and output.is_planned and settings.write.on_existing == "resume"
    is_done = output is not None and output.is_done and goes_on
    engines = [answering_engine(settings, job), *filter(None, [checking_engine(job)])]
    if not goes_on and not all(is_at_hand(engine.model.path) for engine in engines):
        refuse_before_fetching(faults, settings, job)
    weighings: list[Weighing] = []
    probes = [probe_model(faults, engine, job, settings.read.storage, weighings) for engine in engines]
    num_model_faults = len(faults)
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
    weights_faults: list[str] = []
    num_weights: dict[str, int] = {}
    has_own_ray = False
    if not is_done:  # or nobody will load them
        ray = settings.ray if starts_own_ray and planned and not faults else None
        num_weights, has_own_ray = _weigh(weights_faults, weighings, ray)
    faults[num_model_faults:num_model_faults] = weights_faults
    first_wins = None
    if output and not is_done and is_written:  # last, because it is the one check that writes
        first_wins = check_setting(faults, "write.uri", lambda: try_output(store))
    if faults or not (output and answering and planned and units):
        others = other_answers(settings, store) if goes_on else []
        raise ConfigError("the run cannot start", faults + others + device_faults(settings, job))
    weights = weights_digest([probe.folder for probe in probes if probe])
    if goes_on:
        ledger.refuse_other_answers(ledger.read_settings(store), dump_settings(settings), weights, store.uri)
        if not is_done:
            refuse_changed_input(output, frozen_parts(store, units, settings.write, job), settings, job)
    weighed = [
        replace(probe, digest=weights_digest([probe.folder]), num_weights=num_weights.get(probe.setting, 0))
        for probe in (answering, checking)
        if probe
    ]
    return PreflightResult(
        weighed[0],
        weighed[1] if checking else None,
        planned,
        weights,
        is_started=goes_on,
        is_done=is_done,
        first_writer_wins=first_wins,
        run=output.run if goes_on else "",
        has_own_ray=has_own_ray,
    )


def _weigh(faults: list[str], weighings: Sequence[Weighing], ray: RaySettings | None) -> tuple[dict[str, int], bool]:
    """Look at weights and, where one is asked for, start a Ray meanwhile: both take seconds.

    Returns:
        What `count_weights` says, and whether a Ray was started here. Why one does not start, `check_cluster` says.
    """
    with ThreadPoolExecutor(1) as beside:
        counting = beside.submit(count_weights, faults, weighings)
        if ray:
            beside.submit(without_helpers)  # half a second of imports; what fails in it, fails in start_ray
        has_own_ray = bool(ray and check_setting([], "", lambda: start_ray(ray)))
        return counting.result(), has_own_ray


def check_cluster(
    settings: PipelineSettings, job: Job, store: Store, ready: PreflightResult, *, is_written: bool = True
) -> tuple[Placement, dict[str, str]]:
    """Start or join Ray; return each step's share of it, and the devices that the settings' `auto` means there.

    Args:
        settings: The run's.
        job: The run's.
        store: The output.
        ready: What `check` has found out.
        is_written: Whether a file is put into a local output for the other nodes to find.

    Raises:
        ConfigError: There is no such Ray, the actors or what they hold do not fit, or a node lacks something.
    """
    faults: list[str] = []
    try:
        is_own = ready.has_own_ray or start_ray(settings.ray)
    except ClusterError as error:
        raise ConfigError("the run cannot start", [str(error)]) from error
    there = nodes()
    engines = [model.engine for model in ready.models]
    placement = check_setting(faults, "", lambda: place_actors(there, *engines))
    if placement:
        faults += _memory_faults(there, ready, placement)
    if not is_own:
        faults += _node_faults(there, settings, job, ready, store, marked(store) if is_written else nullcontext({}))
    if faults or placement is None:
        raise ConfigError("the run cannot start", faults)
    check_device = _device(engines[1].model.device, placement.check.gpus) if ready.checking else ""
    return placement, {"device": _device(settings.model.device, placement.generate.gpus), "check_device": check_device}


def _node_faults(
    there: Sequence[Node],
    settings: PipelineSettings,
    job: Job,
    ready: PreflightResult,
    store: Store,
    marks: AbstractContextManager[dict[str, str]],
) -> list[str]:
    """Say what the nodes lack of a Ray that was there before the run."""
    with marks as paths:
        # A single node is this machine, where all of it has been found already.
        local = {**_local_paths(ready, settings, job), **paths} if len(there) > 1 else {}
        remote = stored_files(ready, settings, job, store) if len(there) > 1 else {}
        return probe_nodes(there, job, local, remote)


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
    plan = ready.plan
    slots = [model.engine.most_slots(actors.gpus) for model, actors in zip(ready.models, pools, strict=False)]
    units = min(len(plan.units), units_on_their_way(placement, typical_unit_rows(plan.units), *slots))
    return weights_faults(there, engines) + store_faults(there, plan.row_bytes, plan.unit_rows, units)


def _device(device: str, gpus: float) -> str:
    return device if device != "auto" else "cuda" if gpus else "cpu"


def _drawing_faults(settings: PipelineSettings, job: Job) -> list[str]:
    faults = []
    ignored = sorted({"max_new_tokens", "stop"} & settings.generate.sampling.model_fields_set) if job.picture else []
    faults += [f"generate.sampling.{name}: a picture ends when it is whole; remove this setting" for name in ignored]
    if job.picture is not None and settings.generate.slots == 1:
        faults.append("generate.slots: found 1, expected at least 2: a picture with guidance takes two")
    texts = {"generate": settings.generate} if job.picture is None else {}
    texts |= {"job.check.generate": job.check.settings.generate} if job.check else {}
    faults += [
        f"{where}.speculate: found {generate.speculate}, expected 1: only drawn pictures are guessed ahead"
        for where, generate in texts.items()
        if generate.speculate > 1
    ]
    return faults
