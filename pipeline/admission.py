"""Let only so many units onto the way at once: the read step gets the next one when the write step has ended one.

Ray Data holds reading back only when its object store fills up. Small rows never fill it; then thousands of units would
be read ahead, and read again after the driver has died. It knows Ray Data's operators, and nothing of units.
"""

from typing import Any

from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)

LIMIT = "triptych.units_in_flight"


class Admission(BackpressurePolicy):
    """Ray Data asks it, beside its own policies, before it gives any operator another block."""

    def __init__(self, data_context: Any, topology: Any, resource_manager: Any) -> None:
        super().__init__(data_context, topology, resource_manager)
        # In their order: the source, the steps; the executor adds nothing behind the last one.
        _, self._first, *_, self._last = topology
        self._limit = int(data_context.get_config(LIMIT))

    def can_add_input(self, op: Any) -> bool:
        """Say whether an operator may have its next block."""
        if op is not self._first:
            return True
        on_their_way = self._first.metrics.num_tasks_submitted - self._last.metrics.num_tasks_finished
        return bool(on_their_way < self._limit)


def limit_units(data_context: Any, units: int) -> None:
    """Hold the executions of a context to so many units at once."""
    data_context.set_config(LIMIT, units)
    data_context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, Admission])
