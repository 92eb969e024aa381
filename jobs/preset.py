"""Choose whose wording published data sets are asked in, where the settings leave it to the model.

It happens before anything else of a run, so that what is frozen names the wording. It knows settings and families, and
refuses a wording that goes with image settings which the model's family does not have.
"""

import logging

from jobs.benchmarks.presets import PRESET_OF_FAMILY, images_wanted, presets_for
from jobs.benchmarks.settings import AUTO, dataset_of
from jobs.config import RunSettings
from jobs.vqa import VqaSettings
from models import Family, family, image_settings
from models.types import CheckpointError
from pipeline import StorageError, local_copy

log = logging.getLogger(__name__)

# Where the checkpoint cannot be looked at; the run will not start, for that very reason.
WITHOUT_A_MODEL = "lmms"


def resolve_presets(settings: RunSettings) -> tuple[RunSettings, list[str]]:
    """Return settings in which every preset is a name, and which wording wants image settings that the family lacks."""
    job = settings.job
    if not isinstance(job, VqaSettings) or not job.benchmarks:
        return settings, []
    if job.preset == AUTO or any(entry.preset == AUTO for entry in job.benchmarks.values()):
        job = _resolved(job, settings)
        settings = settings.model_copy(update={"job": job})
    # A model that sees no images is shown none, and no settings with them.
    faults = [] if settings.model.text_only else _preset_faults(job, settings)
    return settings, faults


def _resolved(job: VqaSettings, settings: RunSettings) -> VqaSettings:
    preset = job.preset if job.preset != AUTO else PRESET_OF_FAMILY.get(_family(settings) or "", WITHOUT_A_MODEL)
    entries = {
        name: entry.model_copy(update={"preset": preset}) if entry.preset == AUTO else entry
        for name, entry in job.benchmarks.items()
    }
    return job.model_copy(update={"preset": preset, "benchmarks": entries})


def _preset_faults(job: VqaSettings, settings: RunSettings) -> list[str]:
    """Say which presets want image settings that the model's family does not have."""
    wanted: dict[tuple[str, str], dict[str, None]] = {}
    for name, entry in job.benchmarks.items():
        setting = "job.preset" if entry.preset is None else f"job.benchmarks.{name}.preset"
        preset = entry.preset or job.preset
        if names := images_wanted(preset, dataset_of(name, entry)):
            wanted.setdefault((setting, preset), {}).update(dict.fromkeys(names))
    # Looked at only if need be: the model may have to be fetched for it.
    model = _family(settings) if wanted else None
    known = frozenset(image_settings(model) if model else ())
    return [
        f"{setting}: found {preset}, whose wording wants image settings that {model} does not have "
        f"({', '.join(names)}), expected a preset for {model}: {', '.join(presets_for(model))}"
        for (setting, preset), names in wanted.items()
        if model and not known.issuperset(names)
    ]


def _family(settings: RunSettings) -> Family | None:
    """Return the model's family, or nothing where it cannot be looked at."""
    try:
        return family(local_copy(settings.model.path, settings.read.storage, is_looking=True))
    except (CheckpointError, StorageError, ValueError, OSError) as error:
        log.debug("the model's family is not known: %s", error)
        return None
