"""What every kind of trouble ends with: the exit codes are looked at, and what is left is judged."""

from collections.abc import Sequence

from pipeline.storage.store import Store
from tests.chaos.outcome import Outcome
from tests.chaos.runs import Run, Starter, starter
from tests.chaos.scene import Scene
from tests.chaos.verdict import Poison, judge

# Of Ray and of Python, where a sentence was expected.
NOISE = ("Traceback", "ray.exceptions", "(raylet)")


def undisturbed(scene: Scene) -> None:
    """Run once without any trouble, and keep the parts, the time and the bytes read to compare with."""
    output = scene.local_output("undisturbed")
    read = scene.through_proxy() if scene.proxy else {}
    with starter(scene, output, scene.settings(output, read=read)) as starts:
        run = starts.start()
        code = run.wait()
    assert code == 0, run.words()
    scene.seconds = run.seconds
    scene.bytes_read = scene.proxy.bytes_down if scene.proxy else 0
    scene.parts = {entry.path: output.read(entry.path) for entry in output.list() if entry.path.startswith("part-")}
    verdict = judge(scene, output)
    assert verdict.faults == [], verdict.faults


def new_output(scene: Scene, name: str) -> Store:
    """Return an output on the local disk that nobody has used."""
    return scene.local_output(f"{name}-{len(list(scene.folder.iterdir())):04d}")


def ends(run: Run, *codes: int) -> list[str]:
    """Wait for the end of a run; say what was wrong with it."""
    try:
        code = run.wait()
    except TimeoutError as error:
        return [str(error)]
    if code not in codes:
        return [f"exit code {code}, expected {' or '.join(map(str, codes))}: {run.words()[-600:]!r}"]
    found = [word for word in NOISE if word in run.words()]
    return [f"it says {found[0]!r}, which means nothing to a user: {run.words()[-600:]!r}"] if found else []


def outcome_of(
    kind: str,
    times: int,
    scene: Scene,
    starts: Starter,
    faults: Sequence[str],
    poison: Poison | None = None,
) -> Outcome:
    """Judge what all starts over one output have left."""
    verdict = judge(scene, starts.output, poison)
    return Outcome(kind, times, scene.rows, verdict, starts.seconds - scene.seconds, faults=tuple(faults))
