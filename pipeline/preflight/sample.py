"""Make the first rows ready before anything starts: how large they are, and whether any of them fits the engine.

It runs on the driver's CPU, with the processors alone. This file knows nothing of Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from models.images import encode_image
from models.types import Answer, BadRequest, ModelInput, PictureFormat, Processor, Sampling
from pipeline.input.formats.table import FORMATS, Format
from pipeline.input.proposals import own_name, setting_for
from pipeline.input.read import read_unit
from pipeline.input.sources import Source
from pipeline.input.units import Unit, plan_input
from pipeline.job import Job
from pipeline.rows import FOR_THE_JOB, READ, model_inputs
from pipeline.steps.preprocess import MissingImage, Preprocess
from pipeline.steps.read import read_job_rows
from pipeline.storage.store import NotFound

# Rows with images take a moment each; prompts of pictures do not, and how many a row asks for differs.
SAMPLE_ROWS, DRAWN_SAMPLE_ROWS = 4, 64
# A dataset may begin with some broken rows; with so many that all fail alike, it is more likely the settings.
FAILING_ROWS = 32
# How large image files are that rows name is seen without decoding them.
MEASURED_ROWS = 16


@dataclass(frozen=True)
class Sample:
    """The first rows of a source.

    Attributes:
        blocks: Some of them, made ready as the run will do it.
        image_bytes: Of the image files that a row names, on average over those rows that have any. 0 in tars and where
            every file is a row: there units are cut by the bytes that are there, and a video is a unit by itself.
    """

    blocks: Sequence[pa.Table]
    image_bytes: int = 0


def take_sample(
    source: Source, processor: Processor, job: Job, sampling: Sampling, *, keeps_images: bool = False
) -> Sample:
    """Read a source's first rows and make some of them ready; more of them if all of these fail.

    Raises:
        ReadError: The source cannot be read, or holds nothing.
        MissingColumns: It lacks columns that the job needs.
    """
    preprocess = Preprocess(processor, job, sampling, keeps_images=keeps_images)
    if job.picture is not None:
        units = _first(source, DRAWN_SAMPLE_ROWS, DRAWN_SAMPLE_ROWS)
        return Sample([preprocess(_read(unit, source, job)) for unit in units])
    blocks: list[pa.Table] = []
    sizes: list[int] = []
    first = _first(source, MEASURED_ROWS, SAMPLE_ROWS)
    for unit in first:
        is_measured = not FORMATS[unit.format].is_cut_by_bytes and "video" not in source.read.columns
        missing = SAMPLE_ROWS - sum(block.num_rows for block in blocks)
        if not missing and not is_measured:
            break
        block = _read(unit, source, job)
        if missing:
            blocks.append(preprocess(block.slice(0, missing)))
        if is_measured:
            sizes += [sum(map(len, images)) for images in block.column("images").to_pylist() if images]
    if all(error is not None for error in _errors(blocks)) or is_blind(blocks, source, first[0].format, job, processor):
        units = _first(source, FAILING_ROWS, FAILING_ROWS)
        blocks = [preprocess(_read(unit, source, job)) for unit in units]
    return Sample(blocks, sum(sizes) // max(1, len(sizes)))


def is_blind(sample: Sequence[pa.Table], source: Source, format: Format, job: Job, processor: Processor) -> bool:
    """Say whether the job is about images and the first rows have none: then their column may have another name.

    Rows that name an image which cannot be had are errors of their own. Of a raw source the job knows which rows have
    images, and lines of text are questions without any, where the job takes these.
    """
    if not _are_expected(source, job, processor):
        return False
    errors = {error["type"] for error in _errors(sample) if error is not None}
    if format == "text" and not errors:
        return False
    given = [one for block in sample for one in model_inputs(block) if one is not None]
    return errors <= {MissingImage.__name__} and not any(one.image_tokens for one in given)


def blindness_of_others(source: Source, job: Job, processor: Processor) -> list[str]:
    """Say that the first rows have no image, where the job cannot take them for want of other columns."""
    if not _are_expected(source, job, processor):
        return []
    units = _first(source, SAMPLE_ROWS, SAMPLE_ROWS)
    blocks = [read_unit(unit, source.read) for unit in units]
    if units[0].format == "text" and job.has_text_only_rows:
        return []
    if any(block["error"].null_count < block.num_rows or any(block["images"].to_pylist()) for block in blocks):
        return []
    return [blindness_fault(blocks, units[0])]


def _are_expected(source: Source, job: Job, processor: Processor) -> bool:
    is_expected = job.expects_images and processor.sees_images and source.read.images == "expected"
    return is_expected and not source.is_raw


def blindness_fault(sample: Sequence[pa.Table], unit: Unit) -> str:
    """Say that the first rows, those of a unit or more, have no image, and which column might hold one."""
    columns = [name for name in unit.table_schema.names if name not in READ and not name.startswith(FOR_THE_JOB)]
    num_rows = sum(block.num_rows for block in sample)
    proposed = setting_for("image", pa.concat_tables(block.select(columns) for block in sample)) if columns else None
    advice = f"set {proposed}, or " if proposed else "name the one with images by read.columns.image=COLUMN, or "
    if unit.format == "text":
        advice = "set read.columns={image: text, key: text} if lines are paths of images, or "
    elif not FORMATS[unit.format].has_columns:
        advice = ""
    return (
        f"read: none of the first {num_rows} rows has an image, and the columns are "
        f"{', '.join(map(own_name, columns)) or 'none'}; {advice}set read.images=optional if none is meant"
    )


def failure_fault(sample: Sequence[pa.Table], max_failed_share: float) -> str | None:
    """Say that the first rows all fail alike, if they do, where so many failed rows are not what the run expects."""
    errors = _errors(sample)
    kinds = {(error["stage"], error["type"]) for error in errors if error is not None}
    if len(errors) < FAILING_ROWS or None in errors or len(kinds) > 1 or max_failed_share >= 1:
        return None
    error = next(error for error in errors if error is not None)
    elsewhere = "; what rows name may lie elsewhere: set read.folders" if error["type"] == NotFound.__name__ else ""
    return (
        f"read: all of the first {len(errors)} rows fail, the first one at {error['stage']}: {error['type']}: "
        f"{error['message']}{elsewhere}; expected rows that this job and model can take "
        "(limits.max_failed_share=1 runs them anyway)"
    )


def row_bytes(sample: Sequence[pa.Table]) -> int:
    """Return the bytes of a row made ready: of the block whose rows are largest, on average."""
    return max((block.nbytes // block.num_rows for block in sample if block.num_rows), default=0)


def length_fault(sample: Sequence[pa.Table], max_length: int, limit: int) -> str | None:
    """Say that none of the rows fits, if none does; rows that failed on their way here count for nothing.

    Args:
        sample: The first rows, made ready.
        max_length: The longest sequence of the model that answers.
        limit: The checkpoint's own.
    """
    lengths = [
        _length(given, limit)
        for block in sample
        for given, limit in zip(model_inputs(block), block.column("input.max_new_tokens").to_pylist(), strict=True)
        if given is not None
    ]
    if not lengths or min(lengths) <= max_length:
        return None
    beyond = (
        f", but the checkpoint ends at {limit}; ask for less: smaller pictures (job.area, preprocess), fewer images or "
        "frames, fewer generate.sampling.max_new_tokens"
    )
    return (
        f"generate.max_length: {max_length} tokens are too few for any of the first {len(lengths)} prompts with its "
        f"answer, expected at least {min(lengths)}{beyond if min(lengths) > limit else ''}"
    )


def check_length_fault(
    sample: Sequence[pa.Table], job: Job, drawing: Processor, checking: Processor, max_length: int, sampling: Sampling
) -> str | None:
    """Say that no question about a picture fits the model that checks, tried with a blank one of the first row's size.

    Args:
        sample: The first rows, made ready.
        job: What draws, with its check.
        drawing: The processor of the model that draws.
        checking: That of the model that checks.
        max_length: The longest sequence of the model that checks.
        sampling: How it answers.
    """
    row = next(filter(None, (_blank(block, job, drawing) for block in sample)), None)
    if row is None or job.check is None:
        return None
    try:
        requests = job.check.requests(row, sampling)
        lengths = [_length(checking.prepare(request), request.sampling.max_new_tokens) for request in requests]
    except BadRequest:  # this row cannot be asked about; others may
        return None
    if not lengths or min(lengths) <= max_length:
        return None
    size = f"{row['width']} x {row['height']} pixels" if "width" in row else "the first row's size"
    return (
        f"job.check.generate.max_length: {max_length} tokens are too few for a question about a picture of {size}, "
        f"expected at least {min(lengths)}"
    )


def _blank(block: pa.Table, job: Job, processor: Processor) -> dict[str, Any] | None:
    """Return a row as it will be with its picture drawn, but that it is black; None if no row of the block is well."""
    side = processor.pixels_per_code
    given = model_inputs(block)
    number = next(
        (number for number, model_input in enumerate(given) if model_input is not None and model_input.is_drawn), None
    )
    if number is None or side is None or job.picture is None:
        return None
    model_input = given[number]
    assert model_input is not None
    rows, columns = model_input.layout
    image = encode_image(np.zeros((rows * side, columns * side, 3), np.uint8), PictureFormat())
    row = {
        name: value for name, value in block.slice(number, 1).to_pylist()[0].items() if not name.startswith("input.")
    }
    answer = Answer("", image, (), (), "stop", len(model_input.token_ids), 0)
    return {**row, "seed": 0, **job.record(row, answer, 0, Sampling())}


def _first(source: Source, num_rows: int, unit_rows: int) -> list[Unit]:
    limit = min(num_rows, source.read.limit or num_rows)
    read = source.read.model_copy(update={"limit": limit})
    planned = plan_input(read, unit_rows, is_raw=source.is_raw, reads=source.reads)
    return [replace(unit, source=source.name, is_raw=source.is_raw) for unit in planned.units]


def _read(unit: Unit, source: Source, job: Job) -> pa.Table:
    return read_job_rows(unit, job, {source.name: source.read})


def _errors(sample: Sequence[pa.Table]) -> list[dict[str, str] | None]:
    return [error for block in sample for error in block.column("error").to_pylist()]


def _length(given: ModelInput, max_new_tokens: int) -> int:
    negative = 0 if given.negative is None else len(given.negative)
    if given.choices:  # they stand behind the prompt one after the other, each without its last token, which is one
        return len(given.token_ids) + 1 + sum(len(choice) - 1 for choice in given.choices)
    answer = max_new_tokens if given.num_new_tokens is None else given.num_new_tokens
    return max(len(given.token_ids), negative) + answer
