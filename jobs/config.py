"""The settings of a whole run: the pipeline's and the job's, from a YAML file or as a run froze them in its output.

`RunSettings` is the schema of a YAML file; jobs/settings_help.py lists it.
"""

import copy
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from jobs.caption import CaptionSettings
from jobs.report.results import ReportError
from jobs.synthesize import SynthesizeSettings
from jobs.vqa import VqaSettings
from pipeline import (
    ConfigError,
    NotFound,
    PipelineSettings,
    ReadSettings,
    Settings,
    StorageSettings,
    Store,
    check_settings,
    lay_over,
    ledger,
)

JobSettings = Annotated[CaptionSettings | VqaSettings | SynthesizeSettings, Field(discriminator="kind")]
# Settings under `read` that each benchmark sets for itself, and their names under job.benchmarks.<name>.
BENCHMARK_SETTINGS = {"format": "format", "join": "images", "num_frames": "num_frames", "frame_size": "frame_size"}


class PlanSettings(Settings):
    """What a plan and a report reckon with beside the run; nothing in a run depends on it."""

    price_per_device_hour: float | None = Field(
        default=None,
        ge=0,
        description="of one GPU, or of one engine on a CPU, in any currency: `triptych plan` and the report say what "
        "the run costs; null: they say how long devices are held",
    )


class RunSettings(PipelineSettings):
    """All settings of a run: the pipeline's, and the job's, chosen by `job.kind`."""

    job: JobSettings
    plan: PlanSettings = PlanSettings()
    note: str | None = Field(default=None, description="a sentence for whoever reads the report; it stands at its top")

    @model_validator(mode="after")
    def _refuse_settings_of_single_benchmarks(self) -> "RunSettings":
        """Refuse for all benchmarks at once what each of them sets for itself."""
        if isinstance(self.job, VqaSettings) and self.job.benchmarks:
            faults = []
            if self.generate.sampling.max_new_tokens is not None:
                faults.append(
                    "generate.sampling.max_new_tokens: found a limit for all answers, expected none beside "
                    "job.benchmarks: set job.benchmarks.<name>.max_new_tokens, or leave the preset's limit"
                )
            if self.read.columns:
                faults.append(
                    f"read.columns: found {', '.join(self.read.columns)}, expected none beside job.benchmarks: set "
                    "job.benchmarks.<name>.columns"
                )
            faults += [
                f"read.{setting}: found {getattr(self.read, setting)!r}, expected none beside job.benchmarks: set "
                f"job.benchmarks.<name>.{own_setting}"
                for setting, own_setting in BENCHMARK_SETTINGS.items()
                if getattr(self.read, setting) != ReadSettings.model_fields[setting].default
            ]
            if faults:
                raise ValueError("; ".join(faults))
        return self


def output_at(uri: str, overrides: Sequence[str], allowed: Sequence[str] = ()) -> Store:
    """Open the output of a run, with the overrides of `write.storage`.

    Args:
        uri: Where it is.
        overrides: `dotted.key=value` each.
        allowed: The sections whose settings may be overridden, e.g. `write.storage`; empty for all.

    Raises:
        ConfigError: An override is not `key=value`, or of a setting that may not be overridden.
    """
    sections = tuple(f"{section}." for section in allowed)
    others = [text for text in overrides if sections and not f"{text.partition('=')[0]}.".startswith(sections)]
    if others:
        *first, last = [f"{section}*" for section in sections]
        expected = " and ".join([", ".join(first), last] if first else [last])
        faults = [f"override {text!r}: found another setting, expected only {expected}" for text in others]
        raise ConfigError("the command line", faults)
    values: dict[str, Any] = {}
    if faults := lay_over(values, overrides):
        raise ConfigError("the command line", faults)
    write = values.get("write")
    storage = write.get("storage", {}) if isinstance(write, dict) else {}
    return Store(uri, check_settings(StorageSettings, storage, "write.storage"))


def frozen_settings(output: Store, overrides: Sequence[str]) -> RunSettings:
    """Return the settings that a run froze in its output, with overrides; the output may have moved since.

    Raises:
        ReportError: There is no run.
        ConfigError: The settings, with the overrides, do not fit this version, or are those of another job.
        StorageError: The output cannot be read.
    """
    try:
        frozen = ledger.read_settings(output)["settings"]
    except NotFound as error:
        missing = f"found no run in {output.uri} ({ledger.SETTINGS} is missing), expected the folder of its results"
        raise ReportError(missing) from error
    values = copy.deepcopy(frozen)
    lay_over(values, overrides)
    values["write"]["uri"] = output.uri
    kind = values["job"].get("kind") if isinstance(values["job"], dict) else None
    if kind != frozen["job"]["kind"]:  # of another job's settings each would be a fault
        was = f"was {frozen['job']['kind']!r}, now {kind!r}"
        raise ConfigError(
            "the command line", [f"job.kind: {was}; another job is a run of its own, into another output"]
        )
    return check_settings(RunSettings, values, output.name(ledger.SETTINGS))
