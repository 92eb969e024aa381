"""Settle whose wording published data sets are asked in where the settings leave it to the model.

It happens before anything else of a run, so that what is frozen names the wording. It knows settings and families.
"""

import logging

from jobs.benchmarks.prompts import PRESET_OF_FAMILY
from jobs.benchmarks.settings import AUTO
from jobs.config import RunSettings
from jobs.vqa import VqaSettings
from models import family
from models.types import CheckpointError
from pipeline.storage.model_folder import local_copy
from pipeline.storage.store import StorageError

log = logging.getLogger(__name__)

# Where the checkpoint cannot be looked at; the run will not start, for that very reason.
UNKNOWN = "lmms"


def settle_preset(settings: RunSettings) -> RunSettings:
    """Return settings in which every preset is a name."""
    job = settings.job
    if not isinstance(job, VqaSettings) or not job.benchmarks:
        return settings
    if job.preset != AUTO and all(entry.preset != AUTO for entry in job.benchmarks.values()):
        return settings
    preset = job.preset if job.preset != AUTO else _of_model(settings)
    entries = {
        name: entry.model_copy(update={"preset": preset}) if entry.preset == AUTO else entry
        for name, entry in job.benchmarks.items()
    }
    return settings.model_copy(update={"job": job.model_copy(update={"preset": preset, "benchmarks": entries})})


def _of_model(settings: RunSettings) -> str:
    try:
        return PRESET_OF_FAMILY[family(local_copy(settings.model.path, settings.read.storage, is_looking=True))]
    except (CheckpointError, StorageError, ValueError, OSError) as error:
        log.debug("the model says no preset: %s", error)
        return UNKNOWN
