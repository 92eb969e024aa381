"""The processes of a run on Ray: tasks that read and commit, actors that prepare and answer, and the crash ledger.

What they load, and what they do with a unit, pipeline/execution/work.py and the steps know.
"""

import asyncio
import functools
import math
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from models.stopwatch import Stopwatch
from pipeline.execution.crashes import FAILED_LOADS, CrashClient, CrashLedger
from pipeline.execution.guard import Guard, Step, read_guarded
from pipeline.execution.work import Work
from pipeline.input.unit_files import unit_from_message
from pipeline.input.units import ReadSettings
from pipeline.job import Job
from pipeline.rows import UNIT, take_step_seconds, with_step_seconds, with_unit
from pipeline.steps.engine_thread import EngineDied
from pipeline.steps.read import read_job_rows, settings_by_source
from pipeline.steps.write import commit_unit
from pipeline.storage.store import Store


def read_block(block: pa.Table, settings: ReadSettings, job: Job, crashes: str | None) -> pa.Table:
    """Read the one unit that a block names, in a task of its own."""
    unit = unit_from_message(block.column("unit")[0].as_py())
    read = functools.partial(read_job_rows, unit, job, settings_by_source(job, settings))
    stopwatch = Stopwatch()
    with _ended_when_cancelled(), stopwatch.measure("read"):
        table = asyncio.run(read_guarded(unit, read, RemoteCrashes(crashes, "fetch"))) if crashes else read()
    return with_step_seconds(with_unit(table, unit.name, unit.num_rows), stopwatch.take())


def commit_block(block: pa.Table, store: Store, folder: str) -> pa.Table:
    """Commit the one unit that a block holds, in a task of its own; return numbers about it and its way here."""
    stopwatch = Stopwatch()
    block, seconds = take_step_seconds(block)
    with _ended_when_cancelled(), stopwatch.measure("write"):
        numbers = commit_unit(block, store, folder)
    return with_step_seconds(numbers, {**seconds, **stopwatch.take()})


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

    def __init__(self, load: Callable[[Work, Stopwatch], Step], work: Work, stage: str, cpus: float) -> None:
        # Before torch is imported, because it reads this once; several engines on one machine must not fight.
        os.environ["OMP_NUM_THREADS"] = str(max(1, math.floor(cpus)))
        self._crashes = RemoteCrashes(work.crashes, stage) if work.crashes else None
        self._guard = Guard(stage, self._crashes) if self._crashes else None
        self._stopwatch = Stopwatch("check." if stage == "check" else "")
        self._step: Step | None = None
        self._fault: Exception | None = None
        try:
            self._load(load, work)
            self._stopwatch.take()  # of a warm-up, say
        except Exception as error:
            # Raised from here, Ray would print it several times over, and in pages; the first unit raises it instead.
            self._fault = error

    async def __call__(self, block: pa.Table) -> pa.Table:
        """Do one unit; beside it goes what this process has been busy with since its last one."""
        block, seconds = take_step_seconds(block)
        done = await self._do(block)
        return with_step_seconds(done, {**seconds, **self._stopwatch.take()})

    async def _do(self, block: pa.Table) -> pa.Table:
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

    def _load(self, load: Callable[[Work, Stopwatch], Step], work: Work) -> None:
        died = self._crashes.starting() if self._crashes else 0
        if died >= FAILED_LOADS:
            raise RuntimeError(f"the process died {died} times while it loaded the model; is there enough memory?")
        self._step = load(work, self._stopwatch)
        if self._crashes:
            slots = getattr(self._step, "slots", None)
            self._crashes.ready(slots and (slots.count, slots.why))


class RemoteCrashes(CrashClient):
    """One actor's way to a crash ledger that is an actor of Ray itself."""

    def __init__(self, name: str, step: str) -> None:
        import ray

        self._get: Any = ray.get
        ledger = ray.get_actor(name)
        actor = str(ray.get_runtime_context().get_actor_id())
        super().__init__(lambda method, *arguments: getattr(ledger, method).remote(*arguments), step, actor)

    def starting(self) -> int:
        """Note that this process starts; return how many before it died without being ready."""
        return int(self._get(self._call("starting", self._actor)))

    def ready(self, slots: tuple[int, str] | None) -> None:
        """Note that this process is ready to work; see `CrashLedger.ready`."""
        self._get(self._call("ready", self._actor, self._step, slots))


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


def seconds_ready(crashes: str) -> float | None:
    """Return how long ago the first engine that answers was ready; None where the crash ledger does not know."""
    import ray

    ledger: Any = ray.get_actor(crashes)
    since = ray.get(ledger.seconds_ready.remote("generate"))
    return None if since is None else float(since)


def engine_slots(crashes: str) -> dict[str, tuple[int, str]]:
    """Return how many sequences the engines of each step answer at once, and why; as far as any has been ready."""
    import ray

    ledger: Any = ray.get_actor(crashes)
    return dict(ray.get(ledger.slots.remote()))


def begin_round(crashes: str) -> None:
    """Tell the crash ledger that the actors of an earlier round are gone, and that none of them has died."""
    import ray

    ledger: Any = ray.get_actor(crashes)
    ray.get(ledger.new_round.remote())
