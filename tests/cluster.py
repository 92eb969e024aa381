"""A real Ray cluster on this machine: every node is a `ray start` of its own, with a process group, ports and folders."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The head gives a node up after about five seconds of silence instead of half a minute.
QUICK_TO_NOTICE = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
OBJECT_STORE_BYTES = 120 * 2**20
START_S = 120.0


@dataclass(frozen=True)
class Node:
    """One started node.

    Attributes:
        process: The `ray start --block` that all of the node's processes belong to.
        cache: The node's own $TRIPTYCH_CACHE.
    """

    process: "subprocess.Popen[bytes]"
    cache: Path

    def kill(self) -> None:
        """End every process of the node at once, as pulling the plug would; workers have process groups of their own."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(process.name)) == self.process.pid:
                    os.kill(int(process.name), signal.SIGKILL)
        self.process.wait()


@dataclass
class Cluster:
    """A head and the nodes that were added to it."""

    folder: Path
    environment: Mapping[str, str]
    address: str = ""
    nodes: list[Node] = field(default_factory=list)

    def add(self, cpus: int, **environment: str) -> Node:
        """Start another node and wait until it has joined; the first one is the head.

        Ray allows itself 107 characters for the path of a socket, so the folders have short names.
        """
        number = len(self.nodes)
        cache = self.folder / f"cache{number}"
        if number == 0:
            where = ["--head", f"--port={_free_port()}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        else:
            where = [f"--address={self.address}"]
        options = [f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        command = [str(Path(sys.executable).with_name("ray")), "start", *where, *options, "--block"]
        log = self.folder / f"node{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env={**self.environment, "TRIPTYCH_CACHE": str(cache), **environment},
                start_new_session=True,
            )
        node = Node(process, cache)
        self.nodes.append(node)
        self._wait(node, log)
        if number == 0:
            port = next(option for option in where if option.startswith("--port=")).removeprefix("--port=")
            self.address = f"{_own_address(log)}:{port}"
        return node

    def stop(self) -> None:
        """End all nodes, the head last."""
        for node in reversed(self.nodes):
            node.kill()

    def _wait(self, node: Node, log: Path) -> None:
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a node did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)


@contextlib.contextmanager
def cluster(*cpus: int, **environment: str) -> Iterator[Cluster]:
    """Start a cluster whose nodes have these CPUs and this in their environment; all is gone after the block."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    started = Cluster(folder, {**bare, **QUICK_TO_NOTICE, "OMP_NUM_THREADS": "1", **environment})
    try:
        for each in cpus:
            started.add(each)
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _own_address(log: Path) -> str:
    """Return the address that the head calls its own."""
    return next(line.split()[-1] for line in log.read_text().splitlines() if "Local node IP:" in line)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
