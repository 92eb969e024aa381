"""Write whole files on a local disk: under a hidden name first, then in one step under their own.

A file is never seen half written. It knows paths, not uris.
"""

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = re.compile(r"\.[^/]+\.[0-9a-f]{32}\.unfinished")


def link_new(path: str, data: bytes) -> bool:
    """Make a file unless there is one of this name; say whether it was made.

    Raises:
        OSError: The disk has no room, no rights, or no hard links.
    """
    with _written(Path(path), data) as unfinished:
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return False
    return True


def rename_over(path: str, data: bytes) -> None:
    """Make a file, in one step over an older one of its name."""
    with _written(Path(path), data) as unfinished:
        os.replace(unfinished, path)


def is_unfinished(name: str) -> bool:
    """Say whether a file name is one of a write that has not ended; listings leave those out."""
    return UNFINISHED.fullmatch(name) is not None


def sweep(folder: str, older_than_s: float) -> int:
    """Remove what crashed writers left; return how many files. Younger ones stay: their writer may be alive."""
    leftovers = [path for path in Path(folder).rglob(".*.unfinished") if is_unfinished(path.name)]
    old = [path for path in leftovers if time.time() - path.stat().st_mtime >= older_than_s]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


@contextlib.contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)
