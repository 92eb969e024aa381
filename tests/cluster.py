"""A real Ray cluster on this machine: every node is a `ray start` of its own, with its processes, ports and folders."""

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
        """End every process of the node at once, as pulling the plug would; its workers have groups of their own."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(process.name)) == self.process.pid:
                    os.kill(int(process.name), signal.SIGKILL)
        self.process.wait()


@dataclass
class Cluster:
    """A head and the nodes that were added to it; and the runs on it, each with a process group of its own."""

    folder: Path
    environment: Mapping[str, str]
    address: str = ""
    nodes: list[Node] = field(default_factory=list)
    runs: list["subprocess.Popen[str]"] = field(default_factory=list)

    def add(self, cpus: int, **environment: str) -> Node:
        """Start another node and wait until it has joined; the first one is the head.

        Ray allows itself 107 characters for the path of a socket, so the folders have short names.
        """
        number = len(self.nodes)
        cache = self.folder / f"cache{number}"
        if number == 0:
            where = ["--head", f"--port={_free_port()}", "--include-dashboard=false"]
        else:
            where = [f"--address={self.address}"]
        # With one folder for all, a node that joins would unpack the code anew under the hands of the others.
        where.append(f"--temp-dir={self.folder}/{number}")
        options = [f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        command = [str(Path(sys.executable).with_name("ray")), "start", *where, *options, "--block"]
        log = self.folder / f"node{number}.log"
        environment = {**self.environment, "TRIPTYCH_CACHE": str(cache), **environment}
        # Ray gives a node half a minute to start, however busy the machine is.
        node = self._start(command, environment, log, cache)
        for _ in range(2):
            node = node if self._is_up(node, log) else self._start(command, environment, log, cache)
        if not self._is_up(node, log):
            raise RuntimeError(f"a node did not start: {log.read_text()[-2000:]}")
        self.nodes.append(node)
        if number == 0:
            port = next(option for option in where if option.startswith("--port=")).removeprefix("--port=")
            self.address = f"{_own_address(log)}:{port}"
        return node

    def stop(self) -> None:
        """End all runs that still go on, then all nodes, the head last."""
        for run in self.runs:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.communicate()
        for node in reversed(self.nodes):
            node.kill()

    def _start(self, command: list[str], environment: Mapping[str, str], log: Path, cache: Path) -> Node:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=self.folder, env=environment, start_new_session=True
            )
        return Node(process, cache)

    def _is_up(self, node: Node, log: Path) -> bool:
        """Wait until a node runs or has given up."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and node.process.poll() is None:
            if "Ray runtime started" in log.read_text():
                return True
            time.sleep(0.2)
        node.kill()
        return False


@contextlib.contextmanager
def cluster(*cpus: int, **environment: str) -> Iterator[Cluster]:
    """Start a cluster whose nodes have these CPUs and this in their environment; all is gone after the block."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    folder = Path(tempfile.mkdtemp(prefix="r"))
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
