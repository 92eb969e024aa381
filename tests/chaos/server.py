"""The S3 server of the chaos suite: it can be held still, killed, and brought back on the ports that it had."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests import s3
from tests.chaos.processes import Process, session


class Server:
    """A SeaweedFS whose data outlives it.

    Attributes:
        endpoint: Where it listens, also after it was brought back.
    """

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._ports = s3.free_ports()
        self._running = contextlib.ExitStack()
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        """Bring it up, the first time or again; returns when it answers."""
        endpoint = self._running.enter_context(s3.server(self._binary, self._folder, self._ports))
        assert endpoint == self.endpoint

    def kill(self) -> None:
        """Kill -9 it."""
        self._running.close()

    def hold(self) -> None:
        """Stop it without a word: its connections stay open and nothing answers."""
        os.kill(self._process().pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self._process().pid, signal.SIGCONT)

    def _process(self) -> Process:
        mine = [one for one in session(os.getsid(0)) if f"-dir={self._folder}" in one.title]
        assert len(mine) == 1, f"found {len(mine)} servers of {self._folder}, expected one"
        return mine[0]


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """Run a server with the bucket `chaos` and what a user would have in the environment until the block ends."""
    binary = s3.weed()
    assert binary is not None
    folder.mkdir()
    server = Server(binary, folder)
    before = {name: os.environ.get(name) for name in s3.ENVIRONMENT}
    os.environ.update(s3.ENVIRONMENT)
    server.start()
    try:
        s3.make_bucket(server.endpoint, "chaos")
        yield server
    finally:
        server.kill()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
