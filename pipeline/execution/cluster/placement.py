"""Share a cluster's CPUs and GPUs out among the steps, so that every actor and a task of each other step fit at once.

Ray Data waits for ever, without a word, when its actors leave no CPU for the other steps; so the arithmetic is done
here, before anything starts. It knows the nodes as numbers: nothing here asks Ray.
"""

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.pipeline_settings import ActorCount, GenerateSettings, Pool, pool_of

# Reading and writing wait for storage more than they compute, so a tenth of a CPU lets ten of them wait at once.
READ_CPUS = WRITE_CPUS = 0.1
# Less than this for each actor and the machine does nothing but switch between them.
LEAST_ACTOR_CPUS = 0.25
# Shares are cut small enough for a pool to grow on the nodes that there are, but not smaller than this.
GROWN_ACTOR_CPUS = 0.5
TAKEN = " beside those of the model that checks; with few, give each a part (generate.gpus=0.8)"


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
class Placement:
    """How many actors each step has, to how many it may grow (at least as many), and the share of each actor."""

    preprocess_actors: int
    preprocess_cpus: float
    generate_actors: int
    generate_cpus: float
    generate_gpus: float
    check_actors: int = 0
    check_cpus: float = 0.0
    check_gpus: float = 0.0
    preprocess_most: int = 0
    generate_most: int = 0
    check_most: int = 0

    def __post_init__(self) -> None:
        for step in ("preprocess", "generate", "check"):
            most = max(getattr(self, f"{step}_actors"), getattr(self, f"{step}_most"))
            object.__setattr__(self, f"{step}_most", most)


@dataclass(frozen=True)
class Engines:
    """What the settings ask for one step's engines: `where` is how the settings call that step."""

    generate: GenerateSettings
    device: str
    where: str = ""


@dataclass(frozen=True)
class _Share:
    """The actors of one step, and the part of a node that each has."""

    pool: Pool
    gpus: float
    cpus: float = 0.0


def place_actors(
    nodes: Sequence[Node], engines: Engines, preprocess_actors: ActorCount = None, check: Engines | None = None
) -> Placement:
    """Share the nodes out among the steps. Only the least of each pool must fit; what is added later lets them grow.

    Args:
        nodes: What there is.
        engines: Those that answer; without a number they take every GPU that the checking ones leave.
        preprocess_actors: None takes what the engines leave.
        check: Those that check; without a number, one.

    Raises:
        PlacementError: They do not fit, or a device is not there.
    """
    gpus = [node.gpus for node in nodes]
    checking = _engines(gpus, gpus, check, 1) if check else _Share(Pool(0, 0), 0.0)
    answering = _engines(gpus, _without(gpus, checking), engines, None, is_shared=checking.gpus > 0)
    pool = pool_of(preprocess_actors) if preprocess_actors else _makers(nodes, answering, checking)
    making, answering, checking = _with_cpus(nodes, [_Share(pool, 0.0), answering, checking])
    return Placement(
        preprocess_actors=making.pool.least,
        preprocess_cpus=making.cpus,
        generate_actors=answering.pool.least,
        generate_cpus=answering.cpus,
        generate_gpus=answering.gpus,
        check_actors=checking.pool.least,
        check_cpus=checking.cpus if checking.pool.least else 0.0,
        check_gpus=checking.gpus,
        preprocess_most=making.pool.most,
        generate_most=answering.pool.most,
        check_most=checking.pool.most,
    )


def gpus_each(gpus: Sequence[float], generate: GenerateSettings, device: str) -> float:
    """Return the GPUs of each engine."""
    if generate.gpus is not None:
        return generate.gpus
    return 1.0 if device == "cuda" or (device == "auto" and any(gpus)) else 0.0


def _engines(
    there: Sequence[float], left: Sequence[float], engines: Engines, usual: int | None, *, is_shared: bool = False
) -> _Share:
    """Return how many engines a step has, and the GPUs of each.

    Args:
        there: The GPUs of each node; they say whether `auto` means a GPU.
        left: Those that may be taken.
        engines: What is asked for.
        usual: How many engines without a number; None for as many as fit.
        is_shared: Whether some GPUs are left out already, for the engines that check.
    """
    generate, device, where = engines.generate, engines.device, engines.where
    gpus = gpus_each(there, generate, device)
    if device == "cpu" and gpus:
        raise PlacementError(f"{where}generate.gpus: found {gpus:g} with {where}model.device='cpu', expected 0 or null")
    if device == "cuda" and not gpus:
        raise PlacementError(
            f"{where}model.device: found 'cuda' with {where}generate.gpus=0, expected at least part of a GPU"
        )
    pool = pool_of(generate.actors or (usual or max(1, _fitting(left, gpus)) if gpus else 1))
    if gpus and _fitting(left, gpus) < pool.least:
        raise PlacementError(
            f"{where}generate: found {_counted(pool.least, 'engine')} with {_counted(gpus, 'GPU')} each, but Ray has "
            f"{_listed(left)} GPUs{TAKEN if is_shared else ''}; lower {where}generate.actors or {where}generate.gpus, "
            "or give Ray more GPUs"
        )
    return _Share(pool, gpus)


