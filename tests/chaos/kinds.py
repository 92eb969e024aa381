"""The list of troubles: their names, and how each is done once in a scene. What they are, the other files know."""

import random
from collections.abc import Callable

from tests.chaos import drivers, nodes, stores, workers
from tests.chaos.outcome import Outcome
from tests.chaos.scene import Scene

Kind = Callable[[Scene, random.Random], Outcome]

KINDS: dict[str, Kind] = {
    "read": lambda scene, moments: workers.killed(scene, ["read"], moments),
    "preprocess": lambda scene, moments: workers.killed(scene, ["preprocess"], moments),
    "generate": lambda scene, moments: workers.killed(scene, ["generate"], moments),
    "write": lambda scene, moments: workers.killed(scene, ["write"], moments),
    "node": nodes.node,
    "driver": lambda scene, moments: drivers.stopped(scene, ["kill -9"] * 5, moments),
    "start": drivers.starting,
    "sigterm": lambda scene, moments: drivers.stopped(scene, ["SIGTERM"], moments),
    "ctrl-c": lambda scene, moments: drivers.stopped(scene, ["Ctrl-C"], moments),
    "two": drivers.two,
    "held": lambda scene, moments: stores.away(scene, ["held"], moments),
    "restarted": lambda scene, moments: stores.away(scene, ["killed"], moments),
    "gone": stores.gone,
    "disk": stores.disk_full,
    "poison-preprocess": lambda scene, moments: workers.poisoned(scene, [("preprocess", "exit")], moments),
    "poison-generate": lambda scene, moments: workers.poisoned(scene, [("generate", "segfault")], moments),
    "memory": lambda scene, moments: workers.poisoned(scene, [("preprocess", "hunger")], moments),
}
ON_S3 = ("read", "preprocess", "generate", "write", "driver", "sigterm", "ctrl-c", "held", "restarted", "gone")
