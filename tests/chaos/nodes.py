"""Lose a node: a cluster of two on one machine, one of which is gone at a random moment with all that it held."""

import random

from tests.chaos.outcome import Outcome
from tests.chaos.runs import moment, starter, wait_for_rows
from tests.chaos.scene import Scene
from tests.chaos.trials import ends, new_output, outcome_of
from tests.cluster import cluster

# In Ray's books. The head alone can hold one actor of each step, and with the second node there are two engines.
HEAD_CPUS, OTHER_CPUS = 4, 2


def node(scene: Scene, moments: random.Random) -> Outcome:
    """Kill -9 every process of the second node at once."""
    output = new_output(scene, "node")
    with cluster(HEAD_CPUS, OTHER_CPUS, RAY_AUTH_MODE="disabled") as nodes:
        settings = scene.settings(output, generate={"actors": 2}) | {"ray": {"address": nodes.address}}
        with starter(scene, output, settings) as starts:
            run = starts.start(environment=nodes.environment)
            wait_for_rows(run, moment(moments, scene, stretch=0.5))
            nodes.nodes[1].kill()
            return outcome_of("node lost, of two", 1, scene, starts, ends(run, 0))
