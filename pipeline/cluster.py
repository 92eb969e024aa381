"""Start or join Ray, bring the code there, and say which step gets which share of it.

Ray Data waits for ever, without a word, when its actors leave no CPU for the other steps; so the arithmetic is done
here, before anything starts. This file knows nothing of rows.
"""

import contextlib
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pipeline.generate import GenerateSettings
from pipeline.settings import Settings

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "pipeline", "jobs")

# Reading and writing wait for storage more than they compute, so a tenth of a CPU lets ten of them wait at once.
READ_CPUS = WRITE_CPUS = 0.1
# Less than this for each actor and the machine does nothing but switch between them.
LEAST_ACTOR_CPUS = 0.25
OBJECT_STORE_BYTES = 2 * 2**30
TAKEN = " beside those of the model that checks; with few, give each a part (generate.gpus=0.8)"


class RaySettings(Settings):
    """Which Ray to use."""

    address: str | None = Field(default=None, description="`auto` or host:port of a cluster; null starts a local Ray")
    object_store_bytes: int | None = Field(default=None, ge=100 * 2**20, description="of a local Ray; null means 2 GiB")

    @model_validator(mode="after")
    def _fits_together(self) -> "RaySettings":
        if self.address is not None and self.object_store_bytes is not None:
            raise ValueError("object_store_bytes is for a local Ray; the cluster at `address` has its own")
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(f"address: found '{self.address}', expected host:port; start the run on the cluster")
        return self


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs in all, and GPUs node by node.

    Attributes:
        is_shared: Whether some GPUs are left out already, for the engines that check.
    """

    cpus: float
    gpus: tuple[float, ...]
    is_shared: bool = False


@dataclass(frozen=True)
class Placement:
    """How many actors each step has, and the share of each."""

    preprocess_actors: int
    preprocess_cpus: float
    generate_actors: int
    generate_cpus: float
    generate_gpus: float
    check_actors: int = 0
    check_cpus: float = 0.0
    check_gpus: float = 0.0


@dataclass(frozen=True)
class Engines:
    """What the settings ask for one step's engines: `where` is how the settings call that step."""

    generate: GenerateSettings
    device: str
    where: str = ""


class ClusterError(ValueError):
    """There is no such Ray, or it has not what the settings ask for."""


def place(
    resources: Resources, engines: Engines, preprocess_actors: int | None = None, check: Engines | None = None
) -> Placement:
    """Share the CPUs and GPUs out among the steps, so that every actor and a task of each other step fit at once.

    Args:
        resources: What there is.
        engines: Those that answer; without a number they take every GPU that the checking ones leave.
        preprocess_actors: None takes what the engines leave.
        check: Those that check; without a number, one.

    Raises:
        ClusterError: They do not fit, or a device is not there.
    """
    checking, check_gpus = (0, 0.0) if check is None else _engines(resources, resources, check, 1)
    actors, gpus = _engines(resources, _without(resources, checking, check_gpus), engines, None)
    left = resources.cpus - READ_CPUS - WRITE_CPUS
    # A GPU keeps many CPUs busy with tiles; on the CPU it is generation that is slow.
    makers = preprocess_actors or (max(1, math.floor(left - actors - checking)) if gpus else 1)
    if left < LEAST_ACTOR_CPUS * (makers + actors + checking):
        counted = f"{makers} + {actors}" + (f" + {checking} checking" if checking else "")
        raise ClusterError(
            f"preprocess.actors + generate.actors: {counted} actors do not fit; Ray has {resources.cpus:g} "
            f"CPUs, each actor needs at least {LEAST_ACTOR_CPUS} and reading and writing {READ_CPUS + WRITE_CPUS}"
        )
    placement = _shares(left, makers, actors + checking, gpus)
    check_cpus = placement.generate_cpus if checking else 0.0
    return replace(
        placement, generate_actors=actors, check_actors=checking, check_cpus=check_cpus, check_gpus=check_gpus
    )


def _engines(there: Resources, left: Resources, engines: Engines, usual: int | None) -> tuple[int, float]:
    """Return how many engines a step has, and the GPUs of each.

    Args:
        there: What there is; it says whether `auto` means a GPU.
        left: What may be taken.
        engines: What is asked for.
        usual: How many engines without a number; None for as many as fit.
    """
    generate, device, where = engines.generate, engines.device, engines.where
    gpus = gpus_each(there, generate, device)
    if device == "cpu" and gpus:
        raise ClusterError(f"{where}generate.gpus: found {gpus:g} with {where}model.device='cpu', expected 0 or null")
    if device == "cuda" and not gpus:
        raise ClusterError(
            f"{where}model.device: found 'cuda' with {where}generate.gpus=0, expected at least part of a GPU"
        )
    actors = generate.actors or (usual or _fitting(left, gpus) if gpus else 1)
    if gpus and _fitting(left, gpus) < max(actors, 1):
        raise ClusterError(
            f"{where}generate: {max(actors, 1)} actors with {gpus:g} GPU each do not fit; "
            f"Ray has {_list(left.gpus)} GPUs{TAKEN if left.is_shared else ''}"
        )
    return actors, gpus


