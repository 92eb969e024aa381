"""Take the storage away: hold the S3 server still, kill it for a while or for good, or let the disk run full."""

import random
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from pipeline.storage.store import StorageSettings, Store
from tests.chaos.outcome import Outcome
from tests.chaos.runs import Run, moment, rows_done, starter, wait_for_rows
from tests.chaos.scene import Scene
from tests.chaos.trials import ends, outcome_of

AWAY_S = 10.0
PATIENCE_S = 15.0


def away(scene: Scene, ways: Sequence[str], moments: random.Random) -> Outcome:
    """Take the server of input and output away for ten seconds, once in each way: `held` hangs, `killed` refuses."""
    assert scene.server is not None
    output, settings = _on_s3(scene, moments, patience_s=300.0)
    with starter(scene, output, settings) as starts:
        run = starts.start()
        for way in ways:
            wait_for_rows(run, moment(moments, scene, max(0, rows_done(output)), 0.7 / len(ways)))
            stop, bring_back = (
                (scene.server.hold, scene.server.go_on) if way == "held" else (scene.server.kill, scene.server.start)
            )
            stop()
            time.sleep(AWAY_S)
            bring_back()
        words = f"object store {' and '.join(ways)} for {AWAY_S:.0f} s"
        return outcome_of(words, len(ways), scene, starts, ends(run, 0))


def gone(scene: Scene, moments: random.Random) -> Outcome:
    """Kill -9 the server for longer than the run is patient; once it is back, run again."""
    assert scene.server is not None
    output, settings = _on_s3(scene, moments, PATIENCE_S)
    with starter(scene, output, settings) as starts:
        run = starts.start()
        wait_for_rows(run, moment(moments, scene))
        scene.server.kill()
        faults = [*ends(run, 1), *_says(run, "Unreachable", "s3://chaos")]
        scene.server.start()
        faults += ends(starts.start(), 0)
        return outcome_of("object store killed for good, run again when it was back", 1, scene, starts, faults)


def disk_full(scene: Scene, _: random.Random) -> Outcome:
    """Let the disk of the output run full; once there is room, run again.

    Raises:
        PermissionError: Only root can make a small disk.
    """
    folder = scene.folder / f"disk-{len(list(scene.folder.iterdir())):04d}"
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={sum(map(len, scene.parts.values())) // 2}", "tmpfs", str(folder))
    try:
        output = Store(str(folder / "out"))
        with starter(scene, output, scene.settings(output)) as starts:
            run = starts.start()
            faults = [*ends(run, 1), *_says(run, "No space left", str(folder))]
            _mount("-o", "remount,size=200m", str(folder))
            faults += ends(starts.start(), 0)
            return outcome_of("disk full, run again when there was room", 1, scene, starts, faults)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _on_s3(scene: Scene, moments: random.Random, patience_s: float) -> tuple[Store, dict[str, Any]]:
    assert scene.server is not None
    storage = StorageSettings(endpoint_url=scene.server.endpoint, patience_s=patience_s)
    output = Store(f"s3://chaos/store-{moments.getrandbits(40):010x}", storage)
    read = {"uri": "s3://chaos/in", "storage": storage.model_dump(exclude_defaults=True)}
    return output, scene.settings(output, read=read)


def _says(run: Run, *words: str) -> list[str]:
    said = run.words()
    return [f"it does not say {word!r} but {said[-600:]!r}" for word in words if word not in said]


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(f"no small disk can be made here: {done.stderr.strip()}")
