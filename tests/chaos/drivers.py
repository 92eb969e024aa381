"""Stop the driver, in every way that a driver is stopped, and run the same command again at once; or run it twice."""

import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import replace

from tests.chaos.outcome import Outcome
from tests.chaos.runs import Run, moment, rows_done, starter, wait_for_rows
from tests.chaos.scene import Scene
from tests.chaos.trials import ends, new_output, outcome_of

CODES = {"kill -9": (-signal.SIGKILL,), "SIGTERM": (130,), "Ctrl-C": (130,)}


def stopped(scene: Scene, signals: Sequence[str], moments: random.Random) -> Outcome:
    """Stop the driver at random moments, each time another way, and run the same command again at once."""
    assert scene.proxy is not None
    output = scene.s3_output(f"driver-{moments.getrandbits(40):010x}")
    bytes_before = scene.proxy.bytes_down
    faults: list[str] = []
    times = 0
    with starter(scene, output, scene.settings(output, read=scene.through_proxy())) as starts:
        for way in signals:
            run = starts.start()
            done = max(0, rows_done(output))
            if wait_for_rows(run, moment(moments, scene, done, 0.7 / len(signals))) and run.process.poll() is None:
                time.sleep(moments.random() * 0.5)
                stop(run, way)
                times += 1
            faults += ends(run, *((0,) if run.process.poll() == 0 else CODES[way]))
        faults += ends(starts.start(), 0)
        share = (scene.proxy.bytes_down - bytes_before - scene.bytes_read) / scene.input_bytes
        outcome = outcome_of(f"driver: {', '.join(dict.fromkeys(signals))}", times, scene, starts, faults)
        return replace(outcome, share_again=max(0.0, share))


def starting(scene: Scene, moments: random.Random) -> Outcome:
    """Kill -9 the driver before anything is committed: while it starts, looks at the input or loads the model."""
    output = new_output(scene, "planning")
    with starter(scene, output, scene.settings(output)) as starts:
        run = starts.start()
        time.sleep(moments.random() * 15)
        stop(run, "kill -9")
        faults = ends(run, *CODES["kill -9"])
        faults += ends(starts.start(), 0)
        return outcome_of("driver, while starting: kill -9", 1, scene, starts, faults)


def stop(run: Run, way: str) -> None:
    """Stop a run as a name of CODES says."""
    if way == "kill -9":
        run.process.kill()
    elif way == "SIGTERM":
        run.process.terminate()
    else:
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: every process of the group hears of it


def two(scene: Scene, _: random.Random) -> Outcome:
    """Run the same command twice at once."""
    output = new_output(scene, "two")
    with starter(scene, output, scene.settings(output)) as starts:
        first, second = starts.start(), starts.start()
        faults = [*ends(first, 0), *ends(second, 0)]
        outcome = outcome_of("two drivers at once", 1, scene, starts, faults)
        return replace(outcome, seconds_lost=max(first.seconds, second.seconds) - scene.seconds)
