"""Make a run's report from its output and put it there. It holds the order of things; each file here has its part."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.report.gallery import build_gallery
from jobs.report.numbers import numbers_of
from jobs.report.page import render_markdown, render_report, reproducing
from jobs.report.results import read_results
from jobs.report.shown import ShownJob, words_of
from pipeline import ReadSettings, Store, settings_by_source

NUMBERS = "_report/report.json"
PAGE = "_report/report.html"
SUMMARY = "_report/report.md"
CONFIG = "_report/config.yaml"
UNREAD = "_report/unread.jsonl"


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        numbers: The content of report.json.
        page: Where report.html stands.
    """

    numbers: Mapping[str, Any]
    page: str


def write_report(store: Store, job: ShownJob, read: ReadSettings) -> Report:
    """Write report.json, report.md, report.html and config.yaml of an output, over earlier ones.

    For a job that asks questions unread.jsonl lists the answers that could not be read. The gallery shows drawn
    pictures from the parts; for other jobs the input is read again for its images, and if that fails, the page says so
    in their place.

    Raises:
        ReportError: There are no results yet.
        StorageError: The output cannot be read or written.
    """
    results = read_results(store, job)
    numbers = numbers_of(results, job)
    gallery = build_gallery(results, settings_by_source(job, read), words_of(job))
    if results.gathered.unread is not None:
        store.replace(UNREAD, results.gathered.unread.lines())
    store.replace(CONFIG, reproducing(numbers).encode())
    store.replace(NUMBERS, json.dumps(numbers, indent=2, ensure_ascii=False).encode())
    store.replace(SUMMARY, render_markdown(numbers, job).encode())
    store.replace(PAGE, render_report(numbers, gallery, job).encode())
    return Report(numbers, store.name(PAGE))
