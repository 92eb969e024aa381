"""Where the seconds go: what a step of the pipeline, or the engine within one, has been busy with.

It costs two clock readings a measurement. On a GPU a name gets the seconds until the host has waited for its results,
which the next name's first wait may share with it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by name, from any number of threads, until somebody takes them."""

    def __init__(self, prefix: str = "") -> None:
        """Start with none.

        Args:
            prefix: Stands before every name.
        """
        self._prefix = prefix
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to a name, whatever ends it."""
        name, started = self._prefix + name, time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Return the seconds since this was last asked, and start again from none."""
        with self._lock:
            seconds, self._seconds = self._seconds, {}
        return seconds
