"""Let only so many units onto the way at once: the read step gets the next one when the write step has ended one.

Ray Data holds reading back only when its object store fills up. Small rows never fill it; then thousands of units would
be read ahead, and read again after the driver has died. Its own policies are left out altogether: they share CPUs out
among the steps by forecast, and on a small machine leave none for writing as long as there is something to read; Ray
itself starts a task when there is room for it, and the object store was found large enough before the run started. It
knows Ray Data's operators, and nothing of units.
"""

from typing import Any

from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)

LIMIT = "triptych.units_in_flight"


class Admission(BackpressurePolicy):
    """Keeps the first step back; a policy, because policies are shown the operators before the first of them starts."""

    def __init__(self, data_context: Any, topology: Any, resource_manager: Any) -> None:
        super().__init__(data_context, topology, resource_manager)
        # In their order: the source, the steps; the executor adds nothing behind the last one.
        _, self._first, *_, self._last = topology
        self._limit = int(data_context.get_config(LIMIT))
        # Said by the operator itself, and not as a policy: where nothing moves at all, as while a model is loaded, Ray
        # Data passes over its policies and would read on, unit after unit.
        self._first.can_add_input = self._may_begin

    def _may_begin(self) -> bool:
        return bool(self._first.metrics.num_tasks_submitted - self._last.metrics.num_tasks_finished < self._limit)


def limit_units(data_context: Any, units: int) -> None:
    """Hold the executions of a context to so many units at once."""
    data_context.set_config(LIMIT, units)
    data_context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [Admission])
