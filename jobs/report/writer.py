"""Write the report of an output: after a run, or again later from the output alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.config import frozen_settings, output_at
from jobs.report.gallery import build_gallery
from jobs.report.job import ReportedJob, labels_of
from jobs.report.numbers import numbers_of
from jobs.report.outcome import keep_plan
from jobs.report.page import render_markdown, render_report, settings_yaml
from jobs.report.results import read_results
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
        page: The uri of report.html.
    """

    numbers: Mapping[str, Any]
    page: str


def write_report(store: Store, job: ReportedJob, read: ReadSettings, price: float | None = None) -> Report:
    """Write report.json, report.md, report.html and config.yaml of an output, over earlier ones.

    For a job that asks questions unread.jsonl lists the answers that could not be read. The gallery shows drawn
    pictures from the parts; for other jobs the input is read again for its images, and if that fails, the page says so
    in their place.

    Args:
        store: The output.
        job: The run's.
        read: How to reach its input.
        price: Of an hour of one device; None takes that of the plan that is kept beside the report, if any.

    Raises:
        ReportError: There are no results yet.
        StorageError: The output cannot be read or written.
    """
    results = read_results(store, job)
    numbers = numbers_of(results, job, price)
    gallery = build_gallery(results, settings_by_source(job, read), labels_of(job))
    if results.benchmarks is not None:
        store.replace(UNREAD, results.benchmarks.unread.lines())
    store.replace(CONFIG, settings_yaml(numbers).encode())
    store.replace(NUMBERS, json.dumps(numbers, indent=2, ensure_ascii=False).encode())
    store.replace(SUMMARY, render_markdown(numbers, job).encode())
    store.replace(PAGE, render_report(numbers, gallery, job).encode())
    return Report(numbers, store.name(PAGE))


def rewrite_report(uri: str, overrides: Sequence[str] = (), plan: str | None = None) -> Report:
    """Write the report of an output again, with the settings that its run has frozen there.

    Args:
        uri: The output, wherever it is now.
        overrides: `dotted.key=value` each, of settings that say how to reach the output, or the input for its images,
            and of `plan`.
        plan: A file with what `triptych plan --json` said. It is kept beside the report, and set against what the run
            did, in this report and in later ones.

    Raises:
        ReportError: There is no run, or it has no results yet.
        ConfigError: An override is wrong, or of another setting, or the file holds no plan.
        StorageError: The output cannot be read or written, or the plan not read.
    """
    output = output_at(uri, overrides, allowed=("read.storage", "write.storage", "plan"))
    settings = frozen_settings(output, overrides)
    if plan is not None:
        keep_plan(output, plan)
    return write_report(output, settings.job.build(), settings.read, settings.plan.price_per_device_hour)
