"""Look at a run's input before it starts: it can be read and cut, and its columns and first rows suit the job.

What else must hold, pipeline/preflight/check.py knows; it starts no work.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pyarrow as pa

from models.types import Processor
from pipeline.input.keys import duplicate_keys
from pipeline.input.proposals import own_name, setting_for
from pipeline.input.sources import Source, join_plans
from pipeline.input.units import InputPlan, Unit
from pipeline.job import Job, MissingColumns
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.models import ModelProbe, check_setting
from pipeline.preflight.sample import (
    Sample,
    blindness_fault,
    blindness_of_others,
    check_length_fault,
    failure_fault,
    is_blind,
    length_fault,
    row_bytes,
    take_sample,
)
from pipeline.rows import FOR_THE_JOB, READ, part_schema
from pipeline.state.plan import make_plan
from pipeline.steps.engine import answering_engine
from pipeline.steps.read import settings_by_source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The units of a run and, where they were cut just now, the first rows and what is wrong with shards.

    Attributes:
        units: All of them.
        samples: The first rows of each source, by its name, made ready.
        row_bytes: Of a row, as it is read or made ready, in the source whose units take most.
        unit_rows: Of the largest unit of that source.
        warnings: What is wrong with shards whose rows can be read all the same.
    """

    units: list[Unit]
    samples: Mapping[str, Sequence[pa.Table]] = field(default_factory=dict)
    row_bytes: int = 0
    unit_rows: int = 0
    warnings: Sequence[str] = ()


def _reading(source: Source, job: Job) -> Source:
    """Return a source that knows which of its columns the job reads; of a raw one it makes columns of its own."""
    return source if source.is_raw else replace(source, reads=(*job.required, *job.optional))


def cut_input(faults: list[str], settings: PipelineSettings, job: Job, processor: Processor | None) -> Plan | None:
    """Cut all sources into units, by their first rows where these can be made ready.

    Args:
        faults: What is wrong with any of them is added here; then the plan is of the others, or None.
        settings: The run's.
        job: The run's.
        processor: Of the model that answers; without it the sources are only checked for faults of their own.
    """
    tries = [
        check_setting(faults, _where(source.name), functools.partial(_cut, source, settings, job, processor))
        for source in (_reading(source, job) for source in job.sources(settings.read))
    ]
    cuts = [cut for cut in tries if cut]
    joined = check_setting(
        faults,
        "read",
        lambda: join_plans([cut.source for cut in cuts], [cut.planned for cut in cuts], settings.read.uri),
    )
    if joined is None or not joined.units:
        return None
    for note in joined.notes:
        log.info("%s", note)
    for cut in cuts:
        _tell_unread(cut, job)
    for warning in joined.warnings:
        log.warning("%s", warning)
    samples = {cut.source.name: cut.sample.blocks for cut in cuts}
    largest = max(cuts, key=lambda cut: cut.row_bytes * cut.unit_rows)
    return Plan(joined.units, samples, largest.row_bytes, largest.unit_rows, joined.warnings)


class _Cut(NamedTuple):
    """A source, its first rows and its units."""

    source: Source
    sample: Sample
    planned: InputPlan

    @property
    def row_bytes(self) -> int:
        """Of a row, as it is read or made ready, whichever is more."""
        return max(row_bytes(self.sample.blocks), self.sample.image_bytes)

    @property
    def unit_rows(self) -> int:
        """Of its largest unit."""
        return max(unit.num_rows for unit in self.planned.units)


