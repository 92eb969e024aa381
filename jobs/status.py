"""Look at a run from outside, while it runs or later: at what it writes into its output, and nothing else."""

import time
from calendar import timegm
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs.console_text import failure_lines
from jobs.progress import clock, describe
from jobs.report.results import look_for_run
from pipeline import Store, ledger
from pipeline.run import FailureKind

# A run that has not written its progress for so many of its periods is taken for dead.
SILENT_PERIODS = 4
WATCH_EVERY_S = 5.0
OF_ATTEMPTS = ("started", "outcome", "seconds", "answered", "failed", "host")


def read_status(store: Store) -> dict[str, Any]:
    """Return how a run stands, as JSON has it.

    Its `state` is `loading` or `answering` while it runs, `silent` where it has written nothing for a while and was
    most likely killed, else how it ended: `done`, `too many failed`, `interrupted` or `failed`; `unknown` where it has
    not written anything, as those of older versions.

    Raises:
        ReportError: There is no run.
        StorageError: The output cannot be read.
    """
    standing, plan = look_for_run(store)
    output = standing.output
    attempts = ledger.read_attempts(store, output.paths)
    progress = ledger.read_progress(store) or {"state": "unknown"}
    committed = [file.num_rows for file in standing.files]
    return {
        **progress,
        "uri": store.uri,
        "state": _state(output, progress),
        "rows": sum(unit.num_rows for unit in plan.units),
        "done": None if None in committed else sum(filter(None, committed)),
        "parts": len(output.parts),
        "planned_parts": len(plan.part_sizes or ()) or None,
        "silent_s": _silent_s(progress),
        "attempts": [{name: attempt.get(name) for name in OF_ATTEMPTS} for attempt in attempts],
    }


def _state(output: ledger.Output, progress: Mapping[str, Any]) -> str:
    silent_s = _silent_s(progress)
    is_running = progress["state"] in ledger.RUNNING
    is_silent = is_running and silent_s is not None and silent_s > SILENT_PERIODS * progress["period_s"]
    if output.is_done and (not is_running or is_silent):  # a retry may run
        return "done" if ledger.SUCCESS in output.paths else "too many failed"
    return "silent" if is_silent else str(progress["state"])


def _silent_s(progress: Mapping[str, Any]) -> float | None:
    """Return the seconds since a run has written, by the clocks of its machine and of this one."""
    written = progress.get("written")
    return None if written is None else max(0.0, time.time() - timegm(time.strptime(written, ledger.UTC)))


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """Say how a run stands."""
    state, silent = status["state"], status["silent_s"]
    share = "" if status["done"] is None else f": {status['done']:,} of {status['rows']:,} rows are committed"
    parts = "" if status["planned_parts"] is None else f", {status['parts']} of {status['planned_parts']} parts made"
    lines = [f"{status['uri']} {_SAID.get(state, state)}{share}{parts}"]
    if state in ledger.RUNNING:
        lines += [f"on {status['host']} since {status['started']}, seen {clock(silent)} ago", *describe(status)]
    if state == "silent":
        lines.append(
            f"it last wrote its progress {clock(silent)} ago, on {status['host']}, and was most likely killed; "
            "the same command continues it"
        )
    lines += failure_lines([FailureKind(**kind) for kind in status.get("failures", ())])
    return lines + _attempt_lines(status["attempts"])


_SAID = {
    "loading": "is starting",
    "answering": "is running",
    "silent": "has stopped",
    "done": "is finished",
    "too many failed": "has too many failed rows",
    "interrupted": "was interrupted; the same command continues it",
    "failed": "has failed; the same command continues it",
    "unknown": "has not said how it stands",
}


def _attempt_lines(attempts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"start {number}: {attempt['started']} on {attempt['host']}, {attempt['outcome']} after "
        f"{clock(attempt['seconds'])}, {attempt['answered']:,} rows, {attempt['failed']:,} failed"
        for number, attempt in enumerate(attempts, start=1)
    ]


def watch(store: Store, show: Callable[[Mapping[str, Any]], None], every_s: float = WATCH_EVERY_S) -> dict[str, Any]:
    """Show how a run stands again and again, until it has ended; return how it stood then.

    Raises:
        ReportError: There is no run.
        StorageError: The output cannot be read.
    """
    while True:
        status = read_status(store)
        show(status)
        if status["state"] not in ledger.RUNNING:
            return status
        time.sleep(every_s)
