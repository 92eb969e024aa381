"""What a signal does to a process in which Ray runs: it ends the run as the program means it to, and is never lost."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

NAMES = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Keep what the program does when it is asked to end; Ray puts its own way, which ends at once, in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ended:  # asked in the middle of this: Ray has cleaned up after itself
        raise KeyboardInterrupt from ended
    finally:
        if callable(kept):
            signal.signal(signal.SIGTERM, kept)


@contextlib.contextmanager
def heard_signals() -> Iterator[Callable[[], None]]:
    """Give what raises KeyboardInterrupt if the program was asked to end before.

    Python raises it wherever the main thread is. If that is in code which Ray's core calls, as when it forgets an
    object, nobody hears of it and the run would go on.
    """
    is_asked = threading.Event()

    def check() -> None:
        if is_asked.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    kept = {name: handler for name in NAMES if callable(handler := signal.getsignal(name))}

    def note(number: int, frame: FrameType | None) -> None:
        is_asked.set()
        kept[signal.Signals(number)](number, frame)

    for name in kept:
        signal.signal(name, note)
    try:
        yield check
    finally:
        for name, handler in kept.items():
            if signal.getsignal(name) is note:  # else the first signal has changed what a second one does
                signal.signal(name, handler)
