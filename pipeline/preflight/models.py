"""Look at a run's checkpoints before it starts: they are there, can do what the job asks, and suit the settings.

First part of the preflight. It loads no weights and starts no work.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from models.types import CheckpointError, ImageSettingsError, Processor
from pipeline.job import Job, MissingColumns
from pipeline.pipeline_settings import ModelSettings, PipelineSettings, PreprocessSettings
from pipeline.steps.preprocess import open_processor
from pipeline.storage.model_folder import local_copy
from pipeline.storage.store import StorageError

T = TypeVar("T")

# What stands before the names of the settings of the model that checks.
CHECK = "job.check."


@dataclass(frozen=True)
class ModelProbe:
    """What the preflight knows of a checkpoint.

    Attributes:
        folder: Where it lies here.
        path: What actors call it.
        processor: Its CPU half.
        num_weights: Values that an engine loads; 0 if the weights were not read.
    """

    folder: str
    path: str
    processor: Processor
    num_weights: int = 0


def probe_model(faults: list[str], settings: PipelineSettings, job: Job, is_done: bool) -> ModelProbe | None:
    """Probe the model that answers; what is wrong with it is added to the faults. None if it cannot be read."""
    generate = settings.generate
    probe = _probe(faults, "", settings, settings.model, settings.preprocess, generate.max_length, job.template)
    if probe is None:
        return None
    processor = probe.processor
    if not processor.sees_images and not job.has_text_only_rows:
        faults.append(_no_vision_fault(settings, job))
    if job.picture is not None and processor.pixels_per_code is None:
        faults.append(_no_drawing_fault(settings, job))
    return probe if is_done else _count_weights(faults, "", probe, settings.model.text_only)


def probe_check_model(faults: list[str], settings: PipelineSettings, job: Job, is_done: bool) -> ModelProbe | None:
    """Probe the model that checks, if there is one, in the same way."""
    if job.check is None:
        return None
    asked = job.check.settings
    model, max_length = asked.model, asked.generate.max_length
    probe = _probe(faults, CHECK, settings, model, asked.preprocess, max_length, job.check.template)
    if probe is None:
        return None
    if not probe.processor.sees_images:
        faults.append(f"{CHECK}model.path: {model.path} cannot see the pictures that it is to check")
    return probe if is_done else _count_weights(faults, CHECK, probe, model.text_only)


def _probe(
    faults: list[str],
    where: str,
    settings: PipelineSettings,
    model: ModelSettings,
    preprocess: PreprocessSettings,
    max_length: int | None,
    template: str | None,
) -> ModelProbe | None:
    """Fetch a checkpoint's folder and load its processor; `where` stands before the settings' names."""
    folder = check_setting(
        faults, f"{where}model.path", lambda: local_copy(model.path, settings.read.storage, is_looking=True)
    )
    if folder is None:
        return None
    processor = check_setting(
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
    return ModelProbe(folder, _model_path(model.path, folder), processor)


def check_setting(faults: list[str], setting: str, action: Callable[[], T], where: str = "") -> T | None:
    """Run one check; what it raises is a fault under the setting's name, and the next check follows."""
    try:
        return action()
    except ImageSettingsError as error:  # it knows its settings by name
        faults += [f"{where}preprocess.{fault}" for fault in error.faults]
        return None
    except MissingColumns as error:  # and so does a job
        faults += error.faults
        return None
    except (StorageError, CheckpointError, ValueError, OSError) as error:
        faults.append(f"{setting}: {error}" if setting else str(error))
        return None


def _model_path(path: str, folder: str) -> str:
    """Return a local folder as it is called everywhere; a remote one keeps its name, so that each node copies it."""
    return folder if os.path.isdir(os.path.expanduser(path)) else path


def _no_vision_fault(settings: PipelineSettings, job: Job) -> str:
    needs = f"job {job.kind} needs an image in every row"
    if settings.model.text_only:
        return f"model.text_only: found true, expected false: {needs}"
    return f"model.path: {settings.model.path} has no vision encoder, but {needs}"


def _no_drawing_fault(settings: PipelineSettings, job: Job) -> str:
    if settings.model.text_only:
        return f"model.text_only: found true, expected false: job {job.kind} draws pictures"
    return f"model.path: {settings.model.path} draws no pictures, but job {job.kind} needs one that does"


def _count_weights(faults: list[str], where: str, probe: ModelProbe, text_only: bool) -> ModelProbe:
    from models import check_weights

    weights = check_setting(faults, f"{where}model.path", lambda: check_weights(probe.folder, text_only=text_only))
    return replace(probe, num_weights=weights or 0)
