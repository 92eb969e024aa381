"""Kill the processes that do the work: at random while they are at it, or by a row that no process survives."""

import random
from collections.abc import Sequence

from tests.chaos import processes
from tests.chaos.outcome import Outcome
from tests.chaos.runs import Run, moment, rows_done, starter, wait_for_rows
from tests.chaos.scene import Scene
from tests.chaos.trials import ends, new_output, outcome_of
from tests.proxy import Proxy

POISONED = ("-m", "tests.chaos.poison")
# How much a row may take, beside what the machine uses already, until Ray's memory monitor ends its process.
SPARE_BYTES = 3 * 2**30
MEET_S = 120.0


def killed(scene: Scene, steps: Sequence[str], moments: random.Random) -> Outcome:
    """Kill -9 a worker of each of some steps, one after the other, while it is at work."""
    assert scene.proxy is not None and scene.write_proxy is not None
    output = scene.s3_output(f"worker-{moments.getrandbits(40):010x}")
    through = {"storage": {"endpoint_url": scene.write_proxy.url}}
    settings = scene.settings(output, read=scene.through_proxy(), write=through)
    held = {"read": scene.proxy, "write": scene.write_proxy}
    with starter(scene, output, settings) as starts:
        run = starts.start()
        faults: list[str] = []
        for step in steps:
            wait_for_rows(run, moment(moments, scene, max(0, rows_done(output)), 0.6 / len(steps)))
            try:
                _kill_one(held.get(step), run, step, moments)
            except LookupError as error:
                faults.append(str(error))
        faults += ends(run, 0)
        return outcome_of(f"kill -9: {', '.join(steps)} worker", len(steps), scene, starts, faults)


def _kill_one(held: Proxy | None, run: Run, step: str, moments: random.Random) -> None:
    # Reading and writing last milliseconds; with their way to the store held still they are met for sure.
    if held is not None:
        held.stop()
    try:
        processes.kill_busy(run.pid, step, moments, MEET_S)
    finally:
        if held is not None:
            held.go_on()


def poisoned(scene: Scene, ways: Sequence[tuple[str, str]], moments: random.Random) -> Outcome:
    """Let some rows kill the process that works on them; `ways` are pairs of a step and a way to die."""
    output = new_output(scene, "poison")
    keys = moments.sample(scene.keys[40:], len(ways))
    settings = scene.settings(output) | {"poison": dict(zip(keys, ways, strict=True))}
    is_hungry = any(way == "hunger" for _, way in ways)
    with starter(scene, output, settings) as starts:
        run = starts.start(POISONED, little_memory() if is_hungry else None)
        faults = ends(run, 0)
        words = ", ".join(f"{step} ({way})" for step, way in ways)
        stages = {key: step for key, (step, _) in zip(keys, ways, strict=True)}
        return outcome_of(f"a row that kills: {words}", len(ways), scene, starts, faults, stages)


def little_memory() -> dict[str, str]:
    """Return an environment in which Ray takes the machine to be full when `SPARE_BYTES` more are taken."""
    with open("/proc/meminfo", encoding="ascii") as file:
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    total, available = found["MemTotal"], found["MemAvailable"]
    share = (total - available + SPARE_BYTES) / total
    return {"RAY_memory_usage_threshold": f"{share:.4f}", "RAY_memory_monitor_refresh_ms": "100"}
