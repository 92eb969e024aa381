"""Find the processes of one run, and those of one step among them, and kill them. It knows titles, not rows.

Everything that a run starts stays in the session of its first process, whoever its parent is in the end; so no process
of anybody else is ever touched.
"""

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass

# What Ray calls a process that is busy with a step at this moment; one that waits for work has a shorter title. An
# engine has several units in hand, and the shorter title as soon as one of them is done.
BUSY = {
    "read": "read_block",
    "preprocess": "StepActor)).submit",
    "generate": "StepActor))",
    "write": "commit_block",
}
# The one thing that tells the two actors apart: preparing rows never loads torch.
HAS_TORCH = {"preprocess": False, "generate": True}


@dataclass(frozen=True)
class Process:
    """One process of a session.

    Attributes:
        pid: Its number.
        title: What it calls itself.
    """

    pid: int
    title: str


def session(leader: int) -> list[Process]:
    """List the living processes that `leader`, or one of its own, has started, itself included."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [Process(pid, _title(pid)) for pid in pids if _session_of(pid) == leader]


def kill_busy(leader: int, step: str, moments: random.Random, limit_s: float) -> Process:
    """Kill -9 a process of the session while it works on a step.

    Raises:
        LookupError: None was met at work.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and _is_alive(leader):
        if killed := _kill_one_of(session(leader), step, moments):
            return killed
    titles = sorted({one.title[:80] for one in session(leader) if "ray::" in one.title})
    raise LookupError(f"met no process at work on {step!r} within {limit_s:g} s; there were {titles}")


def _kill_one_of(known: list[Process], step: str, moments: random.Random) -> Process | None:
    """Watch these processes closely for a second: some steps last only milliseconds."""
    workers = [one.pid for one in known if one.title.startswith("ray::")]
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        moments.shuffle(workers)
        for pid in workers:
            one = Process(pid, _title(pid))
            if is_busy(one, step) and _kill_if_still_busy(pid, step):
                return one
        time.sleep(0.002)
    return None


def is_busy(one: Process, step: str) -> bool:
    """Say whether a process works on a step."""
    if not one.title.startswith("ray::") or BUSY[step] not in one.title:
        return False
    return step not in HAS_TORCH or HAS_TORCH[step] == _has_torch(one.pid)


def end(leader: int) -> int:
    """Kill what is left of a session; return how many processes that were."""
    left = session(leader)
    for one in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    return len(left)


def _kill_if_still_busy(pid: int, step: str) -> bool:
    # Held still first: between the look and the kill it might have gone on to something else.
    try:
        os.kill(pid, signal.SIGSTOP)
        is_hit = is_busy(Process(pid, _title(pid)), step)
        os.kill(pid, signal.SIGKILL if is_hit else signal.SIGCONT)
    except ProcessLookupError:
        return False
    return is_hit


def _is_alive(pid: int) -> bool:
    return _session_of(pid) == pid


def _title(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _session_of(pid: int) -> int:
    """Return the session of a process; 0 for one that is gone or only waits to be forgotten."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        state, _, _, number = file.read().rsplit(")", 1)[1].split()[:4]
        return 0 if state in "ZX" else int(number)
    return 0


def _has_torch(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        return "libtorch" in file.read()
    return False
