"""One run from its settings to its report: what `triptych run` does, and the demo does several times.

It knows the order of things and decides nothing about exit codes or words for people.
"""

from dataclasses import dataclass

from jobs.config import RunSettings
from jobs.progress import shown_progress
from jobs.report.write import Report, write_report
from pipeline.run import RunResult, run
from pipeline.storage import Store


@dataclass(frozen=True)
class Outcome:
    """A finished run and its report."""

    result: RunResult
    report: Report


def run_and_report(settings: RunSettings) -> Outcome:
    """Run a job over its input, or what is left of it, then write the report.

    Raises:
        ConfigError: The settings cannot work; nothing has started.
        RunError: The run could not be finished.
        StorageError: The output cannot be read or written.
    """
    job = settings.job.build()
    with shown_progress(settings.job.kind) as show:
        result = run(settings, job, progress=show)
    return Outcome(result, write_report(Store(settings.write.uri, settings.write.storage), job, settings.read))
