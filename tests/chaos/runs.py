"""Start runs through the real command line, watch how far they are, and wait for their end."""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.storage.store import NotFound, Store
from tests.chaos import processes
from tests.chaos.scene import PART_ROWS, UNIT_ROWS, Scene

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ("-m", "jobs", "run")
# Generous: a machine that has much else to do is several times slower.
LIMIT_S = 900.0
PART = re.compile(r"part-\d{5,}\.parquet")


@dataclass
class Run:
    """One start of a run, in a session of its own.

    Attributes:
        process: Its first process, the driver.
        said: Where its words go.
        output: Where its results go.
        began: When it was started.
        seconds: How long it took, once it is over.
    """

    process: "subprocess.Popen[bytes]"
    said: Path
    output: Store
    began: float
    seconds: float = 0.0

    @property
    def pid(self) -> int:
        """Of the driver, and the number of the session."""
        return self.process.pid

    def wait(self) -> int:
        """Wait for its end and return the exit code.

        Raises:
            TimeoutError: It does not end.
        """
        try:
            code = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"the run did not end within {LIMIT_S:g} s; it said {self.words()!r}") from error
        self.seconds = time.monotonic() - self.began
        return code

    def words(self) -> str:
        """What it has printed so far, the end of it."""
        return self.said.read_text(errors="replace")[-3000:]


class Starter:
    """Starts runs over one output, one after the other or at once, and leaves no process behind."""

    def __init__(self, scene: Scene, output: Store, settings: Mapping[str, Any]) -> None:
        self._folder = scene.folder / f"runs-{len(list(scene.folder.iterdir())):04d}"
        self._folder.mkdir()
        self._config = self._folder / "config.yaml"
        self._config.write_text(json.dumps(settings))  # JSON is YAML
        self.output = output
        self.runs: list[Run] = []

    def start(self, command: Sequence[str] = COMMAND, environment: Mapping[str, str] | None = None) -> Run:
        """Start the same run once more."""
        said = self._folder / f"said-{len(self.runs)}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with said.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *command, str(self._config)],
                cwd=self._folder,
                env=inherited | ours | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.runs.append(Run(process, said, self.output, time.monotonic()))
        return self.runs[-1]

    @property
    def seconds(self) -> float:
        """How long all starts took together."""
        return sum(run.seconds for run in self.runs)

    def end(self) -> None:
        """Kill whatever is left of any start."""
        for run in self.runs:
            processes.end(run.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(10)


@contextlib.contextmanager
def starter(scene: Scene, output: Store, settings: Mapping[str, Any]) -> Iterator[Starter]:
    """Start runs over one output; when the block ends, none of their processes is left."""
    starts = Starter(scene, output, settings)
    try:
        yield starts
    finally:
        starts.end()


def rows_done(output: Store) -> int:
    """Count the rows that are committed in an output; -1 while there is no plan."""
    paths = [entry.path for entry in output.list()]
    if "_triptych/plan.parquet" not in paths:
        return -1
    parts = sum(PART.fullmatch(path) is not None for path in paths)
    units = sum(path.startswith("_triptych/units/") for path in paths)
    return parts * PART_ROWS + units * UNIT_ROWS


def wait_for_rows(run: Run, rows: int) -> int:
    """Wait until so many rows are committed, or the run is over, or it took too long; return how many there are."""
    deadline = time.monotonic() + LIMIT_S
    done = -1
    while time.monotonic() < deadline:
        with contextlib.suppress(NotFound):  # what was listed may be merged before it is looked at
            done = rows_done(run.output)
            if done >= rows or run.process.poll() is not None:
                return done
        time.sleep(0.05)
    return done


def moment(moments: random.Random, scene: Scene, done: int = 0, stretch: float = 0.7) -> int:
    """Choose at how many committed rows something shall happen: in the next `stretch` of the run, never at its end."""
    last = min(scene.rows - 2 * PART_ROWS, done + int(scene.rows * stretch))
    return moments.randrange(done + 1, max(done + 2, last))
