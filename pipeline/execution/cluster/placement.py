"""Share a cluster's CPUs and GPUs out among the steps, so that every actor and a task of each other step fit at once.

Ray Data waits for ever, without a word, when its actors leave no CPU for the other steps; so the arithmetic is done
here, before anything starts. It knows the nodes as numbers: nothing here asks Ray.
"""

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.pipeline_settings import GenerateSettings, least_and_most
from pipeline.steps.engine import EngineSpec

# Reading and writing wait for storage more than they compute, so a tenth of a CPU lets ten of them wait at once.
READ_CPUS = WRITE_CPUS = 0.1
# Less than this for each actor and the machine does nothing but switch between them.
LEAST_ACTOR_CPUS = 0.25
# Shares are cut small enough for a pool to grow on the nodes that there are, but not smaller than this.
GROWN_ACTOR_CPUS = 0.5
TAKEN = " beside those of the model that checks; if there are few, let engines share one (generate.gpus=0.8)"


class PlacementError(ValueError):
    """The cluster has not what the settings ask for."""


class NodesLost(RuntimeError):
    """Nodes are gone, and some actors that were on them find no room on the others."""


@dataclass(frozen=True)
class Node:
    """What one node has."""

    name: str
    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0
    object_store_bytes: int = 0
    id: str = ""


@dataclass(frozen=True)
class StepActors:
    """The actors of one step: how many there are, to how many they may grow, and the part of a node that each has."""

    least: int
    most: int
    cpus: float = 0.0
    gpus: float = 0.0


NONE = StepActors(0, 0)


@dataclass(frozen=True)
class Placement:
    """The actors of each step; a run without a model that checks has none for that."""

    preprocess: StepActors
    generate: StepActors
    check: StepActors = NONE

    def numbers(self) -> dict[str, float]:
        """Return it as an attempt writes it down."""
        numbers: dict[str, float] = {}
        for step in ("preprocess", "generate", "check"):
            actors: StepActors = getattr(self, step)
            numbers |= {f"{step}_actors": actors.least, f"{step}_most": actors.most, f"{step}_cpus": actors.cpus}
            numbers |= {f"{step}_gpus": actors.gpus} if step != "preprocess" else {}
        return numbers


def place_actors(nodes: Sequence[Node], answering: EngineSpec, checking: EngineSpec | None = None) -> Placement:
    """Share the nodes out among the steps. Only the least of each pool must fit; what is added later lets them grow.

    Args:
        nodes: What there is.
        answering: The model that answers; without a number its engines take every GPU that the checking ones leave,
            and its preprocessing every CPU that all engines leave.
        checking: The model that checks; without a number it has one engine.

    Raises:
        PlacementError: They do not fit, or a device is not there.
    """
    gpus = [node.gpus for node in nodes]
    check = _engines(gpus, gpus, checking, 1) if checking else NONE
    generate = _engines(gpus, _without(gpus, check), answering, None, is_shared=check.gpus > 0)
    actors = answering.preprocess.actors
    preprocess = _preprocessors(nodes, generate, check) if actors is None else StepActors(*least_and_most(actors))
    preprocess, generate, check = _with_cpus(nodes, [preprocess, generate, check])
    return Placement(preprocess, generate, check if check.least else NONE)


def gpus_each(gpus: Sequence[float], generate: GenerateSettings, device: str) -> float:
    """Return the GPUs of each engine."""
    if generate.gpus is not None:
        return generate.gpus
    return 1.0 if device == "cuda" or (device == "auto" and any(gpus)) else 0.0


def _engines(
    there: Sequence[float], left: Sequence[float], spec: EngineSpec, usual: int | None, *, is_shared: bool = False
) -> StepActors:
    """Return how many engines a step has, and the GPUs of each.

    Args:
        there: The GPUs of each node; they say whether `auto` means a GPU.
        left: Those that may be taken.
        spec: What is asked for.
        usual: How many engines without a number; None for as many as fit.
        is_shared: Whether some GPUs are left out already, for the engines that check.
    """
    generate, device, where = spec.generate, spec.model.device, spec.where
    gpus = gpus_each(there, generate, device)
    if device == "cpu" and gpus:
        raise PlacementError(f"{where}generate.gpus: found {gpus:g} with {where}model.device='cpu', expected 0 or null")
    if device == "cuda" and not gpus:
        raise PlacementError(
            f"{where}model.device: found 'cuda' with {where}generate.gpus=0, expected at least part of a GPU"
        )
    least, most = least_and_most(generate.actors or (usual or max(1, _fitting(left, gpus)) if gpus else 1))
    if gpus and _fitting(left, gpus) < least:
        lower = f"lower {where}generate.actors or {where}generate.gpus"
        remedy = lower if any(there) else f"set {where}generate.gpus=null and {where}model.device=auto for the CPU"
        raise PlacementError(
            f"{where}generate: found {_counted(least, 'engine')} with {_counted(gpus, 'GPU')} each, but Ray has "
            f"{_listed(left)} GPUs{TAKEN if is_shared else ''}; {remedy}, or give Ray more GPUs"
        )
    return StepActors(least, most, gpus=gpus)


def _without(gpus: Sequence[float], actors: StepActors) -> list[float]:
    """Return what is left of the nodes' GPUs when so many engines have theirs."""
    nodes = list(gpus)
    for _ in range(actors.least if actors.gpus else 0):
        first = next(number for number, node in enumerate(nodes) if node + 1e-9 >= actors.gpus)
        nodes[first] -= actors.gpus
    return nodes