def _without(gpus: Sequence[float], share: _Share) -> list[float]:
    """Return what is left of the nodes' GPUs when so many engines have theirs."""
    nodes = list(gpus)
    for _ in range(share.pool.least if share.gpus else 0):
        place = next(place for place, node in enumerate(nodes) if node + 1e-9 >= share.gpus)
        nodes[place] -= share.gpus
    return nodes


def _fitting(gpus: Sequence[float], each: float) -> int:
    """Count the engines that the nodes' GPUs hold; several that ask for a part may share one."""
    if each >= 1:
        return sum(math.floor(node / each + 1e-9) for node in gpus)
    sharing = math.floor(1 / each + 1e-9)
    return sum(math.floor(node) * sharing + math.floor(node % 1 / each + 1e-9) for node in gpus)


def _makers(nodes: Sequence[Node], answering: _Share, checking: _Share) -> Pool:
    # A GPU keeps many CPUs busy with tiles; on the CPU it is generation that is slow.
    left = sum(_free(nodes)) - answering.pool.least - checking.pool.least
    return pool_of(max(1, math.floor(left)) if answering.gpus else 1)


def _free(nodes: Sequence[Node]) -> list[float]:
    """Return the CPUs that actors may have. Reading and writing may happen on any node, so each keeps some for them."""
    return [max(0.0, node.cpus - READ_CPUS - WRITE_CPUS) for node in nodes]


def _with_cpus(nodes: Sequence[Node], shares: Sequence[_Share]) -> list[_Share]:
    """Give each actor its CPUs: the most with which all of them find a node, if that is enough to work with."""
    sharing = _now(nodes, shares)
    whole = _whole_shares(nodes, shares, sharing)
    for tenths in range(10, 0, -1):
        smaller = [replace(share, cpus=_floor(share.cpus * tenths / 10)) for share in whole]
        is_enough = all(share.cpus >= LEAST_ACTOR_CPUS for share in smaller if share.pool.least)
        if is_enough and _pack(nodes, smaller):
            return smaller
    making, answering, checking = (share.pool.least for share in shares)
    counted = f"{making} + {answering}" + (f" + {checking} checking" if checking else "")
    raise PlacementError(
        f"preprocess.actors + generate.actors: found {counted} actors, but Ray has "
        f"{_listed([node.cpus for node in nodes])} CPUs; each actor needs at least {LEAST_ACTOR_CPUS}, and reading and "
        f"writing need {READ_CPUS + WRITE_CPUS} on each node; lower one of the two, or give Ray more CPUs"
    )


def _now(nodes: Sequence[Node], shares: Sequence[_Share]) -> list[int]:
    """Say among how many actors of each step the CPUs are shared: as many as may be here before a node is added."""
    counts = [share.pool.least for share in shares]
    room = math.floor(sum(_free(nodes)) / GROWN_ACTOR_CPUS)
    gpus = [node.gpus for node in nodes]
    most = [min(share.pool.most, _fitting(gpus, share.gpus)) if share.gpus else share.pool.most for share in shares]
    while sum(counts) < room and any(count < end for count, end in zip(counts, most, strict=True)):
        for place, end in enumerate(most):
            counts[place] += counts[place] < end and sum(counts) < room
    return counts


def _whole_shares(nodes: Sequence[Node], shares: Sequence[_Share], sharing: Sequence[int]) -> list[_Share]:
    """Share the CPUs as if the nodes were one machine, but give no actor more than a node has."""
    making, *engines = shares
    free, num_engines = _free(nodes), sum(sharing[1:])
    # Preprocessing gets a CPU per actor where there are plenty, and at most its part by heads where there are few.
    preprocess_cpus = _floor(min(1.0, max(free), sum(free) / sum(sharing)))
    rest = min(max(free), (sum(free) - sharing[0] * preprocess_cpus) / num_engines)
    generate_cpus = _floor(min(1.0, rest) if engines[0].gpus else rest)
    return [replace(making, cpus=preprocess_cpus), *(replace(share, cpus=generate_cpus) for share in engines)]


def _pack(nodes: Sequence[Node], shares: Sequence[_Share]) -> bool:
    """Say whether the least of each pool finds its nodes, in the order in which Ray starts them, each where most is."""
    cpus, gpus = _free(nodes), [node.gpus for node in nodes]
    for share in shares:
        able = [(-cpus[place], place) for place, free in enumerate(gpus) if free + 1e-9 >= share.gpus]
        heapq.heapify(able)
        for _ in range(share.pool.least):
            if not able or share.cpus > 1e-9 - able[0][0]:
                return False
            _, place = heapq.heappop(able)
            cpus[place] -= share.cpus
            gpus[place] -= share.gpus
            if gpus[place] + 1e-9 >= share.gpus:
                heapq.heappush(able, (-cpus[place], place))
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
