"""Leave out of a Ray of our own what no run has a use for: on two cores it took a third of a short run's time.

Beside its core Ray starts a process that looks for more nodes, one that follows log files and one that serves its web
page's data. Ray Data starts three actors, each in a process that imports all of Ray Data: one counts for that page, one
shares a cluster out among data sets, and one knows on which node each actor is. A Ray of our own has one node, one data
set at a time, no page, and logs that nobody follows. A cluster that is joined keeps them all.
"""

import contextlib
import functools
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock


@contextlib.contextmanager
def without_services(*, keeps_logs: bool) -> Iterator[None]:
    """Start Ray without those processes while the block runs.

    Args:
        keeps_logs: Whether what workers print is wanted here.
    """
    from ray._private.node import Node

    names = ["start_monitor", "start_api_server", *([] if keeps_logs else ["start_log_monitor"])]
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(Node, name, lambda *arguments, **named: None))
        yield


@functools.cache  # once in a process
def without_helpers() -> None:
    """Let Ray Data work without those actors in this process, as long as its Ray is one of our own."""
    from ray.data._internal import stats
    from ray.data._internal.execution import streaming_executor
    from ray.data._internal.execution.operators import actor_pool_map_operator as actor_pools

    for name in ("update_execution_metrics", "update_iteration_metrics", "register_dataset_to_stats_actor"):
        _replace(stats._StatsManager, name, lambda *arguments, **named: None)
    _replace(stats._StatsManager, "gen_dataset_id_from_stats_actor", lambda: uuid.uuid4().hex)
    _replace(streaming_executor, "create_cluster_autoscaler", lambda *arguments, **named: WholeNode())
    _replace(actor_pools, "get_or_create_actor_location_tracker", OneLocation)
    _replace(actor_pools, "get_actor_locations", OneLocation.of)


def _replace(owner: Any, name: str, ours: Callable[..., Any]) -> None:
    """Replace a function; where the process has joined a cluster meanwhile, Ray's own is called."""
    theirs = getattr(owner, name)
    setattr(owner, name, lambda *arguments, **named: (ours if _is_own() else theirs)(*arguments, **named))


def _is_own() -> bool:
    from ray._private import worker

    return worker._global_node is not None and worker._global_node.is_head()


class WholeNode:
    """Stands in Ray Data's autoscaler's place: the one node is the execution's own, and no other comes."""

    def try_trigger_scaling(self) -> None:
        """Ask nobody for nodes."""

    def on_executor_shutdown(self) -> None:
        """Give nothing back."""

    def get_total_resources(self) -> Any:
        """Return what the node has."""
        import ray
        from ray.data._internal.execution.interfaces import ExecutionResources

        api: Any = ray  # its own annotations stop short of this function
        return ExecutionResources.from_resource_dict(api.cluster_resources())


class OneLocation:
    """Stands in the place of the actor that is told where actors are: they are here."""

    @property
    def update_actor_location(self) -> Any:
        """What an actor calls by `.remote`, as it would that actor."""
        return self

    def remote(self, actor: str, node: str) -> None:
        """Forget it."""

    @staticmethod
    def of(actors: Sequence[str]) -> dict[str, str]:
        """Return the node of each."""
        import ray

        return dict.fromkeys(actors, str(ray.get_runtime_context().get_node_id()))
