"""Turn rows into model inputs on CPU actors: ask the job for the request, then render, tokenise and tile.

What goes wrong with a row becomes that row's error. This file knows nothing of devices: the tiles leave it as uint8.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from models.types import (
    TEMPLATE_DATE,
    BadImage,
    BadRequest,
    ImageSettings,
    ModelInput,
    Processor,
    PromptTooLong,
    Sampling,
    UnseenImage,
)
from pipeline.columns import ERROR
from pipeline.job import Job
from pipeline.rows import MODEL_INPUT, RowError, input_columns, row_error, row_seed
from pipeline.settings import Settings


class PreprocessSettings(Settings):
    """How prompts and images are made ready, and by how many actors."""

    actors: int | None = Field(default=None, ge=1, description="CPU actors; null takes what generation leaves free")
    split_image: bool | None = Field(default=None, description="Aria: cut large images into crops beside the overview")
    max_image_size: int | None = Field(default=None, ge=1, description="Aria: side of the canvas, 490 or 980")
    max_image_tiles: int | None = Field(
        default=None, ge=1, le=4, description="Mllama: the most tiles a picture is cut into, 1 to 4"
    )
    today: date = Field(default=TEMPLATE_DATE, description="the day it is for chat templates that write one")

    @property
    def images(self) -> ImageSettings:
        """What overrides the checkpoint's own image settings."""
        return ImageSettings(self.split_image, self.max_image_size, self.max_image_tiles)

    @field_validator("today", mode="before")
    @classmethod
    def _is_a_day(cls, today: Any) -> date:
        # Not left to pydantic, which takes a bare number for seconds since 1970.
        try:
            return today if isinstance(today, date) else date.fromisoformat(today)
        except (TypeError, ValueError) as error:
            raise ValueError(f"found {today!r}, expected a day such as 2024-07-26") from error


def open_processor(path: str, settings: PreprocessSettings, template: str | None, *, text_only: bool) -> Processor:
    """Load a checkpoint's processor as a run's settings want it.

    Raises:
        CheckpointError: The checkpoint is not one we can run, or the settings do not suit it.
    """
    from models import load_processor

    return load_processor(path, settings.images, template, today=settings.today, text_only=text_only)


class MissingImage(ValueError):
    """A row has no image, and the job cannot ask without one."""


class Preprocess:
    """The CPU step. An instance holds the processor and is called once per unit."""

    def __init__(self, processor: Processor, job: Job, sampling: Sampling) -> None:
        self._processor = processor
        self._job = job
        self._sampling = sampling

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return the block without its images, with the columns of MODEL_INPUT and the errors found here."""
        inputs: list[ModelInput | None] = []
        errors: list[RowError | None] = []
        seeds: list[int] = []
        for i in range(block.num_rows):
            row = _row(block, i)
            seeds.append(row_seed(self._sampling.seed, row["key"]))
            model_input, error = self._prepare(row, seeds[-1])
            inputs.append(model_input)
            errors.append(error)
        kept = block.drop_columns(["images", "error"]).append_column("error", pa.array(errors, ERROR))
        for field, column in zip(MODEL_INPUT, input_columns(inputs, seeds), strict=True):
            kept = kept.append_column(field, column)
        return kept

    def _prepare(self, row: Mapping[str, Any], seed: int) -> tuple[ModelInput | None, RowError | None]:
        """Make one row ready, or say why it cannot be."""
        if row["error"] is not None:
            return None, row["error"]
        if not row["images"] and not self._job.has_text_only_rows:
            return None, row_error("fetch", MissingImage("the row has no image, and this job needs one"))
        stage = "template"
        try:
            request = self._job.request(row)
            stage = "preprocess"
            request = replace(request, key=row["key"], sampling=replace(self._sampling, seed=seed))
            return self._processor.prepare(request), None
        except Exception as error:  # any failure of one row must cost that row alone
            return None, row_error(_stage_of(error, stage), error)


def _stage_of(error: Exception, stage: str) -> str:
    """Name the stage by the kind of error where that says more than the place where it was caught."""
    if isinstance(error, PromptTooLong):
        return "tokenise"
    if isinstance(error, BadImage):
        return "decode"
    if isinstance(error, UnseenImage):
        return "preprocess"
    return "template" if isinstance(error, BadRequest) else stage


def _row(block: pa.Table, i: int) -> dict[str, Any]:
    row = block.slice(i, 1).to_pylist()[0]
    row["images"] = tuple(row["images"] or ())
    return dict(row)
