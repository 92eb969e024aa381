"""Ask another model about finished rows, such as whether a picture shows what it was drawn from.

The check is a step of its own behind generation, on actors of its own; what it finds fills columns of the row.
"""

from pydantic import Field

from pipeline.generate import GenerateSettings, ModelSettings
from pipeline.preprocess import PreprocessSettings
from pipeline.settings import Settings


class CheckSettings(Settings):
    """Which model looks at the finished rows, on what, and how it answers."""

    model: ModelSettings
    preprocess: PreprocessSettings = PreprocessSettings()
    generate: GenerateSettings = Field(default=GenerateSettings(slots=8))
