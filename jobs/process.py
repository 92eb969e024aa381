"""How the process of a command logs, and how it ends when it is interrupted."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C; the second of either ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)
        raise KeyboardInterrupt

    kept = {name: signal.signal(name, interrupt) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in kept.items():
            signal.signal(name, handler)


class _NotesAsSentences(logging.Formatter):
    """Leaves level and origin away where nothing is wrong."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if record.levelno == logging.INFO else super().format(record)


def set_up_logging(is_verbose: bool) -> None:
    """Say on stderr what goes wrong, and which layout the input has; with `is_verbose` all that happens."""
    form = "%(levelname)s %(name)s: %(message)s"
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(form) if is_verbose else _NotesAsSentences(form))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for told in ("pipeline.preflight.inputs", "pipeline.execution.slots"):  # the layout of the input; what a GPU holds
        logging.getLogger(told).setLevel(logging.INFO)
    if is_verbose:
        for room in ("jobs", "pipeline", "models"):
            logging.getLogger(room).setLevel(logging.DEBUG)
