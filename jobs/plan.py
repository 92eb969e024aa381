"""The text in which `triptych plan` says what a run will read, take and leave; the pipeline reckons it."""

import time
from typing import Any

from jobs.console_text import failure_lines
from jobs.progress import clock
from jobs.report.formatting import amount, size
from pipeline import ledger
from pipeline.estimate import EngineMemory, Estimate, Pictures, StepTime

# Behind so many columns their list is cut off.
MOST_COLUMNS = 12
ONE = {True: "GPU", False: "engine on a CPU"}


def plan_numbers(estimate: Estimate, price: float | None) -> dict[str, Any]:
    """Return an estimate as JSON has it, with what it costs and the moment, which tells earlier starts from later ones.

    Args:
        estimate: What a run will take.
        price: Of an hour of one device, in any currency.
    """
    return {
        "made": time.strftime(ledger.UTC, time.gmtime()),
        **estimate.numbers(),
        "price_per_device_hour": price,
        "cost": None if price is None else estimate.device_hours * price,
    }


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
    odd = ", ".join(f"{count:,} x {what.replace('_', ' ')}" for what, count in estimate.oddities.items())
    return [
        f"sample: {estimate.sample_rows:,} rows from all over the input, timed for {clock(estimate.sample_seconds)}; "
        f"{estimate.failed_share:.1%} failed",
        *failure_lines(estimate.failures),
        *_picture_lines(estimate.pictures),
        *([f"odd in the sample, and settled: {odd}"] if odd else []),
        f"tokens a row: {tokens}",
        *(line for step in estimate.engines for line in _memory_lines(estimate, step)),
    ]


def _memory_lines(estimate: Estimate, step: str) -> list[str]:
    engine, which = estimate.engines[step], "" if step == "generate" else f" ({step})"
    longest = f"; the longest prompt of the sample has {estimate.tokens['prompt_tokens'].most:,}" if not which else ""
    beside = f", {size(engine.slots * engine.memory)} of images in all slots at most ({size(engine.memory)} each)"
    kept = f", {size(engine.kept_images)} of images seen lately at most"
    return [
        f"cache{which}: {size(engine.cache)}, {engine.slots:,} slots of {engine.max_length:,} tokens, "
        f"{size(engine.token)} a token{longest}",
        f"memory of an engine{which}: {size(engine.weights)} of weights, the cache{beside if engine.memory else ''}"
        f"{kept if engine.kept_images else ''}, {size(engine.kept_prefixes)} of prompts' beginnings that others share "
        f"at most: {size(engine.total)} in all; {_fit(engine)}",
    ]


def _fit(engine: EngineMemory) -> str:
    if engine.fits is None:
        return f"the sample was answered with it{f', {engine.why}' if engine.why else ''}"
    free = size(engine.free or 0)
    if engine.fits:
        return f"it fits: the nodes have {free} free"
    return (
        f"it DOES NOT FIT once every slot is filled: the nodes have {free} free; lower generate.slots or "
        "generate.max_length"
    )


def _picture_lines(pictures: Pictures | None) -> list[str]:
    if pictures is None:
        return []
    shares = [
        f"{'no image' if name == 'none' else name} {count / pictures.images:.0%}"
        for name, count in pictures.formats.items()
    ]
    least, median, most = (
        f"{width:,} x {height:,}"
        for width, height in (pictures.least_pixels, pictures.median_pixels, pictures.most_pixels)
    )
    return [
        f"images: of {pictures.images:,} of the sample {', '.join(shares)}; {least} to {most} pixels, median {median}; "
        f"{size(pictures.least_bytes)} to {size(pictures.most_bytes)}, median {size(pictures.median_bytes)}"
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
    cost = "" if price is None else f", {amount(estimate.device_hours * price, ',')} at {price:g} an hour"
    return [
        f"devices: {estimate.devices:g} x {one}, {amount(estimate.device_hours, ',')} device-hours{cost}",
        f"output: about {size(estimate.output_bytes)}",
    ]
