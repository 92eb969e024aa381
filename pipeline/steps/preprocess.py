"""Turn rows into model inputs on CPU actors: ask the job for the request, then render, tokenise and tile.

What goes wrong with a row becomes that row's error. This file knows nothing of devices: the tiles leave it as uint8.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from models.images import oddities
from models.types import (
    TEMPLATE_DATE,
    BadImage,
    BadRequest,
    ImageSettings,
    Processor,
    PromptTooLong,
    Sampling,
    Tokenizer,
    UnseenImage,
)
from pipeline.input.columns import ERROR
from pipeline.job import Job
from pipeline.rows import MODEL_INPUT, ODDITIES, Prepared, input_columns, row_error, row_seed
from pipeline.settings import Settings
from pipeline.steps.pools import ActorCount


class PreprocessSettings(Settings):
    """How prompts and images are made ready, and by how many actors."""

    actors: ActorCount = Field(
        default=None, description="CPU actors, or [min, max] of them; null takes what generation leaves free"
    )
    split_image: bool | None = Field(default=None, description="Aria: cut large images into crops beside the overview")
    max_image_size: int | None = Field(default=None, ge=1, description="Aria: side of the canvas, 490 or 980")
    max_image_tiles: int | None = Field(
        default=None, ge=1, le=4, description="Mllama: the most tiles a picture is cut into, 1 to 4"
    )
    min_pixels: int | None = Field(default=None, ge=1, description="Emu3: smaller pictures are enlarged to this area")
    max_pixels: int | None = Field(default=None, ge=1, description="Emu3: larger pictures are shrunk to this area")
    pad_to_ratio: int | None = Field(
        default=None,
        ge=1,
        le=200,
        description="Emu3: pictures with one side more than so many times the other get black edges",
    )
    tokenizer: Tokenizer = Field(default="checkpoint", description="Emu3: `baai` cuts words as its authors' own does")
    today: date = Field(default=TEMPLATE_DATE, description="the day it is for chat templates that write one")

    @property
    def images(self) -> ImageSettings:
        """What overrides the checkpoint's own image settings."""
        return ImageSettings(
            self.split_image,
            self.max_image_size,
            self.max_image_tiles,
            self.min_pixels,
            self.max_pixels,
            self.pad_to_ratio,
        )

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

    return load_processor(
        path, settings.images, template, today=settings.today, text_only=text_only, tokenizer=settings.tokenizer
    )


class MissingImage(ValueError):
    """A row has no image, and the job cannot ask without one."""


class Preprocess:
    """The CPU step. An instance holds the processor and is called once per unit."""

    def __init__(self, processor: Processor, job: Job, sampling: Sampling) -> None:
        self._processor = processor
        self._job = job
        self._sampling = sampling

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return the block, a row for each answer, without its images but with MODEL_INPUT's columns and the errors."""
        places: list[int] = []
        prepared: list[Prepared] = []
        for place in range(block.num_rows):
            ready = self._prepare(_row(block, place))
            places += [place] * len(ready)
            prepared += ready
        odd = [_oddities(images) for images in block.column("images")]
        kept = block.drop_columns(["images", "error"]).append_column(ODDITIES, pa.array(odd, pa.list_(pa.string())))
        if len(places) > block.num_rows:
            kept = kept.take(pa.array(places))
        kept = kept.append_column("error", pa.array([one.error for one in prepared], ERROR))
        for field, column in zip(MODEL_INPUT, input_columns(prepared), strict=True):
            kept = kept.append_column(field, column)
        return kept

    def _prepare(self, row: Mapping[str, Any]) -> list[Prepared]:
        """Make one row's requests ready, or say once why they cannot be."""
        sampling = replace(self._sampling, seed=row_seed(self._sampling.seed, row["key"]))
        error = row["error"]
        if error is None and not row["images"] and not self._job.has_text_only_rows:
            error = row_error("fetch", MissingImage("the row has no image, and this job needs one"))
        if error is not None:
            return [Prepared(0, sampling, None, error)]
        stage = "template"
        try:
            requests = self._job.requests(row, sampling)
            stage = "preprocess"
            return [
                Prepared(answer, request.sampling, self._processor.prepare(replace(request, key=row["key"])), None)
                for answer, request in enumerate(requests)
            ]
        except Exception as failure:  # any failure of one row must cost that row alone
            return [Prepared(0, sampling, None, row_error(_stage_of(failure, stage), failure))]


def _oddities(images: pa.Scalar) -> list[str]:
    """Name what is odd about a row's images; a thing that several of them have stands there as often."""
    if not images.is_valid:
        return []
    return [name for image in images.values for name in oddities(image.as_py())]


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
