"""Numbers and a gallery drawn as one HTML file that needs nothing but a browser, and as Markdown. It computes nothing.

All text of rows is escaped; style and images stand inside the file.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from jobs.report.formatting import (
    PLANNED,
    amount,
    count,
    duration,
    hundredths,
    measured,
    off,
    percent,
    planned,
    points,
    rate,
    scored,
    size,
)
from jobs.report.gallery import Gallery
from jobs.report.job import ReportedJob, labels_of
from jobs.report.texts import RULES

# What decoding makes of the oddities that models.images.silent_conversions names.
SETTLED = {
    "exif_turned": "turned upright, as its EXIF data say",
    "cmyk": "converted to RGB",
    "palette": "its palette was resolved",
    "gray": "gray became equal red, green and blue",
    "transparent": "laid on white",
    "sixteen_bit": "the high byte of each sample was kept",
    "color_profile": "colours were taken as they stand; the profile was not applied",
    "animated": "only the first frame was seen",
    "several_pictures": "only the first picture in the file was seen",
}
INTERVALS = {
    "wilson": "Wilson",
    "t": "Student's t",
    "clustered t": "Student's t, clustered",
    "bootstrap": "bootstrap",
}
STATUSES = {
    "ok": "were read",
    "failed": "could not be read",
    "refused": "refuse",
    "empty": "are empty",
    "truncated": "were cut off",
}
STEPS = {
    "read": "read: rows and images from the store",
    "preprocess": "preprocess: images to tiles, texts to tokens",
    "encode": "encode: looking at images",
    "prefill": "prefill: reading prompts",
    "decode": "decode: writing tokens",
    "paint": "paint: pixels of drawn pictures",
    "write": "write: units to the store",
    "idle": "engines waiting for something to do",
}
SPREADS = {
    "prompt_tokens": "tokens read, a row",
    "image_tokens": "of them from images",
    "output_tokens": "tokens written, a row",
    "words": "words, a text",
}
# Where a breakdown's axis may begin: below all that it shows.
AXIS_STARTS = (0.99, 0.98, 0.95, 0.9, 0.8, 0.5)
# A cell of a breakdown with fewer rows says little.
FEW_ROWS = 30
# More benchmarks are only counted in the headline.
MOST_NAMED = 3
# Longer breakdowns are folded up.
MOST_OPEN_CELLS = 12


def render_report(numbers: Mapping[str, Any], gallery: Gallery, job: ReportedJob) -> str:
    """Draw a run's report as a page."""
    return render("page.html", gallery=gallery, card_lines=job.card_lines, **_values(numbers, job))


def render_markdown(numbers: Mapping[str, Any], job: ReportedJob) -> str:
    """Write a run's numbers as Markdown, to be pasted into an issue or a pull request."""
    return render("report.md", **_values(numbers, job))


def render(template: str, **values: Any) -> str:
    """Fill one of this folder's templates, or `view/` one of jobs/view."""
    return _environment(template.endswith(".html")).get_template(template).render(style=page_style(), **values)


def page_style() -> Markup:
    """Return what stands in a page's `style`."""
    return Markup(_text("page.css"))  # ours, and it holds no markup


def settings_yaml(numbers: Mapping[str, Any]) -> str:
    """Return a run's settings as a YAML file for `triptych run`."""
    return yaml.safe_dump(numbers["settings"], sort_keys=False, allow_unicode=True)


def _values(numbers: Mapping[str, Any], job: ReportedJob) -> dict[str, Any]:
    settings = numbers["settings"]
    return {
        "title": job.title if len(numbers["scores"]) <= MOST_NAMED else f"Answers: {len(numbers['scores'])} benchmarks",
        "numbers": numbers,
        "settings": settings,
        "settings_yaml": settings_yaml(numbers),
        "group_by": settings["job"].get("group_by"),
        "benchmarks": settings["job"].get("benchmarks"),
        "answers_questions": "caveats" in numbers,
        "labels": labels_of(job),
        "pictures": numbers.get("pictures"),
        "settled": SETTLED,
        "intervals": INTERVALS,
        "statuses": STATUSES,
        "percent": percent,
        "hundredths": hundredths,
        "decoding": _decoding(settings.get("generate", {}).get("sampling", {})),
        "few_rows": FEW_ROWS,
        "steps": STEPS,
        "spreads": SPREADS,
        "text_rules": RULES,
        "planned_lines": PLANNED,
        "most_open_cells": MOST_OPEN_CELLS,
    }


def axis_start(cells: Mapping[str, Mapping[str, Any]]) -> float:
    """Return where the axis of a breakdown begins: at 0, or higher if all cells with their intervals lie higher."""
    scored_cells = [cell for cell in cells.values() if cell["score"] is not None]
    lows = [cell["score"] if cell["low"] is None else cell["low"] for cell in scored_cells]
    return next((start for start in AXIS_STARTS if lows and min(lows) >= start), 0.0)


def _decoding(sampling: Mapping[str, Any]) -> str:
    """Say how tokens were chosen, and the most of them where the run, not its benchmarks, sets it."""
    names = ("temperature", "top_k", "top_p", "seed") if sampling.get("temperature") else ()
    choices = [
        f"{name.replace('_', ' ')} {sampling[name]}"
        for name in (*names, "max_new_tokens")
        if sampling.get(name) is not None
    ]
    return ", ".join(["sampled" if names else "greedy", *choices])


@cache
def _environment(is_page: bool) -> Environment:
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=is_page, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["axis_start"] = axis_start
    numbers = [amount, count, duration, measured, off, percent, planned, points, rate, scored, size]
    environment.filters |= {write.__name__: write for write in numbers}
    environment.filters |= {"cell": _cell, "code": _code, "fenced": _fenced}
    return environment


def _cell(text: object) -> str:
    """Make a text one cell of a Markdown table, in which nothing of it is markup."""
    words = " ".join(str(text).split())
    return "".join(f"\\{mark}" if mark in "\\`*_{}[]<>|#~$@" else mark for mark in words)


def _code(text: object) -> str:
    """Make a text one cell of a Markdown table, as code."""
    words = " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{words}`" if words else ""


def _fenced(text: str) -> str:
    """Put a text between fences that it does not hold itself."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}yaml\n{text}{fence}"


def _text(name: str) -> str:
    room, _, file = name.rpartition("/")
    return (resources.files(f"jobs.{room or 'report'}") / file).read_text(encoding="utf-8")
