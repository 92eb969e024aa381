"""Write whole files on a local disk: under a hidden name first, then in one step under their own.

A file is never seen half written. It knows paths, not uris.
"""

import contextlib
import errno
import functools
import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

UNFINISHED = re.compile(r"\.[^/]+\.(?P<machine>[0-9a-f]{12})-(?P<process>\d+)-[0-9a-f]{8}\.unfinished")
# What disks answer that know no hard links: FAT, SMB shares, some mounted buckets.
LINKLESS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
# Another driver may clear its probe's folders away between our making them and our writing there.
OPEN_TRIES = 20
COPIED_BYTES = 2**20


def link_new(path: str, data: bytes) -> bool:
    """Make a file unless there is one of this name; say whether it was made.

    On a disk without hard links the last of several simultaneous writers wins; see `has_links`.

    Raises:
        OSError: The disk has no room or no rights.
    """
    with _written(Path(path), [data]) as unfinished:
        try:
            os.link(unfinished, path)
        except FileExistsError:
            # NFS sends a link again whose reply was lost, and then refuses it because of itself.
            return os.stat(unfinished).st_nlink == 2
        except OSError as error:
            if error.errno not in LINKLESS:
                raise
            if os.path.exists(path):
                return False
            os.replace(unfinished, path)
    return True


def has_links(path: str) -> bool:
    """Say whether the disk that holds this file knows hard links, and so lets the first writer win."""
    other = f"{path}.{uuid.uuid4().hex}"
    try:
        os.link(path, other)
    except OSError as error:
        if error.errno not in LINKLESS:
            raise
        return False
    os.unlink(other)
    return True


def rename_over(path: str, data: bytes) -> None:
    """Make a file, in one step over an older one of its name."""
    with _written(Path(path), [data]) as unfinished:
        os.replace(unfinished, path)


def copy_over(path: str, source: str) -> None:
    """Make a file of another's content, in one step over an older one of its name."""
    with open(source, "rb") as file, _written(Path(path), iter(lambda: file.read(COPIED_BYTES), b"")) as unfinished:
        os.replace(unfinished, path)


def written_at(info: Mapping[str, Any]) -> str:
    """Return when a file of fsspec's listing was last written, in UTC; of a link, the file that it leads to."""
    moment = float(info["mtime"])
    if info["islink"]:  # a listing has the link's own time, a look-up the other
        with contextlib.suppress(OSError):
            moment = os.stat(info["name"]).st_mtime
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(moment))}.{int(moment % 1 * 10**6):06d}Z"


@contextlib.contextmanager
def leaving_no_folders(path: str) -> Iterator[None]:
    """Remove the folders above a file that are made meanwhile, as far as they are empty in the end."""
    new = [folder for folder in Path(path).parents if not os.path.exists(folder)]
    try:
        yield
    finally:
        for folder in new:
            with contextlib.suppress(OSError):  # not made, or another has put something there
                folder.rmdir()


def is_unfinished(name: str) -> bool:
    """Say whether a file name is one of a write that has not ended; listings leave those out."""
    return UNFINISHED.fullmatch(name) is not None


def unfinished_name(name: str) -> str:
    """Return a hidden name for a file that this process is about to write; it says whose it is."""
    return f".{name}.{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.unfinished"


def is_left_behind(name: str) -> bool:
    """Say whether an unfinished file's writer was a process of this machine that lives no more."""
    found = UNFINISHED.fullmatch(name)
    return found is not None and found["machine"] == machine() and not _lives(int(found["process"]))


def sweep(folder: str, older_than_s: float) -> int:
    """Remove what writers left that crashed: those of this machine, and any that is so old; return how many files."""
    num_removed = 0
    for path in Path(folder).rglob(".*.unfinished"):
        with contextlib.suppress(FileNotFoundError):  # its writer has ended meanwhile, well
            if is_left_behind(path.name) or (is_unfinished(path.name) and _age(path) >= older_than_s):
                path.unlink()
                num_removed += 1
    return num_removed


@functools.cache
def machine() -> str:
    """Return a name of what numbers the processes here: this machine since it started, or a container on it."""
    boot = process_space = ""  # where it is no Linux
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        process_space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {boot} {process_space}".encode()).hexdigest()[:12]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"  # killed, but its parent has not looked yet
    return True


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


@contextlib.contextmanager
def _written(path: Path, pieces: Iterable[bytes]) -> Iterator[Path]:
    unfinished = path.with_name(unfinished_name(path.name))
    try:
        with _opened(unfinished) as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _opened(path: Path) -> BinaryIO:
    """Open a new file, and make its folder."""
    for _ in range(OPEN_TRIES):
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("wb")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def with_links(
    found: Iterable[Mapping[str, Any]],
    root: str,
    is_wanted: Callable[[str], object] = bool,
    levels: int | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Put the files of linked folders in the place of the links in a listing; a folder that was seen is not again.

    Args:
        found: Files and links below `root`, as fsspec describes them.
        root: What was listed.
        is_wanted: Says of a path below `root` whether its file counts; a folder is seen where one of its files does.
        levels: How deep below `root` a file may lie, 1 beneath it; None for any depth.
    """
    above = f"{root.rstrip('/')}/"
    links: list[str] = []
    seen: set[str] = set()
    for info in found:
        if info["islink"] and os.path.isdir(info["name"]):
            links.append(info["name"])
        elif is_wanted(info["name"].removeprefix(above)):
            if not info["islink"]:
                seen.add(os.path.realpath(os.path.dirname(info["name"])))
            yield info
    for link in links:
        yield from _below_link(link, above, is_wanted, levels, seen)


def _below_link(
    link: str, above: str, is_wanted: Callable[[str], object], levels: int | None, seen: set[str]
) -> Iterator[Mapping[str, Any]]:
    walked: set[str] = set()  # links may lead back up
    for folder, names, files in os.walk(link, followlinks=True):
        place = os.path.realpath(folder)
        is_deepest = levels is not None and folder.removeprefix(above).count("/") + 2 >= levels
        names[:] = [] if is_deepest or place in walked else sorted(names)
        walked.add(place)
        paths = [path for name in files if is_wanted((path := os.path.join(folder, name)).removeprefix(above))]
        if not paths or place in seen:
            continue
        seen.add(place)
        for path in paths:
            with contextlib.suppress(OSError):  # a link to nothing, or gone meanwhile
                found = os.stat(path)
                yield {"name": path, "size": found.st_size, "type": "file", "islink": False, "mtime": found.st_mtime}


def holds_anything(folder: str) -> bool:
    """Say whether a folder is there and not empty, as one often is in whose place a disk is to be mounted."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
