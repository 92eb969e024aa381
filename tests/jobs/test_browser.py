"""The pages in headless Chromium: nothing on the console, filter and search work, and texts of data stay texts."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from jobs.report.gallery import build_gallery
from jobs.report.job import labels_of
from jobs.report.numbers import numbers_of
from jobs.report.page import render_report
from jobs.report.results import read_results
from jobs.report.writer import write_report
from pipeline.execution.progress import Pace, Progress
from pipeline.input.units import ReadSettings
from pipeline.state import ledger
from tests.jobs.test_report import NASTY, gallery_of, output_of, questioned
from tests.jobs.test_report_plan import plan_of
from tests.jobs.test_view import output_to_view, served
from tests.screenshots import chromium, live_text, main

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@contextmanager
def opened(browser, address, width=1200, height=900, scheme="light"):
    """Open a page; at the end its console is empty, no script ran, and nothing was fetched from elsewhere."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, said, fetched = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(f"alert {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(address)
    yield page
    assert page.locator("script").count() == 0 and said == []
    start = address.split("?")[0].rsplit("/", 1)[0]
    assert [url for url in fetched if not url.startswith((start, "data:"))] == []
    context.close()


@pytest.fixture
def viewed(photos, tmp_path):
    return output_to_view(photos, str(tmp_path / "out"))


def test_rows_are_filtered_searched_and_turned(browser, viewed):
    with served(viewed[0]) as address, opened(browser, address) as page:
        assert page.locator("figure").count() == 24
        page.get_by_text("later").click()
        assert page.locator("figure").count() == 16
        page.get_by_label("rows").select_option("wrong")
        page.get_by_label("sorted by").select_option("least likely")
        page.get_by_role("button", name="show").click()
        assert page.locator("h1").inner_text() == "10 of 40 rows"
        keys = page.locator("p.key a").all_inner_texts()
        assert (keys[0], keys[-1]) == ("36.png", "00.png")
        page.get_by_label("text").fill("29.PNG")
        page.get_by_label("rows").select_option("")
        page.get_by_role("button", name="show").click()
        assert page.locator("h1").inner_text() == "1 of 40 rows"
        page.get_by_label("text").fill('"><img src=x onerror=alert(1)>')
        page.get_by_role("button", name="show").click()
        assert page.locator("h1").inner_text() == "0 of 40 rows"
        assert page.get_by_label("text").input_value() == '"><img src=x onerror=alert(1)>'


def test_a_row_is_shown_larger_with_its_hostile_text_as_text(browser, viewed):
    with served(viewed[0]) as address, opened(browser, address) as page:
        page.locator("a.images").nth(4).click()
        assert page.locator("h1").inner_text() == "04.png"
        assert NASTY in page.locator("table").inner_text()
        assert page.locator("p.large img").evaluate("image => image.complete && image.naturalWidth") == 20
        assert page.locator("p.large img").bounding_box()["width"] >= 300
        page.get_by_text("all rows").click()
        assert page.locator("figure").count() == 24


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_the_report_fits_its_window_and_runs_nothing(browser, viewed, photos, tmp_path, width, scheme):
    store, job = viewed
    results = read_results(store, job)
    gallery = build_gallery(results, {"": ReadSettings(uri=str(photos))}, labels_of(job))
    path = Path(tmp_path / "report.html")
    path.write_text(render_report(numbers_of(results, job), gallery, job), encoding="utf-8")
    with opened(browser, path.as_uri(), width, scheme=scheme) as page:
        assert page.locator("figure").count() == 24
        assert NASTY in page.locator("body").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_pictures_of_the_docs_come_out_the_same_from_one_output(browser, photos, tmp_path):
    store, job = output_to_view(photos, str(tmp_path / "demo/vqa"))
    write_report(store, job, ReadSettings(uri=str(photos)))
    pace = Pace(2.0, 600.0, 50.0, {"engine": 0.9, "prefill": 0.7}, "prefill")
    ended = Progress(rows=40, done=40, answered=40, answers=40, failed=1, seconds=20.0, pace=pace)
    ledger.write_attempt(store, "last", {**asdict(ended), "series": [[2.0, 8], [11.0, 24], [20.0, 40]]})
    shutil.copytree(tmp_path / "demo/vqa", tmp_path / "demo/caption")
    text = live_text(tmp_path / "demo")
    assert "caption: 40 rows in 0:20, 2.0 rows/s, 1 failed" in text
    assert "24 of 40 rows (60%) · 2.0 rows/s · 1 failed · 0:08 left" in text and "prefill takes longest" in text
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made.append(main(browser, tmp_path / "demo", tmp_path / name))
    assert [path.name for path in made[0]] == ["live.png", "report.png", "view.png"]
    for first, second in zip(*made, strict=True):
        assert first.read_bytes() == second.read_bytes()
        with Image.open(first) as image:
            assert image.width == 1000 and len(image.convert("RGB").getcolors()) > 8


# Of each text the contrast with what lies behind it (WCAG 2.2, relative luminance), where it is less than 4.5.
FAINT = """() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number)
  const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4
  const light = color => color.slice(0, 3).map(c => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0)
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = parts(getComputedStyle(element).backgroundColor)
      if (color.length === 3 || color[3] > 0) return color
    }
  }
  const says = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())
  return [...document.querySelectorAll('main *')].filter(says).flatMap(element => {
    const [one, other] = [light(parts(getComputedStyle(element).color)), light(behind(element))]
    const contrast = (Math.max(one, other) + .05) / (Math.min(one, other) + .05)
    return contrast < 4.5 ? [`${element.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`] : []
  })
}"""
WIDE_TABLES = (
    "[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)"
)


def full_page(photos, tmp_path):
    """Write a report with all that one may have: a course, a plan, near scores, failures; return its path."""
    job, part = questioned(photos)
    store = output_of(photos, job, part, warnings=["a.tar: ends in the middle of a member"])
    step_seconds = {"prefill": 47.2, "preprocess": 26.5, "idle": 7.5}
    series = [(10.0, 0), *((20.0 + second, 10 * second) for second in range(100))]
    held = {"placement": {"generate_most": 1, "generate_gpus": 0.0}, "series": series, "step_seconds": step_seconds}
    numbers = {"seconds": 120.0, "answered": 40, "output_tokens": 78, "first_seconds": 20.0, "ready_seconds": 10.0}
    for name in ("1", "2"):
        ledger.write_attempt(store, name, {**numbers, **held})
    store.replace("_report/plan.json", json.dumps(plan_of()).encode())
    numbers = numbers_of(read_results(store, job), job, price=1234.5)
    cell = {"n": 9000, "failed": 0, "unscored": 0}
    numbers["scores"]["b"]["by"] = {
        "the colour of the shape that stands on the left": {**cell, "score": 0.995, "low": 0.993, "high": 0.997},
        "yes/no": {**cell, "score": 0.999, "low": 0.998, "high": 1.0},
        "all": {**cell, "score": 1.0, "low": 0.9996, "high": 1.0},
    }
    path = tmp_path / "full.html"
    path.write_text(render_report(numbers, gallery_of(photos, job, part), job), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "light"), (400, "dark")])