def _without(resources: Resources, actors: int, gpus: float) -> Resources:
    """Return what is left when so many engines have their GPUs."""
    if not actors or not gpus:
        return resources
    nodes = list(resources.gpus)
    for _ in range(actors):
        place = next(place for place, node in enumerate(nodes) if node + 1e-9 >= gpus)
        nodes[place] -= gpus
    return Resources(resources.cpus, tuple(nodes), is_shared=True)


def gpus_each(resources: Resources, generate: GenerateSettings, device: str) -> float:
    """Return the GPUs of each engine."""
    if generate.gpus is not None:
        return generate.gpus
    return 1.0 if device == "cuda" or (device == "auto" and any(resources.gpus)) else 0.0


def start_ray(settings: RaySettings, **local: float) -> None:
    """Join the Ray that this process has, else the cluster at the address, else start a local one, quietly.

    Args:
        settings: Which Ray.
        local: What a local one shall believe to have (`num_cpus`, `num_gpus`); nothing means what the machine has.

    Raises:
        ClusterError: There is no cluster at the address, or a local one does not start.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if settings.address is None:
        # A Ray of our own listens on this machine only; the token it would ask for guards nothing.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    if ray.is_initialized():
        return
    is_verbose = log.isEnabledFor(logging.DEBUG)
    if not is_verbose:
        # Ray's core warns past Python's logging of restarts that a run of ours does not depend on ...
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    level = logging.INFO if is_verbose else logging.ERROR
    options: dict[str, Any] = {"logging_level": level, "log_to_driver": is_verbose}
    if settings.address is None:
        options |= {"include_dashboard": False, "object_store_memory": _object_store_bytes(settings), **local}
        options |= {"runtime_env": {"env_vars": {"PYTHONPATH": _python_path()}}}
    else:
        modules = [str(ROOT / room) for room in ROOMS if (ROOT / room).is_dir()]
        options |= {"address": settings.address, "runtime_env": {"py_modules": modules}}
    try:
        with contextlib.nullcontext() if is_verbose else _muted_core():
            ray.init(**options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"ray.address: cannot reach or start {settings.address or 'a local Ray'}: {error}"
        ) from error


def resources() -> Resources:
    """Return what the running Ray has."""
    import ray

    api: Any = ray  # its own annotations stop short of this function
    nodes = [node["Resources"] for node in api.nodes() if node["Alive"]]
    return Resources(sum(node.get("CPU", 0.0) for node in nodes), tuple(node.get("GPU", 0.0) for node in nodes))


def check_code_arrives(job: Any) -> str | None:
    """Send the job to a worker and back; say what is wrong if the worker does not have our code."""
    import ray

    try:
        ray.get(ray.remote(num_cpus=READ_CPUS)(_kind).remote(job))
    except Exception as error:  # Ray wraps an import error in several classes
        cause = str(error).strip().splitlines()[-1]
        return (
            f"ray: the workers cannot load this code ({cause}); Ray was started elsewhere, before the run: give "
            f"it runtime_env={{'env_vars': {{'PYTHONPATH': '<folder of the packages>'}}}}, or let the run start it"
        )
    return None


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


def _kind(job: Any) -> str:
    return str(job.kind)


def _fitting(resources: Resources, gpus: float) -> int:
    """Count the engines that the nodes' GPUs hold; several that ask for a part may share one."""
    if gpus >= 1:
        return sum(math.floor(node / gpus + 1e-9) for node in resources.gpus)
    sharing = math.floor(1 / gpus + 1e-9)
    return sum(math.floor(node) * sharing + math.floor(node % 1 / gpus + 1e-9) for node in resources.gpus)


def _shares(left: float, makers: int, actors: int, gpus: float) -> Placement:
    # Preprocessing gets a CPU per actor where there are plenty, and at most its part by heads where there are few.
    part = left / (makers + actors)
    preprocess_cpus = _floor(min(1.0, part))
    rest = (left - makers * preprocess_cpus) / actors
    generate_cpus = _floor(min(1.0, rest) if gpus else rest)
    return Placement(makers, preprocess_cpus, actors, generate_cpus, gpus)


def _floor(cpus: float) -> float:
    """Round down to what Ray can count; above one CPU it wants whole ones."""
    return float(math.floor(cpus)) if cpus >= 1 else math.floor(cpus * 100) / 100


def _object_store_bytes(settings: RaySettings) -> int:
    if settings.object_store_bytes is not None:
        return settings.object_store_bytes
    # A container often has a small /dev/shm; Ray would then move the store to disk without being asked.
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else OBJECT_STORE_BYTES
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(100 * 2**20, min(OBJECT_STORE_BYTES, int(shared * 0.8), int(memory * 0.3)))


def _python_path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])


def _list(gpus: tuple[float, ...]) -> str:
    return " + ".join(f"{node:g}" for node in gpus) or "0"
