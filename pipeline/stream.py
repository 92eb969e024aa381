"""Send units through read, preprocess, generate and write as one streaming execution of Ray Data.

One unit is one block from end to end: nothing splits, merges or reorders it, so what is read together is committed
together. The steps themselves are plain callables that know nothing of Ray; this file gives them their actors.
"""

import contextlib
import logging
import math
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from models.types import Processor
from pipeline.cluster import READ_CPUS, WRITE_CPUS, Placement
from pipeline.engine_thread import EngineThread
from pipeline.generate import Generate, GenerateSettings, ModelSettings, sampling_of
from pipeline.job import Job
from pipeline.model_folder import local_copy
from pipeline.preprocess import Preprocess, PreprocessSettings, open_processor
from pipeline.read import read_unit
from pipeline.rows import UNIT
from pipeline.storage import Store
from pipeline.units import ReadSettings, Unit, units_from_parquet, units_to_parquet
from pipeline.write import commit_unit

log = logging.getLogger(__name__)

# A prompt and its answer, where neither the settings nor the checkpoint say less.
MAX_LENGTH = 4096
# Of one actor, in one round. Ray's own default is to start it again for ever, also where a row kills it every time.
DEATHS = 3


@dataclass(frozen=True)
class Work:
    """What the actors of a run must know; small, because it travels to each of them."""

    read: ReadSettings
    model: ModelSettings
    model_name: str
    preprocess: PreprocessSettings
    generate: GenerateSettings
    job: Job
    schema: pa.Schema
    store: Store
    unit_rows: int


class PreprocessActor(Preprocess):
    """Preprocess in a process of its own."""

    def __init__(self, work: Work) -> None:
        super().__init__(_processor(work), work.job, sampling_of(work.generate))


class GenerateActor:
    """Generate in a process of its own, with its engine."""

    def __init__(self, work: Work, cpus: float) -> None:
        # Before torch is imported, because it reads this once; several engines on one machine must not fight.
        os.environ["OMP_NUM_THREADS"] = str(max(1, math.floor(cpus)))
        self._generate: Generate | None = None
        self._fault: Exception | None = None
        try:
            self._generate = _load(work)
        except Exception as error:
            # Raised from here, Ray would print it several times over, and in pages; the first unit raises it instead.
            self._fault = error

    async def __call__(self, block: pa.Table) -> pa.Table:
        """Answer one unit."""
        if self._generate is None:
            raise RuntimeError(f"the model cannot be loaded: {self._fault}") from self._fault
        return await self._generate(block)


def read_block(block: pa.Table, settings: ReadSettings) -> pa.Table:
    """Read the one unit that a block names."""
    (unit,) = units_from_parquet(block.column("unit")[0].as_py())
    table = read_unit(unit, settings)
    return table.append_column(UNIT, pa.array([unit.name] * table.num_rows, pa.string()))


def _load(work: Work) -> Generate:
    from models import load_model
    from models.engine.engine import Engine
    from models.engine.scheduler import Sequence as EngineSequence

    path = local_copy(work.model.path, work.read.storage)
    device = devices(work.model.device, work.generate.gpus)
    model = load_model(path, device=device, dtype=work.model.dtype, text_only=work.model.text_only)
    max_length = work.generate.max_length or min(MAX_LENGTH, model.max_position_embeddings)
    return Generate(
        EngineThread(Engine(model, slots=work.generate.slots, max_length=max_length), EngineSequence),
        _processor(work),
        work.job,
        sampling_of(work.generate),
        work.model_name,
        work.schema,
    )


def _processor(work: Work) -> Processor:
    path = local_copy(work.model.path, work.read.storage)
    return open_processor(path, work.preprocess, work.job.template, text_only=work.model.text_only)


def devices(device: str, gpus: float | None) -> str | list[str]:
    """Name the devices of one engine: all of its GPUs. Ray shows an actor no others, and numbers them from 0."""
    return [f"cuda:{number}" for number in range(int(gpus))] if device == "cuda" and gpus and gpus > 1 else device


def units_in_flight(slots: int, unit_rows: int) -> int:
    """Say how many units an engine works on at once: twice its slots in rows, so that none ever stands empty."""
    return max(2, math.ceil(2 * slots / unit_rows))


def stream(units: Sequence[Unit], work: Work, placement: Placement) -> Generator[dict[str, Any], None, None]:
    """Run units through all steps; yield the numbers of each as soon as it is committed, in any order."""
    with _settled():
        committed = _plan(units, work, placement)
        for batch in committed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from batch.to_pylist()


def _plan(units: Sequence[Unit], work: Work, placement: Placement) -> Any:
    import ray.data
    from ray.data import ActorPoolStrategy

    whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
    mortal = {"max_restarts": DEATHS, "max_task_retries": DEATHS}
    flight = units_in_flight(work.generate.slots, work.unit_rows)
    source: Any = ray.data.from_items(
        [{"unit": units_to_parquet([unit])} for unit in units], override_num_blocks=len(units)
    )
    rows = source.map_batches(read_block, fn_kwargs={"settings": work.read}, num_cpus=READ_CPUS, **whole)
    # Not the public method: that one insists on a number for batch_size where GPUs are asked for, and would cut or
    # join units by it; and it has no word for how often an actor may die before the run hears of it.
    inputs = rows.map_batches_internal(
        PreprocessActor,
        fn_constructor_kwargs={"work": work},
        compute=ActorPoolStrategy(size=placement.preprocess_actors),
        num_cpus=placement.preprocess_cpus,
        **whole,
        **mortal,
    )
    answers = inputs.map_batches_internal(
        GenerateActor,
        fn_constructor_kwargs={"work": work, "cpus": placement.generate_cpus},
        compute=ActorPoolStrategy(
            size=placement.generate_actors,
            max_concurrent_calls_per_actor=flight,
            max_tasks_in_flight_per_actor=flight + 1,
        ),
        num_cpus=placement.generate_cpus,
        num_gpus=placement.generate_gpus,
        **whole,
        **mortal,
    )
    return answers.map_batches(commit_unit, fn_kwargs={"store": work.store}, num_cpus=WRITE_CPUS, **whole)


@contextlib.contextmanager
def _settled() -> Iterator[None]:
    """Set Ray Data so that a unit stays one block and its own reports stay away; afterwards set it back."""
    from ray.data import DataContext

    if not log.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised to us as well
    context = DataContext.get_current()
    ours = {"target_max_block_size": None, "enable_progress_bars": False, "print_on_execution_start": False}
    theirs = {name: getattr(context, name) for name in ours}
    for name, value in ours.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in theirs.items():
            setattr(context, name, value)
