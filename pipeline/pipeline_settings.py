"""The settings of a run but for its job: one section per step.

Each section's class stands at the top of its step's file; a setting is explained there.
"""

from pydantic import Field

from pipeline.execution.cluster.start import RaySettings
from pipeline.input.units import ReadSettings
from pipeline.settings import Settings
from pipeline.steps.generate import GenerateSettings, ModelSettings
from pipeline.steps.preprocess import PreprocessSettings
from pipeline.steps.write import WriteSettings


class LimitsSettings(Settings):
    """How much may go wrong: in a finished run that does not count as failed, and with one row that kills processes."""

    max_failed_share: float = Field(default=0.05, ge=0, le=1, description="failed rows / rows")
    attempts: int = Field(
        default=4,
        ge=3,
        description="tries of a row whose process dies, the last two on it alone; then it is an error row",
    )


class PipelineSettings(Settings):
    """Everything about a run but its job."""

    read: ReadSettings
    model: ModelSettings
    preprocess: PreprocessSettings = PreprocessSettings()
    generate: GenerateSettings = GenerateSettings()
    write: WriteSettings
    limits: LimitsSettings = LimitsSettings()
    ray: RaySettings = RaySettings()
