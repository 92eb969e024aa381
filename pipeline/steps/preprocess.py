"""Turn rows into model inputs on CPU actors: ask the job for the request, then render, tokenise and tile.

What goes wrong with a row becomes that row's error. This file knows nothing of devices: the tiles leave it as uint8.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from models.images import silent_conversions
from models.types import (
    BadImage,
    BadRequest,
    Processor,
    PromptTooLong,
    Sampling,
    UnseenImage,
)
from pipeline.input.columns import ERROR
from pipeline.job import Job
from pipeline.rows import IMAGES, MODEL_INPUT, ODDITIES, Prepared, input_columns, row_error, row_seed


class MissingImage(ValueError):
    """A row has no image, and the job cannot ask without one."""


class Preprocess:
    """The CPU step. An instance holds the processor and is called once per unit."""

    def __init__(self, processor: Processor, job: Job, sampling: Sampling, *, keeps_images: bool = False) -> None:
        """Keep what all units share.

        Args:
            processor: Of the model that answers.
            job: What is asked.
            sampling: The run's.
            keeps_images: Whether compressed images go on with their rows, as IMAGES.
        """
        self._processor = processor
        self._job = job
        self._sampling = sampling
        self._keeps_images = keeps_images

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return the block, a row for each answer, with MODEL_INPUT's columns and the errors in its images' place."""
        numbers: list[int] = []
        prepared: list[Prepared] = []
        for row in range(block.num_rows):
            ready = self._prepare(_row(block, row))
            numbers += [row] * len(ready)
            prepared += ready
        odd = [_oddities(images) for images in block.column("images")]
        kept = block.drop_columns(["images", "error"]).append_column(ODDITIES, pa.array(odd, pa.list_(pa.string())))
        if self._keeps_images:
            kept = kept.append_column(IMAGES, block.column("images"))
        if len(numbers) > block.num_rows:
            kept = kept.take(pa.array(numbers))
        kept = kept.append_column("error", pa.array([request.error for request in prepared], ERROR))
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
    return [name for image in images.values for name in silent_conversions(image.as_py())]


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