def _cut(source: Source, settings: PipelineSettings, job: Job, processor: Processor | None) -> _Cut:
    """Take a source's first rows and plan it.

    Raises:
        ReadError: It cannot be read, or holds nothing.
        MissingColumns: It lacks columns that the job needs.
    """
    if processor is None:
        first = replace(source, read=source.read.model_copy(update={"limit": 1}))
        planned = make_plan(first, 1, [], 0, job)
        job.adapt(source.name, planned.units[0].table_schema.empty_table())
        return _Cut(source, Sample(()), planned)
    try:
        sampling, keeps_images = answering_engine(settings, job).sampling, settings.write.webdataset
        sample = take_sample(source, processor, job, sampling, keeps_images=keeps_images)
    except MissingColumns as missing:
        raise MissingColumns([*missing.faults, *blindness_of_others(source, job, processor)]) from missing
    planned = make_plan(source, settings.write.unit_rows, sample.blocks, sample.image_bytes, job)
    return _Cut(source, sample, planned)


def _where(source: str) -> str:
    return f"read of {source}" if source else "read"


def sample_faults(
    settings: PipelineSettings, job: Job, planned: Plan, answering: ModelProbe | None, checking: ModelProbe | None
) -> list[str]:
    """Say of which sources the first rows all fail, have no image though the job is about images, or are too long."""
    if answering is None:
        return []
    sources = {source.name: source for source in job.sources(settings.read)}
    faults: list[str] = []
    for name, sample in planned.samples.items():
        first = next(unit for unit in planned.units if unit.source == name)
        if is_blind(sample, sources[name], first.format, job, answering.processor):
            faults.append(blindness_fault(sample, first))
            continue
        found = _faults_of(settings, job, sample, answering, checking)
        faults += [f"{fault} (in {name})" if name else fault for fault in found if fault]
    return faults


def _faults_of(
    settings: PipelineSettings,
    job: Job,
    sample: Sequence[pa.Table],
    answering: ModelProbe,
    checking: ModelProbe | None,
) -> list[str | None]:
    """Say whether the first rows all fail, or are too long for the model that answers or for the one that checks."""
    limit = answering.processor.max_position_embeddings
    faults = [
        failure_fault(sample, settings.limits.max_failed_share),
        length_fault(sample, answering.max_length, limit),
    ]
    if checking:
        processors = answering.processor, checking.processor
        faults.append(check_length_fault(sample, job, *processors, checking.max_length, checking.engine.sampling))
    return faults


def refuse_duplicates(units: list[Unit], settings: PipelineSettings, job: Job) -> None:
    """Refuse a source of which several rows have one key; rows of two sources may share one.

    Raises:
        ValueError: It names some.
    """
    found = []
    for name, read in settings_by_source(job, settings.read).items():
        if keys := duplicate_keys([unit for unit in units if unit.source == name], read):
            whose = f"several rows of {name}" if name else "several rows"
            found.append(f"{whose} have the key {', '.join(map(repr, keys))}")
    if found:
        raise ValueError(f"{'; '.join(found)}, but job {job.kind} needs unique keys")


def column_faults(schema: pa.Schema, job: Job) -> list[str]:
    """Say which columns the job misses, and which of the input's stand in the way of its own."""
    there = [name for name in schema.names if name not in READ and not name.startswith(FOR_THE_JOB)]
    missing = [name for name in job.required if name not in (*there, "key", "shard", "index")]
    others = ", ".join(map(own_name, there)) or "no others"
    rows = schema.empty_table().select(there)
    faults = [
        f"read.columns: job {job.kind} needs a column `{name}`, but the input has {others}{_advice(name, rows)}"
        for name in missing
    ]
    try:
        part_schema(schema, job)
    except ValueError as error:
        faults.append(f"read.columns: {error}")
    return faults


def _advice(column: str, rows: pa.Table) -> str:
    proposed = setting_for(column, rows)
    return f"; set {proposed}" if proposed else ""


def _tell_unread(cut: "_Cut", job: Job) -> None:
    """Tell of a column that the job would read under another name, where the run may well mean to leave it."""
    if cut.source.is_raw:
        return
    rows = cut.planned.units[0].table_schema.empty_table().drop_columns(list(READ))
    for name in job.optional:
        if name not in rows.column_names and (proposed := setting_for(name, rows)):
            log.info(
                "no column `%s`, which job %s reads where there is one; %s names another", name, job.kind, proposed
            )
