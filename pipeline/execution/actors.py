"""The processes of a run: what each actor must know, and how it loads its half of the model or its engine.

The steps themselves are plain callables that know nothing of Ray (pipeline/steps/); here they get a process each.
"""

import asyncio
import functools
import math
import os
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from models.types import PictureFormat, Processor, Sampling
from pipeline.execution.crashes import FAILED_LOADS, CrashHistory, CrashLedger
from pipeline.execution.guard import Guard, Step, read_guarded
from pipeline.input.units import ReadSettings, unit_from_message
from pipeline.job import Job
from pipeline.pipeline_settings import GenerateSettings, ModelSettings, PreprocessSettings
from pipeline.rows import UNIT, with_unit
from pipeline.steps.answerer import Answerer
from pipeline.steps.check import CheckAnswers
from pipeline.steps.engine_thread import EngineDied, EngineThread
from pipeline.steps.generate import Generate, max_length_of, sampling_of
from pipeline.steps.preprocess import Preprocess, open_processor
from pipeline.steps.read import read_job_rows, settings_by_source
from pipeline.steps.write import UNITS, commit_unit
from pipeline.storage.model_folder import local_copy, weights_digest
from pipeline.storage.store import Store


@dataclass(frozen=True)
class Work:
    """What the actors of a run must know; small, because it travels to each of them.

    Attributes:
        read: The run's; what each of its sources is read by, the job makes of it.
        model: Whose `path` and `device` are what the settings' own mean where the actors are.
        model_name: What the parts call it: what the user said.
        check_model: The same of the model that checks, if any.
        unit_rows: Of the largest unit, of the source whose units are smallest.
        schema: The columns of the rows as the job has adapted them.
        load: Makes the step that answers, in the actor that it will work in.
        units: Where committed units stand below the store.
        crashes: Name of the actor that keeps the crash ledger; without one, whatever kills an actor ends the run.
        weights: Fingerprints of the models' files by their paths; no actor loads others.
    """

    read: ReadSettings
    model: ModelSettings
    model_name: str
    preprocess: PreprocessSettings
    generate: GenerateSettings
    job: Job
    schema: pa.Schema
    store: Store
    unit_rows: int
    load: Callable[["Work"], Step]
    check_model: ModelSettings | None = None
    units: str = UNITS
    crashes: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)


class OtherWeights(RuntimeError):
    """Where an actor works, the model's files are not those that the run began with."""


def read_block(block: pa.Table, settings: ReadSettings, job: Job, crashes: str | None) -> pa.Table:
    """Read the one unit that a block names, in a task of its own."""
    unit = unit_from_message(block.column("unit")[0].as_py())
    read = functools.partial(read_job_rows, unit, job, settings_by_source(job, settings))
    with _ended_when_cancelled():
        table = asyncio.run(read_guarded(unit, read, RemoteCrashes(crashes, "fetch"))) if crashes else read()
    return with_unit(table, unit.name, unit.num_rows)


def commit_block(block: pa.Table, store: Store, folder: str) -> pa.Table:
    """Commit the one unit that a block holds, in a task of its own."""
    with _ended_when_cancelled():
        return commit_unit(block, store, folder)


@contextmanager
def _ended_when_cancelled() -> Iterator[None]:
    """End the process with a task that is cancelled: Ray interrupts it anywhere, and would use the process again.

    In the middle of an import, say, which leaves half a package behind for all tasks that follow.
    """
    try:
        yield
    except KeyboardInterrupt as cancelled:
        raise SystemExit("cancelled") from cancelled


class StepActor:
    """A step, such as Generate, in a process of its own that may die and start again."""

    def __init__(self, load: Callable[[Work], Step], work: Work, stage: str, cpus: float) -> None:
        # Before torch is imported, because it reads this once; several engines on one machine must not fight.
        os.environ["OMP_NUM_THREADS"] = str(max(1, math.floor(cpus)))
        self._crashes = RemoteCrashes(work.crashes, stage) if work.crashes else None
        self._guard = Guard(stage, self._crashes) if self._crashes else None
        self._step: Step | None = None
        self._fault: Exception | None = None
        try:
            self._load(load, work)
        except Exception as error:
            # Raised from here, Ray would print it several times over, and in pages; the first unit raises it instead.
            self._fault = error

    async def __call__(self, block: pa.Table) -> pa.Table:
        """Do one unit."""
        if self._step is None:
            raise RuntimeError(f"the model cannot be loaded: {self._fault}") from self._fault
        if self._guard is None or self._crashes is None:
            return await self._step(block)
        try:
            return await self._guard.run(self._step, block.column(UNIT)[0].as_py(), block)
        except EngineDied as error:
            # An engine that has died (a fault on the device, say) lives on in no process but a new one.
            await self._crashes.dying(str(error))
            os._exit(1)

    def _load(self, load: Callable[[Work], Step], work: Work) -> None:
        died = self._crashes.starting() if self._crashes else 0
        if died >= FAILED_LOADS:
            raise RuntimeError(f"the process died {died} times meanwhile; is there memory enough for it?")
        self._step = load(work)
        if self._crashes:
            self._crashes.ready()


