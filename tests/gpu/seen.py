"""What a GPU would see: kernels that are launched, copies, and times when the host waits, with the product's lines."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import FrameType
from typing import Any

from torch import Tensor

LAUNCH, COPY, WAIT = "launch", "copy", "wait"
# A pageable copy to the device waits for it as well: the host's memory must have been read before it may change.
WAITING = (COPY, WAIT)


@dataclass(frozen=True)
class Seen:
    """One thing that a GPU would see.

    Attributes:
        kind: LAUNCH, COPY or WAIT.
        name: The operation.
        line: The product's line that asks for it.
        shapes: Of the tensors that a launch is given.
    """

    kind: str
    name: str
    line: str
    shapes: tuple[tuple[int, ...], ...] = ()


@dataclass
class Log:
    """What a GPU would see, in order."""

    seen: list[Seen] = field(default_factory=list)

    @property
    def num_launches(self) -> int:
        """How many kernels are launched."""
        return sum(one.kind == LAUNCH for one in self.seen)

    def waits(self) -> Counter[str]:
        """Count by line and operation how often the host waits."""
        return Counter(f"{one.line} {one.name}" for one in self.seen if one.kind in WAITING)

    def launches(self) -> Counter[str]:
        """Count launches by line and operation."""
        return Counter(f"{one.line} {one.name}" for one in self.seen if one.kind == LAUNCH)


_logs: list[Log] = []


@contextmanager
def watched() -> Iterator[Log]:
    """Log what a GPU sees meanwhile."""
    log = Log()
    _logs.append(log)
    try:
        yield log
    finally:
        _logs.remove(log)


def note(kind: str, name: str, given: Any = ()) -> None:
    if _logs:
        shapes = tuple(tuple(one.shape) for one in tensors_in(given))
        for log in _logs:
            log.seen.append(Seen(kind, name, _line(), shapes))


def _line() -> str:
    """Return the innermost line of the product, as engine/engine.py:210."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if file := _file(frame.f_code.co_filename):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


@cache
def _file(path: str) -> str:
    """Return a file's path below `models`, or nothing for one of another room."""
    folder, _, file = path.rpartition("/models/")
    return "" if "site-packages" in folder or folder.endswith("/tests") else file if folder else ""


def tensors_in(given: Any) -> list[Tensor]:
    """Return the tensors among arguments, those in lists too."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict):
        given = given.values()
    elif not isinstance(given, (list, tuple)):
        return []
    return [tensor for one in given for tensor in tensors_in(one)]
