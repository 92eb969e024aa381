"""Check everything that can be checked before a run starts, and list all that is wrong at once.

What passes here has shown once that it works: the checkpoint's processor loads, the input can be listed, the output
can be written, the actors fit. This file starts no work.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from models.types import CheckpointError, ImageSettingsError, Processor
from pipeline import ledger
from pipeline.cluster import (
    ClusterError,
    Placement,
    check_code_arrives,
    gpus_each,
    place,
    resources,
    start_ray,
)
from pipeline.generate import sampling_of
from pipeline.job import Job
from pipeline.keys import duplicate_keys
from pipeline.model_folder import local_copy
from pipeline.pipeline_settings import PipelineSettings
from pipeline.plan import make_plan, read_plan
from pipeline.preprocess import open_processor
from pipeline.rows import READ, part_schema
from pipeline.settings import ConfigError, dump_settings
from pipeline.storage import StorageError, Store, conditional_writes
from pipeline.units import Unit

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Ready:
    """What the checks have found out on their way.

    Attributes:
        model_path: Where each actor finds the checkpoint, or from where it fetches it.
        units: The plan; the frozen one where a run has started before.
        weights: Fingerprint of the checkpoint.
        is_started: Whether the output holds a run of these settings.
        is_done: Whether that run is finished.
    """

    model_path: str
    units: list[Unit]
    weights: str
    is_started: bool
    is_done: bool


def check(settings: PipelineSettings, job: Job, store: Store) -> Ready:
    """Look at the output, the checkpoint and the input.

    Raises:
        ConfigError: All that is wrong with them, listed.
    """
    faults: list[str] = []
    output = _tried(faults, "write.uri", lambda: ledger.look(store))
    if output and (fault := ledger.existing_fault(output, settings.write.on_existing, store.uri)):
        faults.append(fault)
    goes_on = output is not None and output.is_planned and settings.write.on_existing == "resume"
    folder = _tried(faults, "model.path", lambda: local_copy(settings.model.path, settings.read.storage))
    processor = _tried(faults, "model.path", lambda: _load_processor(folder, settings, job)) if folder else None
    if processor and not processor.sees_images and not job.has_text_only_rows:
        faults.append(_blind_fault(settings, job))
    if folder and processor and not (output and output.is_done):
        _tried(faults, "model.path", lambda: _check_weights(folder, settings.model.text_only))
    units = _tried(faults, "read", lambda: read_plan(store) if goes_on else _planned(settings, job, processor))
    faults += _column_faults(units[0].table_schema, job) if units else []
    if units and job.needs_unique_keys and not goes_on:
        _tried(faults, "read", lambda: _refuse_duplicates(units, settings, job))
    if not faults and output and not output.is_done:  # last, because it is the one check that writes
        _tried(faults, "write.uri", lambda: _probe(store))
    if faults or not (output and folder and units):
        raise ConfigError("the run cannot start", faults)
    weights = ledger.weights_digest(folder)
    if goes_on:
        ledger.refuse_other_answers(ledger.read_settings(store), dump_settings(settings), weights, store.uri)
    return Ready(_model_path(settings.model.path, folder), units, weights, goes_on, goes_on and output.is_done)


def place_on_ray(settings: PipelineSettings, job: Job) -> tuple[Placement, str]:
    """Start or join Ray; return each step's share of it and the device that `auto` means there.

    Raises:
        ConfigError: There is no such Ray, the actors do not fit, or the workers lack the code.
    """
    faults: list[str] = []
    asked = settings.model.device
    try:
        start_ray(settings.ray)
    except ClusterError as error:
        raise ConfigError("the run cannot start", [str(error)]) from error
    there = resources()
    placement = _tried(faults, "", lambda: place(there, settings.generate, settings.preprocess.actors, asked))
    if fault := check_code_arrives(job):
        faults.append(fault)
    if faults or placement is None:
        raise ConfigError("the run cannot start", faults)
    device = asked if asked != "auto" else "cuda" if gpus_each(there, settings.generate, asked) else "cpu"
    return placement, device


def _tried(faults: list[str], setting: str, action: Callable[[], T]) -> T | None:
    """Run one check; what it raises is a fault under the setting's name, and the next check follows."""
    try:
        return action()
    except ImageSettingsError as error:  # it knows its settings by name
        faults += [f"preprocess.{fault}" for fault in error.faults]
        return None
    except (StorageError, CheckpointError, ValueError, OSError) as error:
        faults.append(f"{setting}: {error}" if setting else str(error))
        return None


def _load_processor(folder: str, settings: PipelineSettings, job: Job) -> Processor:
    return open_processor(folder, settings.preprocess, job.template, text_only=settings.model.text_only)


def _model_path(path: str, folder: str) -> str:
    """Return a local folder as it is called everywhere; a remote one keeps its name, so that each node copies it."""
    return folder if os.path.isdir(os.path.expanduser(path)) else path


def _blind_fault(settings: PipelineSettings, job: Job) -> str:
    needs = f"job {job.kind} needs an image in every row"
    if settings.model.text_only:
        return f"model.text_only: found true, expected false: {needs}"
    return f"model.path: {settings.model.path} has no vision encoder, but {needs}"


def _check_weights(folder: str, text_only: bool) -> None:
    from models import check_weights

    check_weights(folder, text_only=text_only)


def _planned(settings: PipelineSettings, job: Job, processor: Processor | None) -> list[Unit]:
    if processor is None:  # there is a fault already; look only whether the input has one too
        return make_plan(settings.read.model_copy(update={"limit": 1}), 1, None, job, sampling_of(settings.generate))
    return make_plan(settings.read, settings.write.unit_rows, processor, job, sampling_of(settings.generate))


def _probe(store: Store) -> None:
    if not conditional_writes(store):
        # Names and contents are deterministic, so two writers of one object still leave equal bytes.
        log.warning("%s lets a later writer win over an earlier one; do not run twice at once", store.uri)


def _refuse_duplicates(units: list[Unit], settings: PipelineSettings, job: Job) -> None:
    if keys := duplicate_keys(units, settings.read):
        raise ValueError(
            f"several rows have the key {', '.join(map(repr, keys))}, but job {job.kind} needs unique keys"
        )


def _column_faults(schema: pa.Schema, job: Job) -> list[str]:
    there = [name for name in schema.names if name not in READ]
    missing = [name for name in job.required if name not in (*there, "key", "shard", "index")]
    faults = [
        f"read.columns: job {job.kind} needs a column `{name}`, but the input has {', '.join(there) or 'no others'}"
        for name in missing
    ]
    try:
        part_schema(schema, job)
    except ValueError as error:
        faults.append(f"read.columns: {error}")
    return faults
