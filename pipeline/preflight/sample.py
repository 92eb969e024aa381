"""Make the first rows ready before anything starts: how large they are, and whether any of them fits the engine.

It runs on the driver's CPU, with the processors alone. This file knows nothing of Ray.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from models.images import encode_image
from models.types import Answer, BadRequest, ModelInput, PictureFormat, Processor, Sampling
from pipeline.job import Job
from pipeline.preprocess import Preprocess
from pipeline.read import read_unit
from pipeline.rows import model_inputs
from pipeline.shards import FILE_FORMATS
from pipeline.units import ReadSettings, plan_units

# Rows with images take a moment each; prompts of pictures do not, and how many a row asks for differs.
SAMPLE_ROWS, DRAWN_SAMPLE_ROWS = 4, 64
# A dataset may begin with some broken rows; with so many that all fail alike, it is more likely the settings.
FAILING_ROWS = 32
# How large image files are that rows name is seen without decoding them.
MEASURED_ROWS = 16


def take_sample(read: ReadSettings, processor: Processor, job: Job, sampling: Sampling) -> list[pa.Table]:
    """Return the input's first rows, read and made ready as the run will do it; more of them if all of these fail.

    Raises:
        ReadError: The input cannot be read, or holds nothing.
    """
    preprocess = Preprocess(processor, job, sampling)

    def first(num_rows: int) -> list[pa.Table]:
        units = plan_units(read.model_copy(update={"limit": min(num_rows, read.limit or num_rows)}), num_rows)
        return [preprocess(read_unit(unit, read)) for unit in units]

    sample = first(SAMPLE_ROWS if job.picture is None else DRAWN_SAMPLE_ROWS)
    are_failed = all(error is not None for error in _errors(sample))
    return first(FAILING_ROWS) if are_failed and job.picture is None else sample


def image_bytes(read: ReadSettings) -> int:
    """Return the bytes of a row's image files, on average over the first rows that have any.

    Where every file is a row, and in tars, units are cut by the bytes that are there: 0.

    Raises:
        ReadError: The input cannot be read, or holds nothing.
    """
    limit = min(MEASURED_ROWS, read.limit or MEASURED_ROWS)
    units = plan_units(read.model_copy(update={"limit": limit}), SAMPLE_ROWS)
    if units[0].format in (*FILE_FORMATS, "webdataset"):
        return 0
    images = (row for unit in units for row in read_unit(unit, read).column("images").to_pylist())
    sizes = [sum(map(len, row)) for row in images if row]
    return sum(sizes) // max(1, len(sizes))


def failure_fault(sample: Sequence[pa.Table], max_failed_share: float) -> str | None:
    """Say that the first rows all fail alike, if they do, where so many failed rows are not what the run expects."""
    errors = _errors(sample)
    kinds = {(error["stage"], error["type"]) for error in errors if error is not None}
    if len(errors) < FAILING_ROWS or None in errors or len(kinds) > 1 or max_failed_share >= 1:
        return None
    error = next(error for error in errors if error is not None)
    return (
        f"read: all of the first {len(errors)} rows fail, the first one at {error['stage']}: {error['type']}: "
        f"{error['message']}; expected rows that this job and model can take (limits.max_failed_share=1 runs them "
        "all the same)"
    )


def row_bytes(sample: Sequence[pa.Table]) -> int:
    """Return the bytes of a row made ready: of the block whose rows are largest, on average."""
    return max((block.nbytes // block.num_rows for block in sample if block.num_rows), default=0)


def length_fault(sample: Sequence[pa.Table], max_length: int, sampling: Sampling) -> str | None:
    """Say that none of the rows fits, if none does; rows that failed on their way here count for nothing."""
    lengths = [_length(given, sampling) for block in sample for given in model_inputs(block) if given is not None]
    if not lengths or min(lengths) <= max_length:
        return None
    return (
        f"generate.max_length: {max_length} tokens hold none of the first {len(lengths)} prompts with their answers, "
        f"expected at least {min(lengths)}"
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
        lengths = [_length(checking.prepare(request), sampling) for request in job.check.requests(row, sampling)]
    except BadRequest:  # this row cannot be asked about; others may
        return None
    if not lengths or min(lengths) <= max_length:
        return None
    size = f"{row['width']} x {row['height']} pixels" if "width" in row else "the first row's size"
    return (
        f"job.check.generate.max_length: {max_length} tokens hold no question about a picture of {size}, "
        f"expected at least {min(lengths)}"
    )


def _blank(block: pa.Table, job: Job, processor: Processor) -> dict[str, Any] | None:
    """Return a row as it will be with its picture drawn, but that it is black; None if no row of the block is well."""
    side = processor.pixels_per_code
    given = model_inputs(block)
    place = next((place for place, one in enumerate(given) if one is not None and one.is_drawn), None)
    if place is None or side is None or job.picture is None:
        return None
    model_input = given[place]
    assert model_input is not None
    rows, columns = model_input.layout
    image = encode_image(np.zeros((rows * side, columns * side, 3), np.uint8), PictureFormat())
    row = {name: value for name, value in block.slice(place, 1).to_pylist()[0].items() if not name.startswith("input.")}
    answer = Answer("", image, (), (), "stop", len(model_input.token_ids), 0)
    return {**row, "seed": 0, **job.record(row, answer, 0, Sampling())}


def _errors(sample: Sequence[pa.Table]) -> list[dict[str, str] | None]:
    return [error for block in sample for error in block.column("error").to_pylist()]


def _length(given: ModelInput, sampling: Sampling) -> int:
    negative = 0 if given.negative is None else len(given.negative)
    answer = sampling.max_new_tokens if given.num_new_tokens is None else given.num_new_tokens
    return max(len(given.token_ids), negative) + answer
