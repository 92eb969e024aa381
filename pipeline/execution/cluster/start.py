"""Start or join Ray, bring the code there, and say what its nodes have.

Who gets which share of them is pipeline/execution/cluster/placement.py's business. This file knows nothing of rows.
"""

import contextlib
import logging
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.execution.cluster.lean_ray import without_helpers, without_services
from pipeline.execution.cluster.placement import Node
from pipeline.execution.cluster.signals import own_signals
from pipeline.pipeline_settings import RaySettings

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("models", "pipeline", "jobs")

OBJECT_STORE_BYTES = 2 * 2**30
CONNECTS_WITHIN_S = 10.0
# Workers that may wait for their next task on a machine of fewer CPUs: Ray keeps one for each CPU, ends the others
# after a second, and starts new ones for the next step, at a second or two of CPU time each.
IDLE_WORKERS = 4


class ClusterError(ValueError):
    """There is no such Ray, or it cannot run this code."""


def start_ray(settings: RaySettings, **local: float) -> bool:
    """Join the Ray that this process has, else the cluster at the address, else start a local one, quietly.

    Args:
        settings: Which Ray.
        local: What a local one shall believe to have (`num_cpus`, `num_gpus`); nothing means what the machine has.

    Returns:
        Whether one was started here: then its workers are on this machine, and have this Python and this code.

    Raises:
        ClusterError: There is no cluster at the address, or a local one does not start.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if settings.address is None:
        # Even a Ray of our own listens to the network, and runs what it is sent: for who has this token. Without one
        # Ray would make one up and write it into the user's home, which may not be there to be written to.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        if (os.cpu_count() or 1) < IDLE_WORKERS:
            os.environ.setdefault("RAY_num_workers_soft_limit", str(IDLE_WORKERS))
    import ray

    if ray.is_initialized():
        return False
    is_verbose = log.isEnabledFor(logging.DEBUG)
    if not is_verbose:
        _hush()
        # Ray's core warns past Python's logging of restarts that a run of ours does not depend on ...
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    level = logging.INFO if is_verbose else logging.ERROR
    options: dict[str, Any] = {"logging_level": level, "log_to_driver": is_verbose}
    if settings.address is None:
        # Named, for without a name Ray joins whatever else was started on this machine, or $RAY_ADDRESS.
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _object_store_bytes(settings),
            **local,
        }
    else:
        modules = [str(ROOT / room) for room in ROOMS]
        if settings.address != "auto":
            _refuse_silence(settings.address)
        options |= {"address": settings.address, "runtime_env": {"py_modules": modules}}
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.nullcontext() if is_verbose else _muted_core())
            stack.enter_context(own_signals())
            if settings.address is None:
                stack.enter_context(_inherited())
                stack.enter_context(without_services(keeps_logs=is_verbose))
            ray.init(**options)
    except Exception as error:  # Ray 2.60 raises no other kind where a node takes too long to start
        raise ClusterError(f"ray.address: {_refusal(settings.address, error)}") from error
    if settings.address is None:
        without_helpers()
    return settings.address is None


@contextlib.contextmanager
def stopped_with_the_block() -> Iterator[None]:
    """Stop or leave the Ray that was started or joined in the block where the block fails."""
    was_there = _is_in_ray()
    try:
        yield
    except Exception:
        if not was_there and _is_in_ray():
            import ray

            ray.shutdown()
        raise


def stop_ray() -> None:
    """Stop a Ray of our own; at the end of the process Ray would first wait for what its workers may still print."""
    import ray

    ray.shutdown()


def _is_in_ray() -> bool:
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextlib.contextmanager
def _inherited() -> Iterator[None]:
    """Let the processes of a Ray of our own find this code: they have the environment that it is started in.

    A runtime_env would do so, too, but Ray has workers waiting without one; it would end these and start others.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = _python_path()
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _refuse_silence(address: str) -> None:
    """Look whether anything listens at an address: Ray itself asks for minutes where nothing does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECTS_WITHIN_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"ray.address: nothing answers at '{address}' ({error}); expected `auto` or the host:port that "
            "`ray start --head` has printed"
        ) from error


def _refusal(address: str | None, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Version mismatch" in text:
        return f"{address} runs another Ray or Python than this process: {text}; expected the same on every node"
    if address is None:
        slow = "; this machine may be too busy: try again once it is not" if "timed out" in text else ""
        return f"cannot start a local Ray: {text.rstrip('.')}{slow}"
    return (
        f"cannot join {address}: {text}; check that Ray listens there, and that RAY_AUTH_MODE and RAY_AUTH_TOKEN "
        "are the same here as on its nodes"
    )


def _hush() -> None:
    """Keep Ray from printing what its workers die of, which it does whatever it is told; a run has words of its own."""
    from ray._private import worker

    def keep(data: dict[str, Any], ignore_prefix: bool) -> None:
        log.debug("ray: %s", data.get("lines"))

    worker.print_to_stdstream = keep
    # Of several units that failed at once one is raised to us, and Ray would print the others.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")


def nodes() -> list[Node]:
    """Return what each node of the running Ray has."""
    import ray

    api: Any = ray  # its own annotations stop short of this function
    return [
        Node(
            id=node["NodeID"],
            name=node["NodeManagerAddress"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
            memory_bytes=int(node["Resources"].get("memory", 0)),
            object_store_bytes=int(node["Resources"].get("object_store_memory", 0)),
        )
        for node in api.nodes()
        if node["Alive"]
    ]


def foreseen_nodes(settings: RaySettings) -> list[Node]:
    """Return what each node will have, without starting a Ray of our own only to learn it.

    Raises:
        ClusterError: There is no cluster at the address.
    """
    import ray

    if settings.address is not None or ray.is_initialized():
        start_ray(settings)
        return nodes()
    # As Ray itself counts them when it starts.
    from ray._private.accelerators import NvidiaGPUAcceleratorManager as Gpus
    from ray._private.utils import get_num_cpus

    there, shown = Gpus.get_current_node_num_accelerators(), Gpus.get_current_process_visible_accelerator_ids()
    return [Node("this machine", get_num_cpus(), there if shown is None else min(there, len(shown)))]


@contextlib.contextmanager
def _muted_core() -> Iterator[None]:
    """... and says at the start that it was told not to. Only its start is muted; what fails there raises."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _object_store_bytes(settings: RaySettings) -> int:
    if settings.object_store_bytes is not None:
        return settings.object_store_bytes
    # A container often has a small /dev/shm; Ray would then move the store to disk without being asked.
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else OBJECT_STORE_BYTES
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(100 * 2**20, min(OBJECT_STORE_BYTES, int(shared * 0.8), int(memory * 0.3)))


def _python_path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
