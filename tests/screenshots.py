"""Make the pictures of docs/images again from a demo's output: `python -m tests.screenshots [demo_output]`.

It needs what `make demo` has left and Chromium (`make browser`). The report and the rows are its pages as they are; the
live line is what `triptych demo` wrote to a terminal half way through its questions, drawn by the same code from the
numbers that the run wrote down. From one output the pictures come out the same each time; where paths begin above the
folder of the output, they are cut, so that no machine shows.
"""

import argparse
import io
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from rich.console import Console
from rich.text import Text

from jobs.progress import describe_end, shown_progress
from pipeline.execution.progress import Pace, Progress
from pipeline.storage.store import Store
from tests.jobs.test_view import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parent.parent / "docs" / "images"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
BEFORE, ASKED = "caption", "vqa"  # the demo's first run, which has left its line, and the one that is looked at
WIDTH, TERMINAL_COLUMNS = 1000, 96
COLOURS = 64
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 16px 20px; background: #1b1d20; color: #dcd9d2 }}
pre {{ margin: 0; font: 15px/1.5 "DejaVu Sans Mono", monospace }}
</style><pre>{code}</pre>"""
CUT_PATHS = """start => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(start, "");
}"""


@contextmanager
def chromium() -> "Iterator[Browser]":
    """Start the browser that is installed."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert path, f"found none of {', '.join(CHROMIUM)}; `make browser` installs Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def progress_of(output: Path) -> Progress:
    """Return the progress that the last start of a run wrote down at its end."""
    *_, last = sorted((output / "_triptych/attempts").glob("*.json"))
    return _progress(json.loads(last.read_text()))


def half_way(output: Path) -> Progress:
    """Return how far a run was when half of its rows were done, at the rates that it wrote down at its end."""
    *_, last = sorted((output / "_triptych/attempts").glob("*.json"))
    numbers = json.loads(last.read_text())
    seconds, answered = next(point for point in numbers["series"] if 2 * point[1] >= numbers["rows"])
    return replace(_progress(numbers), done=answered, answered=answered, seconds=seconds)


def _progress(numbers: Mapping[str, Any]) -> Progress:
    known = {field.name: numbers[field.name] for field in fields(Progress)}
    return Progress(**{**known, "pace": numbers["pace"] and Pace(**numbers["pace"])})


def live_text(demo: Path) -> str:
    """Return what stands on a terminal half way through the demo's questions, with its colours as ANSI codes."""
    before = progress_of(demo / BEFORE)
    bar = _bar_of(half_way(demo / ASKED))
    return f"$ triptych demo\n{BEFORE}: {describe_end(before, before.seconds)}\n{bar}"


def _bar_of(progress: Progress) -> str:
    """Return the bar with the lines below it, as the terminal gets them."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setattr("jobs.progress.time", SimpleNamespace(monotonic=lambda: 0.0))  # no second passes
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(TERMINAL_COLUMNS), "LINES": "24"}.items():
            patch.setenv(name, value)
        with shown_progress(ASKED, "bar") as show:
            show(progress)
            threading.Event().wait(0.6)  # until it has been drawn
    frames = re.split(r"(?:\r?\x1b\[(?:2K|1A|\?25[hl]))+", terminal.getvalue())
    *_, drawn = (frame for frame in frames if " rows (" in frame)
    return drawn.strip("\r\n")


def terminal_page(text: str) -> str:
    """Return a page that shows a text with ANSI codes as a terminal does."""
    console = Console(record=True, width=TERMINAL_COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(text))
    return console.export_html(inline_styles=True, code_format=TERMINAL)


def take(page: "Page", path: Path, start: str) -> None:
    """Store a picture of a page, without the beginnings of paths; a few colours are enough for it."""
    page.evaluate(CUT_PATHS, start)
    few = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main(browser: "Browser", demo: Path, to: Path) -> list[Path]:
    """Make all pictures; return where they are."""
    start = f"{demo.resolve().parent}/"
    report = demo.resolve() / ASKED / "_report/report.html"
    with served(Store(str(demo.resolve() / ASKED))) as address:
        sizes = {"live": 132, "report": 1500, "view": 640}
        paths = {name: to / f"{name}.png" for name in sizes}
        for name, height in sizes.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
            if name == "live":
                page.set_content(terminal_page(live_text(demo)))
            else:
                page.goto(report.as_uri() if name == "report" else f"{address}?verdict=wrong&sort=least+likely")
            take(page, paths[name], start)
            page.close()
    return list(paths.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, nargs="?", default=Path("demo_output"), help="what `triptych demo` has left")
    parser.add_argument("--to", type=Path, default=IMAGES, help="another folder for the pictures")
    arguments = parser.parse_args()
    with chromium() as running:
        for path in main(running, arguments.demo, arguments.to):
            print(path)
