"""Let only so many units onto the way at once, as many as the actors that there are have use for and a few more.

The read step gets the next unit when the write step has ended one, or when a pool of actors has grown.

Ray Data holds reading back only when its object store fills up. Small rows never fill it; then thousands of units would
be read ahead, and read again after the driver has died. Its own policies are left out altogether: they share CPUs out
among the steps by forecast, and on a small machine leave none for writing as long as there is something to read; Ray
itself starts a task when there is room for it, and the object store was found large enough before the run started. It
knows Ray Data's operators, and nothing of units.
"""

import math
from typing import Any

from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)

AHEAD = "triptych.units_ahead"
AT_ONCE = "triptych.tasks_at_once"


class Admission(BackpressurePolicy):
    """Keeps the first step back; a policy, because policies are shown the operators before the first of them starts."""

    def __init__(self, data_context: Any, topology: Any, resource_manager: Any) -> None:
        super().__init__(data_context, topology, resource_manager)
        # In their order: the source, the steps; the executor adds nothing behind the last one.
        _, self._first, *_, self._last = topology
        self._ahead = int(data_context.get_config(AHEAD))
        self._at_once = float(data_context.get_config(AT_ONCE))
        self._pools = [pool for operator in topology for pool in operator.get_autoscaling_actor_pools()]
        # Said by the operator itself, and not as a policy: where nothing moves at all, as while a model is loaded, Ray
        # Data passes over its policies and would read on, unit after unit.
        self._first.can_add_input = self._may_begin
        self._last.can_add_input = lambda: self._last.num_active_tasks() < self._at_once

    def _may_begin(self) -> bool:
        on_their_way = self._first.metrics.num_tasks_submitted - self._last.metrics.num_tasks_finished
        wanted = sum(pool.current_size() * pool.max_tasks_in_flight_per_actor() for pool in self._pools)
        return bool(on_their_way < wanted + self._ahead and self._first.num_active_tasks() < self._at_once)


def limit_units(data_context: Any, ahead: int, at_once: int | None = None) -> None:
    """Hold the executions of a context to so many units at once beyond what their actors take.

    Args:
        data_context: Ray Data's.
        ahead: So many units.
        at_once: How many tasks read, and how many write, at once; None for as many as there is room for.
    """
    data_context.set_config(AHEAD, ahead)
    data_context.set_config(AT_ONCE, math.inf if at_once is None else at_once)
    data_context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [Admission])
