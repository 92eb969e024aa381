"""Verify an output: everything that stands there, then some of its rows, computed again. Nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.types import CheckpointError
from pipeline.execution.work import Work, load_generate
from pipeline.input.sources import typical_unit_rows
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.state import ledger
from pipeline.state.plan import read_plan
from pipeline.steps.engine import EngineSpec, answering_engine, checking_engine
from pipeline.steps.read import job_rows_schema
from pipeline.storage.model_folder import local_copy, weights_digest
from pipeline.storage.store import StorageError, Store
from pipeline.verification.again import LOGPROB as LOGPROB
from pipeline.verification.again import Again, answer_again
from pipeline.verification.files import Sample
from pipeline.verification.output import Checked as Checked
from pipeline.verification.output import Fault as Fault
from pipeline.verification.output import check_output

# A row by itself takes one place in the cache; a guided picture two.
SLOTS = 2
# Of rows computed again where sums round otherwise: two tokens that are nearly tied may change places, in few of them.
LEAST_AGREEING = 0.5

OF_ROWS = (
    "see whether the input, the packages or the part have changed since the run; to answer the rows anew, delete the "
    "part and the mark _SUCCESS, and give the run's command again"
)
OF_MODEL = (
    "put the run's checkpoint back where it was; without a GPU set model.device=cpu; or leave rows out with --rows 0"
)


@dataclass(frozen=True)
class Verified:
    """What an output was found to be.

    Attributes:
        checked: What stands there.
        again: The rows that were computed again.
        is_exact: Whether these must be equal: they are then computed as the run did, on a CPU in float32.
        faults: All that is wrong.
    """

    checked: Checked
    again: Sequence[Again]
    is_exact: bool
    faults: Sequence[Fault]

    @property
    def agreement(self) -> float | None:
        """Rows that agree / rows computed again; None where there are none."""
        return sum(one.agrees for one in self.again) / len(self.again) if self.again else None


def verify(settings: PipelineSettings, job: Job, *, rows: int, seed: int = 0) -> Verified:
    """Look at all of an output, then compute some of its rows again, each alone.

    Args:
        settings: The run's own; `write.uri` is where its output stands now, `model.device` where rows are computed.
        job: The run's own.
        rows: How many to compute again; of fewer, all. 0 loads no model.
        seed: Of the choice.

    Raises:
        RunError: No run has planned anything there.
        StorageError: The output cannot be read.
    """
    store = Store(settings.write.uri, settings.write.storage)
    sample = Sample(rows, seed)
    checked = check_output(settings, job, store, sample)
    if not sample.rows:
        return Verified(checked, (), False, checked.faults)
    frozen = ledger.read_settings(store)
    begun_on = [frozen["device"], frozen["check_device"]]
    engines = [answering_engine(settings, job), *filter(None, [checking_engine(job)])]
    engines = [_alone(engine, device) for engine, device in zip(engines, begun_on, strict=False)]
    try:
        weights = weights_digest([local_copy(engine.model.path, settings.read.storage) for engine in engines])
        if weights != frozen["weights"]:
            raise CheckpointError(f"other files than the run began with ({weights}, then {frozen['weights']})")
        again = answer_again(_work(settings, job, store, engines), sample.rows)
    except (CheckpointError, StorageError) as error:
        fault = Fault("model", settings.model.path, str(error), "the run's model, to compute rows again", OF_MODEL)
        return Verified(checked, (), False, [*checked.faults, fault])
    is_exact = all(map(_is_exact, engines, begun_on))
    return Verified(checked, again, is_exact, [*checked.faults, *_row_faults(again, is_exact)])


def _work(settings: PipelineSettings, job: Job, store: Store, engines: Sequence[EngineSpec]) -> Work:
    units = read_plan(store)
    return Work(
        read=settings.read,
        job=job,
        answering=engines[0],
        model_name=settings.model.path,
        schema=job_rows_schema(job, units),
        store=store,
        unit_rows=typical_unit_rows(units),
        load=load_generate,
        checking=engines[1] if len(engines) > 1 else None,
    )


def _alone(engine: EngineSpec, device: str) -> EngineSpec:
    """Return what loads a model for one row at a time: on a device like the run's, unless the settings name one."""
    generate = engine.generate.model_copy(update={"slots": min(SLOTS, engine.most_slots(0))})
    alone = replace(engine, generate=generate)
    return alone.with_model(device=device) if engine.model.device == "auto" else alone


def _is_exact(engine: EngineSpec, device: str) -> bool:
    return device == engine.model.device == "cpu" and engine.model.dtype in ("auto", "float32")


def _row_faults(again: Sequence[Again], is_exact: bool) -> list[Fault]:
    """Say which rows are wrong: on a CPU in float32 all that differ, elsewhere those that were asked otherwise."""
    faults = []
    for one in again:
        where = f"row {one.key} in {one.row.path}"
        if one.failure:
            mend = "put back what it is made of, or leave rows out with --rows 0"
            faults.append(Fault("not computed", where, one.failure, "a row that can be computed again", mend))
        for difference in one.differences:
            if is_exact or difference.is_of_prompt:
                found, expected = f"{difference.column} {difference.found}", f"{difference.again}, computed again"
                faults.append(Fault("another row", where, found, expected, OF_ROWS))
    agreeing = sum(one.agrees for one in again)
    if not faults and agreeing < LEAST_AGREEING * len(again):
        found = f"{agreeing} of {len(again)} rows as they are when computed again"
        expected = f"at least {LEAST_AGREEING:.0%}, though last bits differ on this device or in this precision"
        faults.append(Fault("other answers", "rows", found, expected, OF_ROWS))
    return faults
