"""Run a job from its settings to its report, for `triptych run`, `triptych retry` and each part of the demo.

Printing results and choosing exit codes are left to jobs/__main__.py.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.config import RunSettings, frozen_settings, output_at
from jobs.preset import resolve_presets
from jobs.progress import ProgressStyle, shown_progress
from jobs.report.writer import Report, write_report
from jobs.scoring.rules import MAIN_THREAD_ONLY
from jobs.vqa import VqaSettings
from pipeline import ConfigError, Store, check_settings, dump_settings, lay_over, ledger, read_values, stand_in
from pipeline.estimate import Estimate, estimate
from pipeline.retry import RetryResult, retry
from pipeline.run import Known, RunResult, run


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


def load_run(config: str | Mapping[str, Any], overrides: Sequence[str]) -> RunSettings:
    """Return the settings that a YAML file, or nested mappings as YAML has them, and overrides say.

    Raises:
        ConfigError: Some are wrong; what else would keep the run from starting is listed with them.
    """
    if isinstance(config, str):
        source, (values, faults) = config, read_values(config, overrides)
    else:
        source, values = "settings", copy.deepcopy(dict(config))
        faults = lay_over(values, overrides)
    try:
        return check_settings(RunSettings, values, source, faults)
    except ConfigError as error:
        raise ConfigError(source, [*error.faults, *_further_faults(values, error.faults)]) from error


def _further_faults(values: Mapping[str, Any], faults: Sequence[str]) -> list[str]:
    """Say what is wrong beside the settings, as far as those that are well tell."""
    # Whatever is wrong with the job, input, model and output can be looked at.
    others = {**values, "job": {"kind": "caption"}}
    standing = stand_in(RunSettings, values) or stand_in(RunSettings, others)
    if standing is None:
        return []
    settings, doubtful = standing
    job = values.get("job")
    if not isinstance(job, dict) or settings.job.kind != job.get("kind"):
        doubtful |= {"job"}
    try:
        run(settings, settings.job.build(), known=Known(faults, doubtful))
    except ConfigError as error:
        return error.faults[len(faults) :]
    return []


def run_and_report(
    settings: RunSettings,
    step: str = "",
    style: ProgressStyle = "auto",
    metrics_port: int | None = None,
    *,
    ends_ray: bool = False,
) -> Outcome:
    """Run a job over its input, or what is left of it, then write the report.

    Args:
        settings: Those of the run.
        step: What the run is called where it is one of several; one line of it stays on the terminal.
        style: See `jobs.progress.shown_progress`.
        metrics_port: See there.
        ends_ray: See `pipeline.run.run`.

    Raises:
        ConfigError: The settings cannot work; nothing has started.
        RunError: The run could not be finished.
        StorageError: The output cannot be read or written.
    """
    settings, known = _known(settings)
    job = settings.job.build()
    with shown_progress(step or settings.job.kind, style, metrics_port, leaves_line=bool(step)) as show:
        result = run(settings, job, progress=show, known=known, ends_ray=ends_ray)
    store, price = Store(settings.write.uri, settings.write.storage), settings.plan.price_per_device_hour
    return Outcome(result, write_report(store, job, settings.read, price))


def estimate_run(settings: RunSettings, sample_seconds: float) -> Estimate:
    """Say what a run will take, by a timed sample of it; nothing is written.

    Args:
        settings: Those of the run.
        sample_seconds: How long the sample is timed once its first rows are answered.

    Raises:
        ConfigError: The run could not start; every fault is listed, as for the run itself.
        RunError: Nothing is left to do.
        StorageError: The output or the input cannot be read.
    """
    settings, known = _known(settings)
    return estimate(settings, settings.job.build(), known=known, sample_seconds=sample_seconds)


def _known(settings: RunSettings) -> tuple[RunSettings, Known]:
    """Return the settings with the wordings that `auto` means, and what of the job is wrong already."""
    settings, faults = resolve_presets(settings)
    return settings, Known([*_faults_of_stored_rules(settings), *faults])


def _faults_of_stored_rules(settings: RunSettings) -> list[str]:
    """Refuse the one rule that needs a main thread: workers score outside of theirs, `triptych score` does not."""
    if not isinstance(settings.job, VqaSettings):
        return []
    rules = {f"job.benchmarks.{name}.rule": entry.rule for name, entry in settings.job.benchmarks.items()}
    return [
        f"{setting}: found {rule}, expected another rule: this one scores stored answers only, with `triptych score`"
        for setting, rule in {"job.rule": settings.job.rule, **rules}.items()
        if rule == MAIN_THREAD_ONLY
    ]


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
    report = write_report(store, job, settings.read, settings.plan.price_per_device_hour)
    return RetryOutcome(retried, report, settings.limits.max_failed_share)


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
