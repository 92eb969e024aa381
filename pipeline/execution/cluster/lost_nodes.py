"""Notice that actors find no room on the nodes that there are: because some are gone, or others' work takes it.

Ray starts an actor of a lost node again somewhere else; where no other node has room for it, it waits for one without a
word, and with it all that it had in hand. This file knows Ray Data's executor, and nothing of units.
"""

import logging
import time
from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

from pipeline.execution.cluster.placement import NodesLost

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
WARN_EVERY_S = 600.0
# A place is found within a second or never. Longer than that, so that a cluster that replaces its nodes may do so.
WAIT_FOR_ROOM_S = 20.0


class NodeWatch(ExecutionCallback):
    """Ray Data makes one for each execution and calls it at each step of it, several times a second."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._lost: set[str] = set()
        self._next_look = 0.0
        self._waiting_since: float | None = None
        self._next_warning = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """End the execution if it waits for room that is lost; say so if it waits for room that others may leave.

        Raises:
            NodesLost: Nodes are lost, and it waits for their room.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        alive = _alive_nodes()
        self._lost |= self._seen - alive
        self._seen |= alive
        waiting = _homeless_actors() if _is_short_of_actors(executor) else 0
        if not waiting:
            self._waiting_since = None
            return
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since < WAIT_FOR_ROOM_S:
            return
        if self._lost:
            raise NodesLost(
                f"{len(self._lost)} of {len(self._seen)} nodes are lost, and {waiting} of their actors find no room on "
                "the others"
            )
        if now >= self._next_warning:
            self._next_warning = now + WARN_EVERY_S
            log.warning(
                "%d actors wait for CPUs or GPUs that other work in this cluster holds; the run goes on when "
                "there is room for them",
                waiting,
            )


def watch_nodes(data_context: Any) -> None:
    """Let the executions of a context end with `NodesLost` where they would wait for ever."""
    data_context.custom_execution_callback_classes.append(NodeWatch)


def _alive_nodes() -> set[str]:
    import ray

    api: Any = ray  # its own annotations stop short of this function
    return {node["NodeID"] for node in api.nodes() if node["Alive"]}


def _is_short_of_actors(executor: Any) -> bool:
    """Say whether a pool has actors that hold work and cannot do it, or fewer than its least."""
    pools = [pool for operator in executor._topology for pool in operator.get_autoscaling_actor_pools()]
    return any(
        pool.num_restarting_actors() or (pool.num_pending_actors() and pool.num_running_actors() < pool.min_size())
        for pool in pools
    )


def _homeless_actors() -> int:
    """Count this run's actors that no node has taken yet; one that is loading its model has been taken."""
    import ray
    import ray._private.state

    state: Any = ray._private.state
    job = ray.get_runtime_context().get_job_id()
    return sum(
        actor["JobID"] == job and actor["State"] in ("RESTARTING", "PENDING_CREATION") and not actor["Address"]["Port"]
        for actor in state.actors().values()
    )
