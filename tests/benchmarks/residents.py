"""What the processes of a run hold in memory, second by second: their own pages, the object store, what was spilled.

Memory that processes share (the object store's) is counted once, as the store's.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20
STEPS = ("driver", "preprocess", "generate", "tasks", "ray")
# Ray writes its own numbers into its log folder as often as this says; there is no other way to them without extras.
EVERY_SECOND = {"RAY_debug_dump_period_milliseconds": "1000"}


@dataclass(frozen=True)
class Resident:
    """One look. Sizes in MiB; of a step, that of its largest process: how many there are is Ray's business.

    Attributes:
        seconds: Since the first look.
        rows: Committed so far.
        driver: This process.
        preprocess: Those that make rows ready.
        generate: Those that answer.
        tasks: Those that read and write.
        ray: Ray's own.
        store: Objects in the object store.
        spilled: Objects that were moved to the disk.
    """

    seconds: float
    rows: int
    driver: float
    preprocess: float
    generate: float
    tasks: float
    ray: float
    store: float
    spilled: float


class Residents:
    """Keeps what each look finds."""

    def __init__(self, rows: Callable[[], int], pids: Path, tell: Callable[[Resident], None]) -> None:
        """Begin with nothing seen.

        Args:
            rows: Says how many rows are committed.
            pids: A folder whose files are named by the processes that answer.
            tell: Called after each look.
        """
        self.seen: list[Resident] = []
        self._rows = rows
        self._pids = pids
        self._tell = tell
        self._actors: set[int] = set()
        self._started = time.monotonic()

    def look(self) -> None:
        """Look once."""
        store, spilled = _objects()
        sizes = dict.fromkeys(STEPS, 0.0)
        for pid, title in below(os.getpid()).items():
            step = self._step(pid, title)
            sizes[step] = max(sizes[step], own_mib(pid))
        seconds = round(time.monotonic() - self._started, 1)
        self.seen.append(Resident(seconds, self._rows(), store=store, spilled=spilled, **sizes))
        self._tell(self.seen[-1])

    def _step(self, pid: int, title: str) -> str:
        if pid == os.getpid():
            return "driver"
        if (self._pids / str(pid)).exists():
            return "generate"
        if not title.startswith("ray::"):
            return "ray"
        if "StepActor" in title:
            self._actors.add(pid)  # between two units its title is shorter
        return "preprocess" if pid in self._actors else "tasks"


@contextlib.contextmanager
def every(period_s: float, look: Callable[[], object]) -> Iterator[None]:
    """Call `look` again and again, on a thread, while a block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(period_s):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def own_mib(pid: int) -> float:
    """Return what a process holds for itself alone."""
    with contextlib.suppress(OSError):
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return round(int(found[1]) / 1024, 1) if found else 0.0
    return 0.0


def below(root: int) -> dict[int, str]:
    """Return this process and those below it, with their titles."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{name}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, todo = {}, [root]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        todo += children.get(pid, [])
    return found


def _objects() -> tuple[float, float]:
    """Return the object store's contents and what is spilled, as Ray wrote them down last."""
    import ray

    if not ray.is_initialized():
        return 0.0, 0.0
    node: Any = ray._private.worker._global_node  # set while Ray runs
    session = Path(node.get_session_dir_path())
    with contextlib.suppress(OSError):
        text = (session / "logs" / "debug_state.txt").read_text()
        sizes = [
            re.search(rf"- {name}: (\d+)", text) for name in ("pinned objects size", "num bytes currently spilled")
        ]
        if all(sizes):
            pinned, spilled = (int(size[1]) / MIB for size in sizes if size)
            return round(pinned, 1), round(spilled, 1)
    return 0.0, 0.0
