"""Outputs as a run leaves them, made in this process without Ray: through the same steps, units and parts."""

import asyncio
from pathlib import Path
from typing import Any

from jobs.config import RunSettings
from models.stopwatch import Stopwatch
from pipeline.execution.work import Work, load_check, load_generate, load_preprocess
from pipeline.input.sources import join_plans
from pipeline.input.units import plan_input
from pipeline.rows import part_schema, with_unit
from pipeline.settings import check_settings, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import cut_parts, freeze_plan
from pipeline.steps.engine import answering_engine, checking_engine
from pipeline.steps.read import job_rows_schema, read_job_rows, settings_by_source
from pipeline.steps.write import commit_unit, merge_part
from pipeline.storage.model_folder import weights_digest
from pipeline.storage.store import Store

RUN = "me"


def settings_of(
    uri: Path | str, checkpoint: Path, out: Path | str, job: dict[str, Any], **sections: Any
) -> RunSettings:
    """Settings of a small run on the CPU, with two units of two rows in a part."""
    values: dict[str, Any] = {
        "read": {"uri": str(uri)},
        "model": {"path": str(checkpoint), "device": "cpu"},
        "generate": {"slots": 4, "sampling": {"max_new_tokens": 4}},
        "write": {"uri": str(out), "unit_rows": 2, "rows_per_part": 4},
        "job": job,
    }
    for name, section in sections.items():
        values[name] = {**values[name], **section}
    return check_settings(RunSettings, values)


def leave_output(settings: RunSettings, units_done: int | None = None) -> Store:
    """Answer the rows of an input; with `units_done` only those of the first units, as a run that was interrupted."""
    job, store = settings.job.build(), Store(settings.write.uri, settings.write.storage)
    sources = job.sources(settings.read)
    cut = [plan_input(one.read, settings.write.unit_rows, is_raw=one.is_raw, reads=one.reads) for one in sources]
    units = join_plans(sources, cut, settings.read.uri).units
    parts = cut_parts(units, settings.write, job)
    checking = checking_engine(job)
    folders = [settings.model.path, *([checking.model.path] if checking else [])]
    frozen = {
        "run": RUN,
        "settings": dump_settings(settings),
        "device": "cpu",
        "check_device": "cpu" if checking else "",
        "versions": {},
    }
    ledger.freeze_settings(store, {**frozen, "weights": weights_digest(folders)})
    freeze_plan(store, units, (), parts)
    work = Work(
        read=settings.read,
        job=job,
        answering=answering_engine(settings, job),
        model_name=settings.model.path,
        schema=job_rows_schema(job, units),
        store=store,
        unit_rows=2,
        load=load_generate,
        checking=checking,
        keeps_images=settings.write.webdataset and job.picture is None,
    )
    stopwatch, folder = Stopwatch(), ledger.units_folder(RUN)
    steps = [load_preprocess(work, stopwatch), load_generate(work, stopwatch)]
    steps += [load_check(work, stopwatch)] if checking else []
    done = units[:units_done]
    with asyncio.Runner() as runner:
        for unit in done:
            rows = read_job_rows(unit, job, settings_by_source(job, settings.read))
            block = with_unit(rows, unit.name, unit.num_rows)
            for step in steps:
                block = runner.run(step(block))
            commit_unit(block, store, folder)
    for part in parts:
        if set(part.units) <= set(done):
            merge_part(store, part, part_schema(work.schema, job), folder)
    if units_done is None:
        ledger.mark_finished(store, None)
    return store
