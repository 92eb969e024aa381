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
    Engines,
    Placement,
    check_code_arrives,
    place,
    resources,
    start_ray,
)
from pipeline.generate import ModelSettings, sampling_of
from pipeline.job import Job
from pipeline.keys import duplicate_keys
from pipeline.model_folder import local_copy
from pipeline.pipeline_settings import PipelineSettings
from pipeline.plan import make_plan, read_plan
from pipeline.preprocess import PreprocessSettings, open_processor
from pipeline.rows import READ, part_schema
from pipeline.settings import ConfigError, dump_settings
from pipeline.storage import StorageError, Store, conditional_writes
from pipeline.units import Unit

log = logging.getLogger(__name__)

T = TypeVar("T")

# What stands before the names of the settings of the model that checks.
CHECK = "job.check."


@dataclass(frozen=True)
class Ready:
    """What the checks have found out on their way.

    Attributes:
        model_path: Where each actor finds the checkpoint, or from where it fetches it.
        units: The plan; the frozen one where a run has started before.
        weights: Fingerprint of the checkpoint.
        is_started: Whether the output holds a run of these settings.
        is_done: Whether that run is finished.
        check_path: Where the actors find the checkpoint that checks, if any does.
    """

    model_path: str
    units: list[Unit]
    weights: str
    is_started: bool
    is_done: bool
    check_path: str = ""


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
    is_done = output is not None and output.is_done
    asked = _look_at_model(faults, settings, job, is_done)
    checking = _look_at_check(faults, settings, job, is_done)
    faults += _drawing_faults(settings, job)
    processor = asked.processor if asked else None
    units = _tried(faults, "read", lambda: read_plan(store) if goes_on else _planned(settings, job, processor))
    faults += _column_faults(units[0].table_schema, job) if units else []
    if units and job.needs_unique_keys and not goes_on:
        _tried(faults, "read", lambda: _refuse_duplicates(units, settings, job))
    if not faults and output and not output.is_done:  # last, because it is the one check that writes
        _tried(faults, "write.uri", lambda: _probe(store))
    if faults or not (output and asked and units):
        raise ConfigError("the run cannot start", faults)
    weights = ledger.weights_digest([one.folder for one in (asked, checking) if one])
    if goes_on:
        ledger.refuse_other_answers(ledger.read_settings(store), dump_settings(settings), weights, store.uri)
    check_path = checking.path if checking else ""
    return Ready(asked.path, units, weights, goes_on, goes_on and is_done, check_path)


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
    engines, checking = Engines(settings.generate, asked), _checking(job)
    placement = _tried(faults, "", lambda: place(there, engines, settings.preprocess.actors, checking))
    if fault := check_code_arrives(job):
        faults.append(fault)
    if faults or placement is None:
        raise ConfigError("the run cannot start", faults)
    return placement, _device(asked, placement.generate_gpus)


def check_device(job: Job, placement: Placement) -> str:
    """Return the device that the checking model's `auto` means there."""
    checking = _checking(job)
    return _device(checking.device, placement.check_gpus) if checking else ""


def _device(asked: str, gpus: float) -> str:
    return asked if asked != "auto" else "cuda" if gpus else "cpu"


def _checking(job: Job) -> Engines | None:
    if job.check is None:
        return None
    return Engines(job.check.settings.generate, job.check.settings.model.device, CHECK)


@dataclass(frozen=True)
class Looked:
    """A checkpoint that has been looked at: its local folder, what actors call it, and its processor."""

    folder: str
    path: str
    processor: Processor


def _look_at_model(faults: list[str], settings: PipelineSettings, job: Job, is_done: bool) -> Looked | None:
    generate = settings.generate
    looked = _looked(faults, "", settings, settings.model, settings.preprocess, generate.max_length, job.template)
    if looked is None:
        return None
    processor = looked.processor
    if not processor.sees_images and not job.has_text_only_rows:
        faults.append(_blind_fault(settings, job))
    if job.picture is not None and not processor.draws_pictures:
        faults.append(f"model.path: {settings.model.path} draws no pictures, but job {job.kind} needs one that does")
    if not is_done:
        _tried(faults, "model.path", lambda: _check_weights(looked.folder, settings.model.text_only))
    return looked


def _look_at_check(faults: list[str], settings: PipelineSettings, job: Job, is_done: bool) -> Looked | None:
    if job.check is None:
        return None
    asked = job.check.settings
    model, max_length = asked.model, asked.generate.max_length
    looked = _looked(faults, CHECK, settings, model, asked.preprocess, max_length, job.check.template)
    if looked is None:
        return None
    if not looked.processor.sees_images:
        faults.append(f"{CHECK}model.path: {model.path} cannot see the pictures that it is to check")
    if not is_done:
        _tried(faults, f"{CHECK}model.path", lambda: _check_weights(looked.folder, model.text_only))
    return looked


def _looked(
    faults: list[str],
    where: str,
    settings: PipelineSettings,
    model: ModelSettings,
    preprocess: PreprocessSettings,
    max_length: int | None,
    template: str | None,
) -> Looked | None:
    """Fetch a checkpoint's folder and load its processor; `where` stands before the settings' names."""
    folder = _tried(faults, f"{where}model.path", lambda: local_copy(model.path, settings.read.storage))
    if folder is None:
        return None
    processor = _tried(
        faults,
        f"{where}model.path",
        lambda: open_processor(folder, preprocess, template, text_only=model.text_only),
        where,
    )
    if processor is None:
        return None
    limit = processor.max_position_embeddings
    if max_length is not None and max_length > limit:
        faults.append(
            f"{where}generate.max_length: found {max_length}, expected at most {limit}, the checkpoint's limit"
        )
    return Looked(folder, _model_path(model.path, folder), processor)


def _drawing_faults(settings: PipelineSettings, job: Job) -> list[str]:
    faults = []
    if job.picture is None and settings.write.webdataset:
        faults.append(f"write.webdataset: found true, but job {job.kind} draws no pictures")
    if job.picture is not None and settings.generate.slots < 2:
        faults.append("generate.slots: found 1, expected at least 2: a picture with guidance takes two")
    return faults


def _tried(faults: list[str], setting: str, action: Callable[[], T], where: str = "") -> T | None:
    """Run one check; what it raises is a fault under the setting's name, and the next check follows."""
    try:
        return action()
    except ImageSettingsError as error:  # it knows its settings by name
        faults += [f"{where}preprocess.{fault}" for fault in error.faults]
        return None
    except (StorageError, CheckpointError, ValueError, OSError) as error:
        faults.append(f"{setting}: {error}" if setting else str(error))
        return None


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
        return make_plan(settings.read.model_copy(update={"limit": 1}), 1, None, job, job.sampling)
    sampling = sampling_of(settings.generate, job.sampling)
    return make_plan(settings.read, settings.write.unit_rows, processor, job, sampling)


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
