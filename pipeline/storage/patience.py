"""Ask a store that stumbles again, with growing pauses, until patience ends; say once in a while that we wait.

It knows errors and clocks; what is asked, and of whom, its callers know.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.redaction import redacted
from pipeline.storage.faults import StorageError, describe, harmless, is_transient, storage_error, unreachable

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
WARNING_INTERVAL_S = 30.0

# Many threads of a process wait for the same store; one of them says so. Store -> when it was last said.
_warned: dict[str, float] = {}
_warned_lock = threading.Lock()


def patiently(operation: Callable[[], T], what: str, store: str, patience_s: float) -> T:
    """Run an operation that may be repeated; repeat it while it fails for reasons that may pass.

    Args:
        operation: May run several times.
        what: Its name in messages, as `cannot read s3://bucket/key`.
        store: Whom it asks; there is one warning per store and `WARNING_INTERVAL_S` while it does not answer.
        patience_s: How long after the first failure it is still begun again.

    Raises:
        StorageError: It failed for good, or is `Unreachable` after all patience.
    """
    failing_since: float | None = None
    pause = FIRST_PAUSE_S
    while True:
        try:
            answer = operation()
        except StorageError:
            raise
        except Exception as error:  # every fsspec back end has its own family of errors
            if not is_transient(error):
                raise storage_error(what, error) from harmless(error)
            failing_since = failing_since or time.monotonic()
            waited_s = time.monotonic() - failing_since
            if waited_s + pause > patience_s:
                raise unreachable(what, error, waited_s) from harmless(error)
            say_waiting(store, waited_s, error)
        else:
            if failing_since is not None:
                say_answered(store, time.monotonic() - failing_since)
            return answer
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, LONGEST_PAUSE_S)


def say_waiting(store: str, waited_s: float, error: BaseException) -> None:
    """Warn that a store does not answer, unless that is new or was said a short while ago."""
    if waited_s < WARNING_INTERVAL_S:
        return
    with _warned_lock:
        now = time.monotonic()
        if now - _warned.get(store, -WARNING_INTERVAL_S) < WARNING_INTERVAL_S:
            return
        _warned[store] = now
    log.warning("%s has not answered for %.0f s; trying again: %s", redacted(store), waited_s, describe(error))


def say_answered(store: str, waited_s: float) -> None:
    """Tell that a store answers again, if it was told that it did not."""
    with _warned_lock:
        was_warned = _warned.pop(store, None) is not None
    if was_warned:
        log.warning("%s answers again, after %.0f s", redacted(store), waited_s)
