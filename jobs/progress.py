"""Show how far a run is: a live line on a terminal, a plain line every 30 s elsewhere. It knows numbers only."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.run import Progress

log = logging.getLogger(__name__)

PLAIN_PERIOD_S = 30.0


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Give a callback for `pipeline.run.run` that shows each progress in the way that the error stream allows."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines()
        return
    with Live(Text("starting: loading the model"), console=console, transient=True, refresh_per_second=4) as live:
        yield lambda progress: live.update(Text(line_of(progress)))


def _plain_lines() -> Callable[[Progress], None]:
    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_PERIOD_S:
            last = time.monotonic()
            sys.stderr.write(line_of(progress) + "\n")
            sys.stderr.flush()

    return show


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
