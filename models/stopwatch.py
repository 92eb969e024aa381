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
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, amount: float) -> None:
        """Add to a name; what is counted, and not measured, goes the same way."""
        name = self._prefix + name
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + amount

    def take(self) -> dict[str, float]:
        """Return the seconds since this was last asked, and start again from none."""
        with self._lock:
            seconds, self._seconds = self._seconds, {}
        return seconds