def _fitting(gpus: Sequence[float], each: float) -> int:
    """Count the engines that the nodes' GPUs hold; several that ask for a part may share one."""
    if each >= 1:
        return sum(math.floor(node / each + 1e-9) for node in gpus)
    sharing = math.floor(1 / each + 1e-9)
    return sum(math.floor(node) * sharing + math.floor(node % 1 / each + 1e-9) for node in gpus)


def _preprocessors(nodes: Sequence[Node], generate: StepActors, check: StepActors) -> StepActors:
    # A GPU keeps many CPUs busy with tiles; on the CPU it is generation that is slow.
    left = sum(_free(nodes)) - generate.least - check.least
    count = max(1, math.floor(left)) if generate.gpus else 1
    return StepActors(count, count)


def _free(nodes: Sequence[Node]) -> list[float]:
    """Return the CPUs that actors may have. Reading and writing may happen on any node, so each keeps some for them."""
    return [max(0.0, node.cpus - READ_CPUS - WRITE_CPUS) for node in nodes]


def _with_cpus(nodes: Sequence[Node], steps: Sequence[StepActors]) -> list[StepActors]:
    """Give each actor its CPUs: the most with which all of them find a node, if that is enough to work with."""
    counts = _counts(nodes, steps)
    whole = _whole_shares(nodes, steps, counts)
    for tenths in range(10, 0, -1):
        smaller = [replace(actors, cpus=_floor(actors.cpus * tenths / 10)) for actors in whole]
        is_enough = all(actors.cpus >= LEAST_ACTOR_CPUS for actors in smaller if actors.least)
        if is_enough and _pack(nodes, smaller):
            return smaller
    preprocess, generate, check = (actors.least for actors in steps)
    counted = f"{preprocess} + {generate}" + (f" + {check} checking" if check else "")
    raise PlacementError(
        f"preprocess.actors + generate.actors: found {counted} actors, but Ray has "
        f"{_listed([node.cpus for node in nodes])} CPUs; each actor needs at least {LEAST_ACTOR_CPUS}, and reading and "
        f"writing need {READ_CPUS + WRITE_CPUS} on each node; lower one of the two, or give Ray more CPUs"
    )


def _counts(nodes: Sequence[Node], steps: Sequence[StepActors]) -> list[int]:
    """Say among how many actors of each step the CPUs are shared: as many as may be here before a node is added."""
    counts = [actors.least for actors in steps]
    room = math.floor(sum(_free(nodes)) / GROWN_ACTOR_CPUS)
    gpus = [node.gpus for node in nodes]
    most = [min(actors.most, _fitting(gpus, actors.gpus)) if actors.gpus else actors.most for actors in steps]
    while sum(counts) < room and any(count < end for count, end in zip(counts, most, strict=True)):
        for step, end in enumerate(most):
            counts[step] += counts[step] < end and sum(counts) < room
    return counts


def _whole_shares(nodes: Sequence[Node], steps: Sequence[StepActors], counts: Sequence[int]) -> list[StepActors]:
    """Share the CPUs as if the nodes were one machine, but give no actor more than a node has."""
    preprocess, *engines = steps
    free, num_engines = _free(nodes), sum(counts[1:])
    # Preprocessing gets a CPU per actor where there are plenty, and at most its part by heads where there are few.
    preprocess_cpus = _floor(min(1.0, max(free), sum(free) / sum(counts)))
    rest = min(max(free), (sum(free) - counts[0] * preprocess_cpus) / num_engines)
    generate_cpus = _floor(min(1.0, rest) if engines[0].gpus else rest)
    return [replace(preprocess, cpus=preprocess_cpus), *(replace(actors, cpus=generate_cpus) for actors in engines)]


def _pack(nodes: Sequence[Node], steps: Sequence[StepActors]) -> bool:
    """Say whether the least of each pool finds its nodes, in the order in which Ray starts them, each where most is."""
    cpus, gpus = _free(nodes), [node.gpus for node in nodes]
    for actors in steps:
        able = [(-cpus[node], node) for node, free in enumerate(gpus) if free + 1e-9 >= actors.gpus]
        heapq.heapify(able)
        for _ in range(actors.least):
            if not able or actors.cpus > 1e-9 - able[0][0]:
                return False
            _, node = heapq.heappop(able)
            cpus[node] -= actors.cpus
            gpus[node] -= actors.gpus
            if gpus[node] + 1e-9 >= actors.gpus:
                heapq.heappush(able, (-cpus[node], node))
    return True


def _floor(cpus: float) -> float:
    """Round down to what Ray can count; above one CPU it wants whole ones."""
    return float(math.floor(cpus)) if cpus >= 1 else math.floor(cpus * 100 + 1e-9) / 100


def _counted(amount: float, what: str) -> str:
    return f"{amount:g} {what}{'' if amount == 1 else 's'}"


def _listed(amounts: Sequence[float]) -> str:
    """Write down what each node has; of many nodes, how many have what."""
    if len(amounts) <= 4:
        return " + ".join(f"{amount:g}" for amount in amounts) or "0"
    return " + ".join(f"{count} x {amount:g}" for amount, count in Counter(amounts).most_common())
