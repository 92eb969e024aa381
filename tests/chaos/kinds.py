"""The list of troubles: their names, and how each is done once in a scene. What they are, the other files know."""

import random
from collections.abc import Callable

from tests.chaos import drivers, nodes, stores, workers
from tests.chaos.outcome import Outcome
from tests.chaos.scene import Scene

Kind = Callable[[Scene, random.Random], Outcome]

KINDS: dict[str, Kind] = {
    "workers": lambda scene, moments: workers.killed(scene, ["read", "preprocess", "generate", "write"], moments),
    "poison": lambda scene, moments: workers.poisoned(
        scene, [("preprocess", "exit"), ("generate", "segfault")], moments
    ),
    "memory": lambda scene, moments: workers.poisoned(scene, [("preprocess", "hunger")], moments),
    "node": nodes.node,
    "driver": lambda scene, moments: drivers.stopped(scene, ["kill -9"] * 5, moments),
    "signals": lambda scene, moments: drivers.stopped(scene, ["SIGTERM", "Ctrl-C"], moments),
    "start": drivers.starting,
    "two": drivers.two,
    "store": lambda scene, moments: stores.away(scene, ["held", "killed"], moments),
    "gone": stores.gone,
    "disk": stores.disk_full,
}
ON_S3 = ("workers", "driver", "signals", "store", "gone")
