"""Send units through read, preprocess, generate and write as one streaming execution of Ray Data.

One unit is one block from end to end: nothing splits, merges or reorders it, so what is read together is committed
together. What each actor is, pipeline/execution/actors.py knows; here they are put in a row.
"""

import logging
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pyarrow as pa

from models.stopwatch import Stopwatch
from pipeline.execution.actors import StepActor, commit_block, read_block
from pipeline.execution.cluster.placement import READ_CPUS, WRITE_CPUS, Placement, StepActors
from pipeline.execution.guard import Step
from pipeline.execution.work import Work, load_check, load_preprocess
from pipeline.input.unit_files import unit_to_message
from pipeline.input.units import Unit
from pipeline.steps.engine import EngineSpec
from pipeline.storage.store import Store

log = logging.getLogger(__name__)

# An actor is started again, and what it had in hand given to it again, as often as it dies: the crash ledger sees to
# it that this comes to an end. Tasks that read are begun again as often, too.
FOR_EVER = {"max_restarts": -1, "max_task_retries": -1}
# While a preprocess actor works on one unit the next one waits there.
WAITING_AT_AN_ACTOR = 2
READ_AHEAD = 4
# So few rows are read and written by one process each time: another one takes longer to start than that.
FEW_ROWS = 64
# What moves nothing for so long stands still for good; loading a large model over a slow line takes its time, too.
NO_PROGRESS_S = 6 * 3600


def units_in_flight(slots: int, unit_rows: int) -> int:
    """Say how many units an engine works on at once: twice its slots in rows, so that none ever stands empty."""
    return max(2, math.ceil(2 * slots / unit_rows))


def units_on_their_way(placement: Placement, unit_rows: int, slots: int, check_slots: int = 0) -> int:
    """Say how many units are between being read and being committed when all pools have grown (see admission.py).

    Args:
        placement: How many actors there are.
        unit_rows: Of the largest unit.
        slots: Of each engine that answers.
        check_slots: Of each engine that checks.
    """
    answering = placement.generate.most * (units_in_flight(slots, unit_rows) + 1)
    checking = placement.check.most * (units_in_flight(check_slots, unit_rows) + 1)
    return answering + checking + placement.preprocess.most * WAITING_AT_AN_ACTOR + READ_AHEAD


def stream(
    units: Sequence[Unit],
    work: Work,
    placement: Placement,
    commit: Callable[[pa.Table, Store, str], pa.Table] = commit_block,
) -> Generator[dict[str, Any], None, None]:
    """Run units through all steps; yield the numbers of each as soon as it is committed, in any order.

    Args:
        units: To be read, each once.
        work: What the actors must know.
        placement: How many actors there are.
        commit: The last step; it returns a line of numbers.
    """
    from ray.data import DataContext

    are_few = sum(unit.num_rows for unit in units) <= FEW_ROWS
    with DataContext.current(_context(1 if are_few else None)):
        committed = _plan(units, work, placement, commit)
        for batch in committed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from batch.to_pylist()


def _plan(
    units: Sequence[Unit], work: Work, placement: Placement, commit: Callable[[pa.Table, Store, str], pa.Table]
) -> Any:
    import ray.data

    whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
    messages = [{"unit": unit_to_message(unit)} for unit in units]
    source: Any = ray.data.from_items(messages, override_num_blocks=len(messages))
    reading = {"settings": work.read, "job": work.job, "crashes": work.crashes}
    rows = source.map_batches_internal(read_block, fn_kwargs=reading, num_cpus=READ_CPUS, max_retries=-1, **whole)
    steps: list[tuple[str, Callable[[Work, Stopwatch], Step], StepActors, dict[str, Any]]] = [
        ("preprocess", load_preprocess, placement.preprocess, {"max_tasks_in_flight_per_actor": WAITING_AT_AN_ACTOR}),
        ("generate", work.load, placement.generate, _in_flight(work.answering, placement.generate, work.unit_rows)),
    ]
    if work.checking is not None:
        steps.append(("check", load_check, placement.check, _in_flight(work.checking, placement.check, work.unit_rows)))
    for stage, load, actors, in_flight in steps:
        # Not the public method: that one insists on a number for batch_size where GPUs are asked for, and would cut or
        # join units by it; and it has no word for how often an actor may die before the run hears of it.
        rows = rows.map_batches_internal(
            StepActor,
            fn_constructor_kwargs={"load": load, "work": work, "stage": stage, "cpus": actors.cpus},
            compute=ray.data.ActorPoolStrategy(min_size=actors.least, max_size=actors.most, **in_flight),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
            **whole,
            **FOR_EVER,
        )
    writing = {"store": work.store, "folder": work.units}
    return rows.map_batches(commit, fn_kwargs=writing, num_cpus=WRITE_CPUS, **whole)


def _in_flight(engine: EngineSpec, actors: StepActors, unit_rows: int) -> dict[str, Any]:
    """Return how many units an actor with an engine works on at once; one more waits there."""
    flight = units_in_flight(engine.most_slots(actors.gpus), unit_rows)
    return {"max_concurrent_calls_per_actor": flight, "max_tasks_in_flight_per_actor": flight + 1}


def _context(at_once: int | None) -> Any:
    """Return Ray Data's context so set that a unit stays one block, and few are on their way; its reports stay away.

    Args:
        at_once: How many tasks read, and how many write, at once; None for as many as there is room for.
    """
    from ray.data import DataContext

    from pipeline.execution.admission import limit_units
    from pipeline.execution.cluster.lost_nodes import watch_nodes

    if not log.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised to us as well
    context = DataContext.get_current().copy()
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    # A pool grows when all its actors have what they can work on at once: its bound of units keeps it from Ray's own
    # mark of 1.75 times that. And half of all CPUs, set aside in equal parts, would leave nothing to grow with.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    context.op_resource_reservation_ratio = 0.1
    limit_units(context, READ_AHEAD, at_once)
    watch_nodes(context)
    return context
