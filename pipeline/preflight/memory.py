"""Weigh what a run will hold at once against the memory that there is: weights in processes, units in the object store.

Bounds from below, from the weights' shapes and the first rows; no GPU's memory is known here. It starts nothing.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.execution.cluster.placement import Node

log = logging.getLogger(__name__)

# On a CPU `auto` is float32, where half precision is slower.
VALUE_BYTES = {"auto": 4, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class CpuEngines:
    """Engines that hold their weights in a node's memory.

    Attributes:
        where: What stands before the names of their settings.
        actors: How many there are at least.
        dtype: As the settings have it.
        num_weights: Values of the checkpoint that are loaded.
    """

    where: str
    actors: int
    dtype: str
    num_weights: int

    @property
    def bytes_each(self) -> int:
        """Of the weights alone."""
        return self.num_weights * VALUE_BYTES[self.dtype]


@dataclass(frozen=True)
class EngineMemory:
    """What one engine holds, in bytes; see `models.capacity.footprint`.

    Attributes:
        slots: Sequences that it answers at once.
        max_length: The longest that it takes, in tokens.
        weights: All parameters.
        cache: Keys and values of all slots.
        token: What one token leaves there.
        memory: What cross-attention layers keep of an image at most, for each slot that asks about another one.
        kept_images: At most so much of images that were looked at lately.
        kept_prefixes: At most so much of what prompts lately began with, where several begin alike.
        free: On CPUs what the nodes have, together; None where that is not known, as with GPUs.
        fits: Whether all engines find room, if every slot is filled; None where that is not known.
        why: On a GPU the numbers behind `slots`, in a sentence.
    """

    slots: int
    max_length: int
    weights: int
    cache: int
    token: int
    memory: int
    kept_images: int
    kept_prefixes: int
    free: int | None = None
    fits: bool | None = None
    why: str = ""

    @property
    def total(self) -> int:
        """All of it, at most."""
        return self.weights + self.cache + self.slots * self.memory + self.kept_images + self.kept_prefixes


def engines_in_memory(engines: Sequence[tuple[EngineMemory, int, bool]], nodes: Sequence[Node]) -> list[EngineMemory]:
    """Say of each model whether its engines fit, those of the others beside them.

    Args:
        engines: What each holds, how many there are, and whether they are on CPUs.
        nodes: What there is.
    """
    free, found = [node.memory_bytes for node in nodes], []
    for engine, actors, on_cpu in engines:
        if not on_cpu or not all(free):
            found.append(engine)
            continue
        fitting = sum(memory // engine.total for memory in free)
        found.append(replace(engine, free=sum(free), fits=fitting >= actors))
        free = _without(free, engine.total, actors)
    return found


def weights_faults(nodes: Sequence[Node], engines: Sequence[CpuEngines]) -> list[str]:
    """Say whose weights do not fit into the nodes' memory as often as there are engines."""
    faults: list[str] = []
    free = [node.memory_bytes for node in nodes]
    for engine in sorted(engines, key=lambda engine: -engine.bytes_each):
        if not engine.bytes_each or not all(free):
            continue
        fitting = sum(memory // engine.bytes_each for memory in free)
        if fitting < engine.actors:
            faults.append(_weights_fault(nodes, engine, fitting))
        free = _without(free, engine.bytes_each, engine.actors)
    return faults


def store_faults(nodes: Sequence[Node], row_bytes: int, unit_rows: int, units: int) -> list[str]:
    """Say whether a unit is too large for the object store; warn if all that are on their way are, together.

    Args:
        nodes: Each has an object store.
        row_bytes: Of the largest of the first rows, as they are read or made ready, whichever is more.
        unit_rows: Of the largest unit.
        units: So many are on their way at most.
    """
    unit_bytes, stores = row_bytes * unit_rows, [node.object_store_bytes for node in nodes]
    if not unit_bytes or not all(stores):
        return []
    remedy = "fewer write.unit_rows, smaller images (preprocess) or a larger store (ray.object_store_bytes)"
    # One is being made while the one before it is being answered.
    if 2 * unit_bytes > max(stores):
        return [
            f"write.unit_rows: two units of {unit_rows} rows take {_size(2 * unit_bytes)} as they are read or made "
            f"ready for the model, but the largest object store has {_size(max(stores))}; expected {remedy}"
        ]
    if units * unit_bytes > sum(stores):
        log.warning(
            "up to %d units of %s may be in flight, but the object stores have %s together: Ray will move some to disk "
            "and back, which is slow; expected %s",
            units,
            _size(unit_bytes),
            _size(sum(stores)),
            remedy,
        )
    return []


def _weights_fault(nodes: Sequence[Node], engines: CpuEngines, fitting: int) -> str:
    memory = " + ".join(_size(node.memory_bytes) for node in nodes[:4]) + (" + ..." if len(nodes) > 4 else "")
    dtype = "float32" if engines.dtype == "auto" else engines.dtype
    remedies = ["a node with more memory, or a GPU"]
    remedies += [f"{engines.where}generate.actors={fitting}"] if fitting else []
    remedies += (
        [f"{engines.where}model.dtype=bfloat16 (half of it, and slower on most)"]
        if VALUE_BYTES[engines.dtype] > 2
        else []
    )
    return (
        f"{engines.where}generate.actors: the weights take {_size(engines.bytes_each)} in {dtype} for each of "
        f"{engines.actors} engines on the CPU, but the nodes have {memory} free; expected {', or '.join(remedies)}"
    )


def _without(free: Sequence[int], bytes_each: int, actors: int) -> list[int]:
    """Return what is left on each node, filled one after the other."""
    left = list(free)
    for place, memory in enumerate(free):
        taken = min(actors, memory // bytes_each)
        left[place] -= taken * bytes_each
        actors -= taken
    return left


def _size(count: int) -> str:
    """Write bytes as people do."""
    if count < 10**6:
        return f"{math.ceil(count / 1000)} kB"
    return f"{count / 10**6:.0f} MB" if count < 10**9 else f"{count / 10**9:.1f} GB"
