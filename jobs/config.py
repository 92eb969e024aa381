"""The settings of a whole run: the pipeline's and the job's. `RunSettings` is what a YAML file must fit."""

from typing import Annotated

from pydantic import Field

from jobs.caption import CaptionSettings
from jobs.synthesize import SynthesizeSettings
from jobs.vqa import VqaSettings
from pipeline.pipeline_settings import PipelineSettings

JobSettings = Annotated[CaptionSettings | VqaSettings | SynthesizeSettings, Field(discriminator="kind")]


class RunSettings(PipelineSettings):
    """One run: how rows travel, and what is asked of the model.

    Attributes:
        job: What is asked and what is kept, chosen by `job.kind`.
        note: A sentence for whoever reads the report; it stands at its top.
    """

    job: JobSettings
    note: str | None = None
