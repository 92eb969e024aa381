"""Run a job from its settings to its report, for `triptych run`, `triptych retry` and each part of the demo.

Printing results and choosing exit codes are left to jobs/__main__.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.config import RunSettings, frozen_settings, output_at
from jobs.preset import resolve_presets
from jobs.progress import ProgressStyle, shown_progress
from jobs.report.writer import Report, write_report
from jobs.scoring.rules import MAIN_THREAD_ONLY
from jobs.vqa import VqaSettings
from pipeline import ConfigError, Store, dump_settings, ledger
from pipeline.retry import RetryResult, retry
from pipeline.run import RunResult, run


@dataclass(frozen=True)
class Outcome:
    """A finished run and its report."""

    result: RunResult
    report: Report


@dataclass(frozen=True)
class RetryOutcome:
    """A finished retry, the run's new report, and the share of rows that the run allows to fail."""

    retried: RetryResult
    report: Report
    max_failed_share: float


def run_and_report(
    settings: RunSettings, step: str = "", style: ProgressStyle = "auto", metrics_port: int | None = None
) -> Outcome:
    """Run a job over its input, or what is left of it, then write the report.

    Args:
        settings: Those of the run.
        step: What the run is called where it is one of several; one line of it stays on the terminal.
        style: See `jobs.progress.shown_progress`.
        metrics_port: See there.

    Raises:
        ConfigError: The settings cannot work; nothing has started.
        RunError: The run could not be finished.
        StorageError: The output cannot be read or written.
    """
    _refuse_rule_for_stored_answers(settings)
    settings = resolve_presets(settings)
    job = settings.job.build()
    with shown_progress(step or settings.job.kind, style, metrics_port, leaves_line=bool(step)) as show:
        result = run(settings, job, progress=show)
    return Outcome(result, write_report(Store(settings.write.uri, settings.write.storage), job, settings.read))


def _refuse_rule_for_stored_answers(settings: RunSettings) -> None:
    """Refuse the one rule that needs a main thread: workers score outside of theirs, `triptych score` does not."""
    if not isinstance(settings.job, VqaSettings):
        return
    rules = {f"job.benchmarks.{name}.rule": entry.rule for name, entry in settings.job.benchmarks.items()}
    faults = [
        f"{setting}: found {rule}, expected another rule: this one scores stored answers only, with `triptych score`"
        for setting, rule in {"job.rule": settings.job.rule, **rules}.items()
        if rule == MAIN_THREAD_ONLY
    ]
    if faults:
        raise ConfigError("the settings", faults)


def retry_and_report(
    uri: str, overrides: Sequence[str], style: ProgressStyle = "auto", metrics_port: int | None = None
) -> RetryOutcome:
    """Run the failed rows of a finished run again with its frozen settings, then write its report again.

    Args:
        uri: Its output.
        overrides: `dotted.key=value` each, of settings that change no answer.
        style: See `jobs.progress.shown_progress`.
        metrics_port: See there.

    Raises:
        ReportError: There is no run.
        ConfigError: The settings cannot work, or would give other answers; nothing has started.
        RunError: The run is not finished, or the retry could not be finished.
        StorageError: The output cannot be read or written.
    """
    settings = retry_settings(uri, overrides)
    job = settings.job.build()
    with shown_progress(f"{settings.job.kind}, failed rows again", style, metrics_port) as show:
        retried = retry(settings, job, progress=show)
    store = Store(settings.write.uri, settings.write.storage)
    return RetryOutcome(retried, write_report(store, job, settings.read), settings.limits.max_failed_share)


def retry_settings(uri: str, overrides: Sequence[str]) -> RunSettings:
    """Return the settings that a run froze in its output, with overrides that change no answer.

    Raises:
        ReportError: There is no run.
        ConfigError: An override is not `key=value`, or would change answers that are already there.
    """
    store = output_at(uri, overrides)
    settings = frozen_settings(store, overrides)
    ledger.refuse_other_settings(ledger.read_settings(store)["settings"], dump_settings(settings), store.uri)
    return settings
