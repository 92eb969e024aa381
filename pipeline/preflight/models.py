"""Look at a run's checkpoints before it starts: they are there, can do what the job asks, and suit the settings.

First part of the preflight. It loads no weights and starts no work.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from models.checkpoint import superseded_images
from models.types import CheckpointError, ImageSettingsError, Processor
from pipeline.job import Job, MissingColumns
from pipeline.pipeline_settings import ModelSettings
from pipeline.steps.engine import EngineSpec
from pipeline.storage.model_folder import HUB_NAME, local_copy
from pipeline.storage.store import StorageError, StorageSettings, absolute

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class ModelProbe:
    """What the preflight knows of a checkpoint.

    Attributes:
        engine: What is asked of it; its path is what actors call the checkpoint.
        folder: Where it lies here.
        processor: Its CPU half.
        num_weights: Values that an engine loads; 0 if the weights were not read.
        digest: Its fingerprint.
    """

    engine: EngineSpec
    folder: str
    processor: Processor
    num_weights: int = 0
    digest: str = ""

    @property
    def path(self) -> str:
        """What actors call the checkpoint."""
        return self.engine.model.path

    @property
    def setting(self) -> str:
        """Which setting names it."""
        return f"{self.engine.where}model.path"

    @property
    def max_length(self) -> int:
        """The longest sequence that its engines take, prompt and answer together."""
        limit = self.processor.max_position_embeddings
        return min(limit, self.engine.max_length(limit))


class Weighing(NamedTuple):
    """A look at a checkpoint's weights that is still to be taken: which setting names it, and how they are counted."""

    setting: str
    look: Callable[[], int]


def probe_model(
    faults: list[str], engine: EngineSpec, job: Job, storage: StorageSettings, weighings: list[Weighing]
) -> ModelProbe | None:
    """Bring a checkpoint here and load its processor.

    Args:
        faults: What is wrong with it is added here; None is returned where it cannot be read at all.
        engine: What is asked of it.
        job: The run's.
        storage: How to reach it.
        weighings: The look at its weights is added here: it brings torch, which takes seconds.
    """
    setting, model = f"{engine.where}model.path", engine.model
    folder = check_setting(faults, setting, lambda: local_copy(model.path, storage, is_looking=True))
    if folder is None:
        return None
    processor = check_setting(faults, setting, lambda: engine.open_processor(folder), engine.where)
    # Where only settings are wrong, the checkpoint can be looked at without them.
    plain = processor or check_setting([], setting, lambda: engine.without_settings().open_processor(folder))
    if plain is None:
        return None
    limit, max_length = plain.max_position_embeddings, engine.generate.max_length
    if max_length is not None and max_length > limit:
        faults.append(
            f"{engine.where}generate.max_length: found {max_length}, expected at most {limit}, the checkpoint's limit"
        )
    faults += _role_faults(engine, plain, job)
    if plain.sees_images:
        _note_superseded_images(folder)
    weighings.append(Weighing(setting, lambda: _num_weights(folder, plain, model)))
    if processor is None:
        return None
    # A local folder is called the same everywhere; a remote one keeps its name, so that each node copies it.
    path = folder if os.path.isdir(os.path.expanduser(model.path)) else model.path
    return ModelProbe(engine.with_model(path=path), folder, processor)


def count_weights(faults: list[str], weighings: Sequence[Weighing]) -> dict[str, int]:
    """Look at the weights of checkpoints; return how many values each has, by its setting, and add what is wrong."""
    return {setting: check_setting(faults, setting, look) or 0 for setting, look in weighings}


def is_at_hand(path: str) -> bool:
    """Say whether a look at a model fetches nothing: it lies in a local folder, or is named as one and is nowhere."""
    return "://" not in path and (os.path.isdir(absolute(path)) or not HUB_NAME.fullmatch(path))


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


def _role_faults(engine: EngineSpec, processor: Processor, job: Job) -> list[str]:
    """Say what a checkpoint cannot do of that which it is here for."""
    path = engine.model.path
    # Pictures are drawn from a prompt as it is; everything else is asked in messages.
    asks_messages = bool(engine.where) or job.picture is None
    faults = [f"{engine.where}model.path: {processor.chat_fault}"] if asks_messages and processor.chat_fault else []
    if engine.where:
        cannot = (
            f"{engine.where}model.path: {path} has no vision encoder, but has to look at the pictures that it checks"
        )
        return faults if processor.sees_images else [*faults, cannot]
    if not processor.sees_images and not job.has_text_only_rows:
        faults.append(_lacks(engine, "has no vision encoder", f"job {job.kind} needs an image in every row"))
    if job.picture is not None and processor.pixels_per_code is None:
        faults.append(_lacks(engine, "draws no pictures", f"job {job.kind} needs a model that draws pictures"))
    return faults


def _note_superseded_images(folder: str) -> None:
    """Say once which image settings of an older file are not read."""
    if differ := superseded_images(Path(folder)):
        listed = ", ".join(f"{name} ({new!r} and not {old!r})" for name, (new, old) in differ.items())
        log.warning("%s: processor_config.json holds before preprocessor_config.json: %s", folder, listed)


def _lacks(engine: EngineSpec, what: str, needs: str) -> str:
    if engine.model.text_only:
        return f"model.text_only: found true, expected false: {needs}"
    return f"model.path: {engine.model.path} {what}, but {needs}"


def _num_weights(folder: str, processor: Processor, model: ModelSettings) -> int:
    """Return how many values the weights have that an engine loads, if they are those of the rest of the checkpoint."""
    from models import check_weights
    from models.token_ids import refuse_unknown_tokens

    weights = check_weights(folder, text_only=model.text_only)
    refuse_unknown_tokens(Path(folder), processor, weights.num_tokens)
    return weights.num_values
