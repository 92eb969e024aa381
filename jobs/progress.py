"""Show how far a run is: a live line on a terminal, a plain line every 30 s elsewhere. It knows numbers only."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.execution.attempt import Progress

PLAIN_PERIOD_S = 30.0
STARTING = "starting, loading the model"

Show = Callable[[Progress], None]


@contextmanager
def shown_progress(job: str, plain_period_s: float = PLAIN_PERIOD_S) -> Iterator[Show]:
    """Give a callback for `pipeline.run.run` that shows each progress in the way that the error stream allows.

    Args:
        job: Stands before each line.
        plain_period_s: Time between two lines where there is no terminal; they come even if nothing has changed.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        with _plain_lines(job, plain_period_s) as show:
            yield show
        return
    with Live(Text(f"{job}: {STARTING}"), console=console, transient=True, refresh_per_second=4) as live:
        yield lambda progress: live.update(Text(f"{job}: {line_of(progress)}"))


@contextmanager
def _plain_lines(job: str, period_s: float) -> Iterator[Show]:
    line = STARTING
    is_over = threading.Event()

    def show(progress: Progress) -> None:
        nonlocal line
        line = line_of(progress)

    def write() -> None:
        while not is_over.wait(period_s):
            sys.stderr.write(f"{job}: {line}\n")
            sys.stderr.flush()

    writer = threading.Thread(target=write, name="progress", daemon=True)
    writer.start()
    try:
        yield show
    finally:
        is_over.set()
        writer.join()


def line_of(progress: Progress) -> str:
    """Say in one line how far a run is, how fast, and how long it may still take."""
    share = progress.done / progress.rows if progress.rows else 1.0
    words = [f"{progress.done:,} of {progress.rows:,} rows ({share:.0%})"]
    if progress.answered and progress.seconds:
        rate = progress.answered / progress.seconds
        words += [f"{rate:,.1f} rows/s", f"{progress.output_tokens / progress.seconds:,.0f} tokens/s"]
        words.append(f"{progress.failed:,} failed")
        words.append(f"{_clock((progress.rows - progress.done) / rate)} left")
    return " · ".join(words)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
