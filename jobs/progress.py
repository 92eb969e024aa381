"""Show how far a run is on the error stream: a progress bar on a terminal, elsewhere a plain line every 30 s."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from pipeline.run import Progress

if TYPE_CHECKING:
    from rich.console import Console

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
    from rich.console import Console  # here, because `triptych --help` does not need it

    console = Console(stderr=True)
    with _progress_bar(job, console) if console.is_interactive else _plain_lines(job, plain_period_s) as show:
        yield show


@contextmanager
def _progress_bar(job: str, console: "Console") -> Iterator[Show]:
    """Keep a bar, and the numbers below it, at the bottom of the terminal; they vanish at the end."""
    from rich import progress as rich_progress
    from rich.console import RenderableType
    from rich.text import Text

    class BarAboveLine(rich_progress.Progress):
        """A line of its own has room for all numbers in 80 columns, and wraps where there are fewer."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            yield from (Text(task.fields["line"]) for task in self.tasks)

    stderr = sys.stderr  # rich replaces it while the bar stands
    columns = (rich_progress.TextColumn("{task.description}", markup=False), rich_progress.BarColumn())
    with BarAboveLine(*columns, console=console, transient=True, refresh_per_second=4) as bar, _logs_moved_from(stderr):
        # A second Ctrl-C ends the process at once, and would leave a hidden cursor hidden.
        console.show_cursor(True)
        task = bar.add_task(job, total=None, line=STARTING)
        yield lambda progress: bar.update(task, total=progress.rows, completed=progress.done, line=line_of(progress))


@contextmanager
def _logs_moved_from(stream: TextIO) -> Iterator[None]:
    """Have log handlers write to the present `sys.stderr`, which puts their lines above the bar."""
    handlers = [h for h in logging.root.handlers if isinstance(h, logging.StreamHandler) and h.stream is stream]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(stream)


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
    """Sum up a run's progress in one line: rows, rates, failures and the time left."""
    share = progress.done / progress.rows if progress.rows else 1.0
    parts = [f"{progress.done:,} of {progress.rows:,} rows ({share:.0%})"]
    if progress.answered and progress.seconds:
        rate = progress.answered / progress.seconds
        parts += [f"{rate:,.1f} rows/s", f"{progress.output_tokens / progress.seconds:,.0f} tokens/s"]
        parts.append(f"{progress.failed:,} failed")
        parts.append(f"{_clock((progress.rows - progress.done) / rate)} left")
    return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