class RemoteCrashes:
    """One actor's way to the crash ledger, which is an actor too; see pipeline.execution.guard.Crashes."""

    def __init__(self, name: str, step: str) -> None:
        import ray

        self._ray: Any = ray
        self._ledger: Any = ray.get_actor(name)
        self._step = step
        self._actor = str(ray.get_runtime_context().get_actor_id())

    def starting(self) -> int:
        """Note that this process starts; return how many before it died without being ready."""
        return int(self._ray.get(self._ledger.starting.remote(self._actor)))

    def ready(self) -> None:
        """Note that this process is ready to work."""
        self._ray.get(self._ledger.ready.remote(self._actor))

    async def dying(self, words: str) -> None:
        """Note why this process is about to end itself."""
        await self._ledger.dying.remote(self._actor, words)

    async def begin(self, unit: str) -> CrashHistory:
        """Note that work on a unit begins, and hear how to go about it."""
        history = await self._ledger.begin.remote(self._step, unit, self._actor)
        assert isinstance(history, CrashHistory)
        return history

    async def begin_row(self, unit: str, row: int) -> None:
        """Note that a row is begun alone."""
        await self._ledger.begin_row.remote(self._step, unit, row)

    async def end_row(self, unit: str, row: int) -> None:
        """Note that a row was done alone."""
        await self._ledger.end_row.remote(self._step, unit, row, self._actor)

    async def end(self, unit: str) -> None:
        """Note that a unit is done."""
        await self._ledger.end.remote(self._step, unit, self._actor)


@contextmanager
def crash_ledger(attempts: int) -> Iterator[str]:
    """Start the actor that keeps the crash ledger, beside the driver; give its name."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"triptych-crashes-{uuid.uuid4().hex}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"name": name, "num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    ledger: Any = ray.remote(CrashLedger).options(**options).remote(attempts)
    try:
        yield name
    finally:
        ray.kill(ledger)


def begin_round(crashes: str) -> None:
    """Tell the crash ledger that the actors of an earlier round are gone, and that none of them has died."""
    import ray

    ledger: Any = ray.get_actor(crashes)
    ray.get(ledger.new_round.remote())


def load_preprocess(work: Work) -> Step:
    """Load the processor of the model that answers."""
    processor = _processor(model_folder(work.model, work), work.model, work.preprocess, work.job.template)
    preprocess = Preprocess(processor, work.job, sampling_of(work.generate, work.job.sampling))

    async def step(block: pa.Table) -> pa.Table:
        return preprocess(block)

    return step


def load_generate(work: Work) -> Generate:
    """Load the model that answers, with all that stands around it."""
    folder = model_folder(work.model, work)
    processor = _processor(folder, work.model, work.preprocess, work.job.template)
    answerer = _answerer(folder, work.model, work.generate, processor, work.job.picture)
    sampling = sampling_of(work.generate, work.job.sampling)
    return Generate(answerer, work.job, sampling, work.model_name, work.schema)


def load_check(work: Work) -> CheckAnswers:
    """Load the model that checks, with all that stands around it."""
    check, model = work.job.check, work.check_model
    assert check is not None and model is not None
    folder = model_folder(model, work)
    processor = _processor(folder, model, check.settings.preprocess, check.template)
    answerer = _answerer(folder, model, check.settings.generate, processor, picture=None)
    return CheckAnswers(answerer, check, sampling_of(check.settings.generate, Sampling()), work.job.schema)


def model_folder(model: ModelSettings, work: Work) -> str:
    """Bring a model's files to this machine and see that they are those that the run began with.

    Raises:
        OtherWeights: They are others: another copy on this node, a hub's newer revision, files written over meanwhile.
        StorageError: They cannot be brought here.
    """
    folder = local_copy(model.path, work.read.storage)
    if expected := work.weights.get(model.path):
        found = weights_digest([folder])
        if found != expected:
            raise OtherWeights(
                f"on node {platform.node()} the model's files in {folder} are others than the run began with: "
                f"found {found}, expected {expected}; bring the same files to every node, or begin a new run with these"
            )
    return folder


def devices(device: str, gpus: float | None) -> str | list[str]:
    """Name the devices of one engine: all of its GPUs. Ray shows an actor no others, and numbers them from 0."""
    return [f"cuda:{number}" for number in range(int(gpus))] if device == "cuda" and gpus and gpus > 1 else device


def _answerer(
    folder: str,
    settings: ModelSettings,
    generate: GenerateSettings,
    processor: Processor,
    picture: PictureFormat | None,
) -> Answerer:
    from models import load_model
    from models.engine.engine import Engine
    from models.engine.scheduler import Sequence as EngineSequence
    from models.painting import Painter, Paints

    device = devices(settings.device, generate.gpus)
    model = load_model(folder, device=device, dtype=settings.dtype, text_only=settings.text_only)
    max_length = max_length_of(generate, model.max_position_embeddings, draws=picture is not None)
    engine = EngineThread(Engine(model, slots=generate.slots, max_length=max_length), EngineSequence)
    painter = Painter(model) if picture and isinstance(model, Paints) else None
    return Answerer(engine, processor, painter, picture)


def _processor(folder: str, model: ModelSettings, preprocess: PreprocessSettings, template: str | None) -> Processor:
    return open_processor(folder, preprocess, template, text_only=model.text_only)
