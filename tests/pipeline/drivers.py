"""Do as drivers and workers do that begin a run and commit units of it; without Ray, a model or an input."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.types import Sampling
from pipeline.execution.attempt import Attempt
from pipeline.execution.cluster.placement import Placement, StepActors
from pipeline.input.units import Unit
from pipeline.pipeline_settings import CheckSettings, PipelineSettings
from pipeline.preflight.check import PreflightResult
from pipeline.preflight.inputs import Plan
from pipeline.preflight.models import ModelProbe
from pipeline.rows import part_schema, with_unit
from pipeline.run import commit_log_of, freeze, work_of
from pipeline.settings import check_settings
from pipeline.state import ledger
from pipeline.steps.engine import EngineSpec
from pipeline.steps.write import commit_unit, plan_parts
from pipeline.storage.store import Store
from tests.pipeline.toys import READ_SCHEMA, ToyJob, ToyProcessor, units_of

DEVICES = {"device": "cpu", "check_device": ""}
INPUT = READ_SCHEMA.serialize().to_pybytes()
UNITS = [replace(unit, schema=INPUT) for unit in units_of(4, 2)]
SCHEMA = part_schema(READ_SCHEMA, ToyJob())
PLACEMENT = Placement(StepActors(1, 1, 1.0), StepActors(1, 1, 1.0))


def settings_of(store: Store, on_existing: str = "resume", **sections: Any) -> PipelineSettings:
    values = {
        "read": {"uri": "memory://in"},
        "model": {"path": "model"},
        "write": {"uri": store.uri, "unit_rows": 2, "rows_per_part": 2, "on_existing": on_existing},
    }
    return check_settings(PipelineSettings, {**values, **sections})


def engine(path: str = "model", device: str = "auto", where: str = "", **sections: Any) -> EngineSpec:
    """What a run asks of a model whose settings say nothing else."""
    settings = CheckSettings.model_validate({"model": {"path": path, "device": device}, "generate": {}, **sections})
    return EngineSpec(settings.model, settings.preprocess, settings.generate, Sampling(), where=where)


def probed(path: str, where: str = "", digest: str = "") -> ModelProbe:
    """What a start finds out about a checkpoint that nobody will load."""
    return ModelProbe(engine(path, where=where), "", ToyProcessor(), digest=digest)


def ready_of(store: Store, units: Sequence[Unit] = UNITS) -> PreflightResult:
    """What the checks of a start find out."""
    output = ledger.read_output(store)
    return PreflightResult(
        probed("model"), None, Plan(list(units)), "w", output.is_planned, output.is_done, run=output.run
    )


def begun(store: Store, on_existing: str = "replace", units: Sequence[Unit] = UNITS) -> PreflightResult:
    """Start a run: its settings and its plan stand there."""
    found = replace(ready_of(store, units), is_started=False) if on_existing == "replace" else ready_of(store, units)
    return freeze(settings_of(store, on_existing), ToyJob(), store, found, DEVICES)


def commit(store: Store, run: PreflightResult, unit: int, caption: str) -> None:
    """Do as a worker of a run does that has answered a unit."""
    places = range(UNITS[unit].start, UNITS[unit].stop)
    rows = [{"key": str(n), "shard": "s.tar", "index": n, "finish_reason": "stop", "caption": caption} for n in places]
    table = with_unit(pa.Table.from_pylist(rows, schema=SCHEMA), UNITS[unit].name, UNITS[unit].num_rows)
    commit_unit(table, store, ledger.units_folder(run.run))


def attempt(store: Store, run: PreflightResult) -> Attempt:
    work = work_of(settings_of(store), ToyJob(), store, run, DEVICES)
    return Attempt(plan_parts(run.plan.units, 2), work, PLACEMENT, None, commit_log_of(store, run))


def captions(store: Store) -> list[str]:
    parts = [pq.read_table(io.BytesIO(store.read(path))) for path in ledger.part_paths(store)]
    return [caption for part in parts for caption in part["caption"].to_pylist()]
