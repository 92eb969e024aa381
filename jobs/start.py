"""One run from its settings to its report: what `triptych run` and `triptych retry` do, and the demo several times.

It knows the order of things and decides nothing about exit codes or words for people.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.config import RunSettings, frozen_settings, output_at
from jobs.preset import settle_preset
from jobs.progress import shown_progress
from jobs.report.write import Report, write_report
from jobs.scoring.rules import MAIN_THREAD_ONLY
from jobs.vqa import VqaSettings
from pipeline.retry import RetryResult, retry
from pipeline.run import RunResult, run
from pipeline.settings import ConfigError, dump_settings
from pipeline.state import ledger
from pipeline.storage.store import Store


@dataclass(frozen=True)
class Outcome:
    """A finished run and its report."""

    result: RunResult
    report: Report


@dataclass(frozen=True)
class RetryOutcome:
    """A finished retry, the run's report with what came of it, and what the run allows to fail."""

    retried: RetryResult
    report: Report
    max_failed_share: float


def run_and_report(settings: RunSettings) -> Outcome:
    """Run a job over its input, or what is left of it, then write the report.

    Raises:
        ConfigError: The settings cannot work; nothing has started.
        RunError: The run could not be finished.
        StorageError: The output cannot be read or written.
    """
    _refuse_rules_for_later(settings)
    settings = settle_preset(settings)
    job = settings.job.build()
    with shown_progress(settings.job.kind) as show:
        result = run(settings, job, progress=show)
    return Outcome(result, write_report(Store(settings.write.uri, settings.write.storage), job, settings.read))


def _refuse_rules_for_later(settings: RunSettings) -> None:
    """Refuse the one rule that only `triptych score` can score by: workers do so outside of their main threads."""
    if not isinstance(settings.job, VqaSettings):
        return
    rules = {f"job.benchmarks.{name}.rule": entry.rule for name, entry in settings.job.benchmarks.items()}
    faults = [
        f"{where}: found {rule}, expected a rule for answers as they come; `triptych score` scores by it afterwards"
        for where, rule in {"job.rule": settings.job.rule, **rules}.items()
        if rule == MAIN_THREAD_ONLY
    ]
    if faults:
        raise ConfigError("the settings", faults)


def retry_and_report(uri: str, overrides: Sequence[str]) -> RetryOutcome:
    """Run the failed rows of a finished run again with the settings that it has frozen, then write its report anew.

    Args:
        uri: Its output.
        overrides: `dotted.key=value` each, of settings that change no answer.

    Raises:
        ReportError: There is no run.
        ConfigError: The settings cannot work, or would give other answers; nothing has started.
        RunError: The run is not finished, or the retry could not be.
        StorageError: The output cannot be read or written.
    """
    settings = retry_settings(uri, overrides)
    job = settings.job.build()
    with shown_progress(f"{settings.job.kind}, failed rows again") as show:
        retried = retry(settings, job, progress=show)
    store = Store(settings.write.uri, settings.write.storage)
    return RetryOutcome(retried, write_report(store, job, settings.read), settings.limits.max_failed_share)


def retry_settings(uri: str, overrides: Sequence[str]) -> RunSettings:
    """Return the settings that a run has frozen in its output, with those laid over that are free to change.

    Raises:
        ReportError: There is no run.
        ConfigError: An override is none, or would give other answers than those already there.
    """
    store = output_at(uri, overrides)
    settings = frozen_settings(store, overrides)
    ledger.refuse_other_settings(ledger.read_settings(store)["settings"], dump_settings(settings), store.uri)
    return settings
