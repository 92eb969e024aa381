"""Show how far a run is on the error stream: a bar on a terminal, elsewhere a plain or JSON line every 30 s."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TextIO

from jobs.metrics import served_metrics
from pipeline.run import Progress, progress_numbers, repeated

if TYPE_CHECKING:
    from rich.console import Console

PERIOD_S = 30.0

ProgressStyle = Literal["auto", "bar", "lines", "json"]
Show = Callable[[Progress], None]


@dataclass
class Moment:
    """The latest that is known of a run.

    Attributes:
        name: Of the run, or of the demo's step.
        progress: None as long as settings, model and input are looked at.
        since: When that began, or the progress was told: seconds of the monotonic clock.
    """

    name: str
    progress: Progress | None
    since: float

    def numbers(self) -> dict[str, Any]:
        """Return what a JSON line says and Prometheus reads."""
        return {"name": self.name, **progress_numbers(self.progress, time.monotonic() - self.since)}

    def lines(self) -> list[str]:
        """Say it in one or two lines."""
        return describe(self.numbers())


@contextmanager
def shown_progress(
    name: str,
    style: ProgressStyle = "auto",
    metrics_port: int | None = None,
    *,
    leaves_line: bool = False,
    period_s: float = PERIOD_S,
) -> Iterator[Show]:
    """Give a callback for `pipeline.run.run` that shows each progress.

    Args:
        name: Stands before each line.
        style: A bar, plain lines, or JSON lines, the last one at the end; `auto` is a bar on a terminal, else lines.
        metrics_port: Where Prometheus may read the same numbers.
        leaves_line: Whether a last line stays when all is done.
        period_s: Time between two lines; they come even if nothing has changed.

    Raises:
        ConfigError: The port is taken.
    """
    from rich.console import Console  # here, because `triptych --help` does not need it

    moment, began = Moment(name, None, time.monotonic()), time.monotonic()
    console = Console(stderr=True)

    def show(progress: Progress) -> None:
        moment.progress, moment.since = progress, time.monotonic()

    with ExitStack() as stack:
        if metrics_port is not None:
            stack.enter_context(served_metrics(metrics_port, moment.numbers))
        if style == "bar" or (style == "auto" and console.is_interactive):
            stack.enter_context(_bar(moment, console))
        elif style == "json":
            say = partial(_say, lambda: json.dumps(moment.numbers()))
            # Who reads them gets the last numbers, too, however it ends; unless nothing has begun.
            stack.callback(lambda: moment.progress and say())
            stack.enter_context(repeated(say, period_s))
        else:
            say = partial(_say, lambda: f"{name}: {' · '.join(moment.lines())}")
            stack.enter_context(repeated(say, period_s))
        yield show
    if leaves_line:
        sys.stderr.write(f"{name}: {describe_end(moment.progress, time.monotonic() - began)}\n")


@contextmanager
def _bar(moment: Moment, console: "Console") -> Iterator[None]:
    """Keep a bar, and the numbers below it, at the bottom of the terminal; they vanish at the end."""
    from rich import progress as rich_progress
    from rich.console import RenderableType
    from rich.text import Text

    class BarAboveLines(rich_progress.Progress):
        """Lines of their own have room for all numbers in 80 columns, and wrap where there are fewer."""

        def get_renderables(self) -> Iterator[RenderableType]:
            for task in self.tasks:
                if moment.progress is not None:
                    task.total, task.completed = moment.progress.rows, moment.progress.done
            yield from super().get_renderables()
            yield Text("\n".join(moment.lines()))

    stderr = sys.stderr  # rich replaces it while the bar stands
    columns = (rich_progress.TextColumn("{task.description}", markup=False), rich_progress.BarColumn())
    with (
        BarAboveLines(*columns, console=console, transient=True, refresh_per_second=4) as bar,
        _logs_moved_from(stderr),
    ):
        # A second Ctrl-C ends the process at once, and would leave a hidden cursor hidden.
        console.show_cursor(True)
        bar.add_task(moment.name, total=None)
        yield


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


def _say(line: Callable[[], str]) -> None:
    sys.stderr.write(f"{line()}\n")
    sys.stderr.flush()


def describe(numbers: Mapping[str, Any]) -> list[str]:
    """Sum up a run's progress in one or two lines: rows, rates, failures, the time left and what holds it up.

    Args:
        numbers: See `pipeline.run.progress_numbers`.
    """
    so_far = clock(numbers["seconds"])
    if numbers["state"] == "looking":
        return [f"looking at the settings, the model and the input, {so_far}"]
    share = numbers["done"] / numbers["rows"] if numbers["rows"] else 1.0
    counts = [f"{numbers['done']:,} of {numbers['rows']:,} rows ({share:.0%})"]
    if numbers["state"] == "loading":
        return [" · ".join([*counts, f"loading the model, {so_far}"])]
    failed, elapsed = f"{numbers['failed']:,} failed", f"{so_far} so far"
    if numbers["seconds_left"] is None:
        return [" · ".join([*counts, elapsed, failed])]
    first = [*counts, f"{_rate(numbers['rows_per_s'])} rows/s", failed, f"{clock(numbers['seconds_left'])} left"]
    rates = f"{numbers['prompt_tokens_per_s']:,.0f} tokens/s read, {numbers['output_tokens_per_s']:,.0f} written"
    busy = [f"engine {numbers['busy']['engine']:.0%} busy"] if "engine" in numbers["busy"] else []
    return [" · ".join(first), " · ".join([elapsed, rates, *busy, f"{numbers['bottleneck']} takes longest"])]


def describe_end(progress: Progress | None, seconds: float) -> str:
    """Sum up a run that is done."""
    if progress is None or not progress.answered:
        return f"nothing was left to do, {clock(seconds)}"
    rate = _rate(progress.answered / seconds)
    return f"{progress.answered:,} rows in {clock(seconds)}, {rate} rows/s, {progress.failed:,} failed"


def clock(seconds: float) -> str:
    """Write a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
