"""Say what else is wrong with a start that fails anyhow, so that all of it stands in one list.

Nothing is fetched for it, and no Ray is started; what hangs on a setting that is wrong is left alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.execution.cluster.placement import place_actors
from pipeline.execution.cluster.start import foreseen_nodes
from pipeline.input.shards import find_shards
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.inputs import column_faults, cut_input
from pipeline.preflight.models import Weighing, check_setting, count_weights, is_at_hand, probe_model
from pipeline.settings import ConfigError, dump_settings
from pipeline.state import ledger
from pipeline.steps.engine import EngineSpec, answering_engine, checking_engine
from pipeline.steps.read import job_rows_schema, settings_by_source
from pipeline.storage.model_folder import local_copy
from pipeline.storage.probes import conditional_writes
from pipeline.storage.store import StorageError, Store

log = logging.getLogger(__name__)


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


def further_faults(settings: PipelineSettings, job: Job, store: Store, known: Known) -> list[str]:
    """Say what else is wrong, where something is already: no model is fetched for it, and no row made ready."""
    faults: list[str] = []
    if known.is_sure("write.uri", "write.on_existing", "write.storage"):
        output = look_at_output(faults, settings, store)
        if output and not output.is_done and not faults:
            check_setting(faults, "write.uri", lambda: try_output(store))
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
    return faults + (device_faults(settings, job) if is_sure else [])


def refuse_before_fetching(faults: Sequence[str], settings: PipelineSettings, job: Job) -> None:
    """Refuse what is wrong without looking at models: to fetch one can take an hour.

    Raises:
        ConfigError: The output is no good, there is no input, or the engines' devices are not there.
    """
    found = list(faults)
    for read in settings_by_source(job, settings.read).values():
        check_setting(found, "read", partial(find_shards, read.uri, read.format, read.storage))
    found += device_faults(settings, job)
    if found:
        raise ConfigError("the run cannot start", found)


def _look_at_model(faults: list[str], engine: EngineSpec, settings: PipelineSettings, job: Job | None) -> None:
    """Look whether a model can be had, and where it is known for what job, whether it can do that."""
    if job is not None:
        weighings: list[Weighing] = []
        probe_model(faults, engine, job, settings.read.storage, weighings)
        count_weights(faults, weighings)
    else:
        check_setting(faults, f"{engine.where}model.path", lambda: local_copy(engine.model.path, settings.read.storage))


def look_at_output(faults: list[str], settings: PipelineSettings, store: Store) -> ledger.Output | None:
    """Read what stands in the output; where the settings do not go on with it or replace it, that is a fault."""
    output = check_setting(faults, "write.uri", lambda: ledger.read_output(store))
    existing = ledger.existing_fault(output, settings.write.on_existing, store.uri) if output else None
    faults += [existing] if existing else []
    return None if existing else output


def try_output(store: Store) -> bool:
    """Write to the output; return whether it lets the first of two writers win.

    Raises:
        StorageError: Nothing can be written there.
    """
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


def other_answers(settings: PipelineSettings, store: Store) -> list[str]:
    """Say, where a run does not go on anyhow, which settings would give other answers than those that are there."""
    frozen = ledger.read_settings(store)
    try:
        ledger.refuse_other_answers(frozen, dump_settings(settings), frozen["weights"], store.uri)
    except ConfigError as error:
        return error.faults
    return []


def device_faults(settings: PipelineSettings, job: Job) -> list[str]:
    """Say, where a run does not start anyhow, whether its engines would find their devices."""
    faults: list[str] = []
    engines = [answering_engine(settings, job), *filter(None, [checking_engine(job)])]
    check_setting(faults, "", lambda: place_actors(foreseen_nodes(settings.ray), *engines))
    return faults
