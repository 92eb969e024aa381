"""The text in which `triptych plan` says what a run will read, take and leave; the pipeline reckons it."""

from typing import Any

from jobs.console_text import failure_lines
from jobs.progress import clock
from pipeline.estimate import Estimate, StepTime

# Behind so many columns their list is cut off.
MOST_COLUMNS = 12
UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
ONE = {True: "GPU", False: "engine on a CPU"}


def plan_numbers(estimate: Estimate, price: float | None) -> dict[str, Any]:
    """Return an estimate as JSON has it, with what it costs.

    Args:
        estimate: What a run will take.
        price: Of an hour of one device, in any currency.
    """
    return {**estimate.numbers(), "cost": None if price is None else estimate.device_hours * price}


def plan_lines(estimate: Estimate, price: float | None) -> list[str]:
    """Say what a run will read, take and leave.

    Args:
        estimate: What it will take.
        price: Of an hour of one device, in any currency.
    """
    return [*_input_lines(estimate), *_sample_lines(estimate), *_time_lines(estimate), *_cost_lines(estimate, price)]


def _input_lines(estimate: Estimate) -> list[str]:
    formats = ", ".join(estimate.formats)
    names = list(estimate.columns)
    more = f" and {len(names) - MOST_COLUMNS} more" if len(names) > MOST_COLUMNS else ""
    left = "" if estimate.rows_left == estimate.rows else f", {estimate.rows_left:,} of them left to do"
    return [
        f"input: {estimate.rows:,} rows{left}, in {estimate.units:,} units of at most {estimate.unit_rows:,}; "
        f"{estimate.shards:,} files ({formats}), {size(estimate.input_bytes)}",
        f"columns: {', '.join(names[:MOST_COLUMNS])}{more}",
        *(f"warning: {warning}" for warning in estimate.warnings),
    ]


def _sample_lines(estimate: Estimate) -> list[str]:
    tokens = ", ".join(
        f"{name.removesuffix('_tokens')} {spread.mean:,.0f} (at most {spread.most:,})"
        for name, spread in estimate.tokens.items()
    )
    longest = estimate.tokens["prompt_tokens"].most
    odd = ", ".join(f"{count:,} x {what}" for what, count in estimate.oddities.items())
    return [
        f"sample: {estimate.sample_rows:,} rows from all over the input, timed for {clock(estimate.sample_seconds)}; "
        f"{estimate.failed_share:.1%} failed",
        *failure_lines(estimate.failures),
        *([f"odd in the sample, and settled: {odd}"] if odd else []),
        f"tokens a row: {tokens}",
        f"cache: it held {estimate.slots:,} slots of {estimate.max_length:,} tokens; the longest prompt of the sample "
        f"has {longest:,}",
    ]


def _time_lines(estimate: Estimate) -> list[str]:
    table = [("step", "at once", "s a row", "busy, all rows")]
    table += [(name, *_step(step)) for name, step in estimate.steps.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        *(
            "  " + "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in pairs)
            for pairs in (enumerate(zip(line, widths, strict=True)) for line in table)
        ),
        f"time: {clock(estimate.seconds)} expected "
        f"({clock(estimate.seconds_least)} to {clock(estimate.seconds_most)}), "
        f"{clock(estimate.start_seconds)} of it before the first rows are there; {estimate.rows_per_s:,.3g} rows/s; "
        f"{estimate.bottleneck} takes longest",
    ]


def _step(step: StepTime) -> tuple[str, str, str]:
    return str(step.actors or "any"), f"{step.seconds_per_row:.2g}", clock(step.seconds)


def _cost_lines(estimate: Estimate, price: float | None) -> list[str]:
    one = ONE[estimate.has_gpus]
    cost = "" if price is None else f", {estimate.device_hours * price:,.2f} at {price:g} an hour"
    return [
        f"devices: {estimate.devices:g} x {one}, {estimate.device_hours:,.2f} device-hours{cost}",
        f"output: about {size(estimate.output_bytes)}",
    ]


def size(count: int) -> str:
    """Write bytes as people do."""
    return next((f"{count / factor:,.1f} {unit}" for unit, factor in UNITS if count >= factor), f"{count:,} bytes")