def test_a_report_can_be_read_on_any_screen(browser, photos, tmp_path, width, scheme):
    with opened(browser, full_page(photos, tmp_path).as_uri(), width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(FAINT) == []
        assert page.evaluate(WIDE_TABLES) == [], "no table is to be moved sideways"
        for heading in ("Rows a second, over time", "Time of each step", "What the plan said", "Failures"):
            assert page.get_by_role("heading", name=heading).is_visible()
        tiles = page.locator(".tiles dd").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
        assert len(tiles) == 8 and max(tiles) <= 0


@pytest.mark.parametrize("width", [1200, 400])
def test_scores_near_all_right_are_told_apart(browser, photos, tmp_path, width):
    with opened(browser, full_page(photos, tmp_path).as_uri(), width) as page:
        marks = page.locator("table.cells .plot rect.bar").evaluate_all(
            "all => all.map(one => [one.getBoundingClientRect(), one.ownerSVGElement.getBoundingClientRect()])"
            ".map(([mark, plot]) => [mark.left - plot.left, plot.right - mark.right, mark.width])"
        )[:3]
        places = [left for left, _, _ in marks]
        assert places == sorted(places) and min(b - a for a, b in pairwise(places)) > 10
        assert all(right > -0.5 and size >= 2 for _, right, size in marks)
