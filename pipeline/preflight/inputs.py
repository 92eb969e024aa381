"""Look at a run's input before it starts: it can be read and cut, and its columns and first rows suit the job.

What else must hold, pipeline/preflight/check.py knows; it starts no work.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from models.types import Processor, Sampling
from pipeline.generate import max_length_of, sampling_of
from pipeline.job import Job
from pipeline.keys import duplicate_keys
from pipeline.pipeline_settings import PipelineSettings
from pipeline.plan import make_plan
from pipeline.preflight.models import Looked
from pipeline.preflight.sample import check_length_fault, failure_fault, length_fault, take_sample
from pipeline.rows import READ, part_schema
from pipeline.units import Unit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The units of a run and, where they were cut just now, the first rows and what is wrong with shards.

    Attributes:
        units: All of them.
        sample: The first rows, made ready.
        image_bytes: Of the image files that a row names, on average over the first rows.
        warnings: What is wrong with shards whose rows can be read all the same.
    """

    units: list[Unit]
    sample: Sequence[pa.Table] = ()
    image_bytes: int = 0
    warnings: Sequence[str] = ()


def cut_input(settings: PipelineSettings, job: Job, processor: Processor | None) -> Plan:
    """Cut the input into units, by the first rows where they can be made ready.

    Raises:
        ReadError: The input cannot be read, or holds nothing.
    """
    if processor is None:  # there is a fault already; look only whether the input has one too
        return Plan(make_plan(settings.read.model_copy(update={"limit": 1}), 1, [], 0, job).units)
    sample = take_sample(settings.read, processor, job, sampling_of(settings.generate, job.sampling))
    planned = make_plan(settings.read, settings.write.unit_rows, sample.blocks, sample.image_bytes, job)
    for warning in planned.warnings:
        log.warning("%s", warning)
    return Plan(planned.units, sample.blocks, sample.image_bytes, planned.warnings)


def sample_faults(
    settings: PipelineSettings, job: Job, sample: Sequence[pa.Table], asked: Looked | None, checking: Looked | None
) -> list[str]:
    """Say whether the first rows all fail, or are too long for the model that answers or for the one that checks."""
    if asked is None:
        return []
    limit = asked.processor.max_position_embeddings
    max_length = max_length_of(settings.generate, limit, draws=job.picture is not None)
    found = [failure_fault(sample, settings.limits.max_failed_share)]
    found.append(length_fault(sample, max_length, sampling_of(settings.generate, job.sampling)))
    if checking and job.check:
        generate = job.check.settings.generate
        max_length = max_length_of(generate, checking.processor.max_position_embeddings, draws=False)
        sampling = sampling_of(generate, Sampling())
        found.append(check_length_fault(sample, job, asked.processor, checking.processor, max_length, sampling))
    return [fault for fault in found if fault]


def refuse_duplicates(units: list[Unit], settings: PipelineSettings, job: Job) -> None:
    """Refuse an input of which several rows have one key.

    Raises:
        ValueError: It names some.
    """
    if keys := duplicate_keys(units, settings.read):
        raise ValueError(
            f"several rows have the key {', '.join(map(repr, keys))}, but job {job.kind} needs unique keys"
        )


def column_faults(schema: pa.Schema, job: Job) -> list[str]:
    """Say which columns the job misses, and which of the input's stand in the way of its own."""
    there = [name for name in schema.names if name not in READ]
    missing = [name for name in job.required if name not in (*there, "key", "shard", "index")]
    faults = [
        f"read.columns: job {job.kind} needs a column `{name}`, but the input has {', '.join(there) or 'no others'}"
        for name in missing
    ]
    try:
        part_schema(schema, job)
    except ValueError as error:
        faults.append(f"read.columns: {error}")
    return faults
