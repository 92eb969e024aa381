"""Verify a run's output with the settings that it froze there, for `triptych verify`; say what was found.

How it is done, pipeline/verify.py knows; the report's numbers are held against the output here.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from jobs.config import output_at
from jobs.report.results import ReportError
from jobs.report.writer import NUMBERS
from jobs.start import retry_settings
from pipeline import ConfigError, NotFound, Store, ledger
from pipeline.verify import LOGPROB, Fault, Verified, verify

SHOWN_FAULTS = 20


def verify_run(uri: str, overrides: Sequence[str], *, rows: int, seed: int) -> Verified:
    """Look at all of a run's output, and compute some of its rows again.

    Args:
        uri: The output.
        overrides: `dotted.key=value` each, of settings that change no answer.
        rows: How many rows to compute again; of fewer, all.
        seed: Of their choice.

    Raises:
        ConfigError: There is no run that could be verified, or an override would change answers.
        StorageError: The output cannot be read.
    """
    try:
        settings = retry_settings(uri, overrides)
        if ledger.read_settings(output_at(uri, overrides)).get("scored_from"):
            raise ReportError(f"{uri} holds answers that `triptych score` has scored, expected the run's own output")
        store = Store(settings.write.uri, settings.write.storage)
        verified = verify(settings, settings.job.build(), rows=rows, seed=seed)
    except (ReportError, ledger.RunError) as error:
        raise ConfigError("the command line", [f"verify: {error}"]) from error
    return replace(verified, faults=[*verified.faults, *_report_faults(store, verified)])


def _report_faults(store: Store, verified: Verified) -> list[Fault]:
    """Hold the counts of a finished run's report against what stands there, where all of that is well."""
    checked = verified.checked
    if checked.faults or not checked.is_done:
        return []
    mend = f"write it again: triptych report {store.uri}"
    try:
        numbers = json.loads(store.read(NUMBERS))
        said = {name: numbers[name] for name in ("rows", "answers", "failed")}
    except NotFound:
        return []  # it is written after the mark, and may be left out
    except (ValueError, KeyError, TypeError) as error:
        return [Fault("report", NUMBERS, f"a file that is no report ({error})", "the report's numbers", mend)]
    found = {"rows": checked.counted.rows, "answers": checked.counted.answers, "failed": checked.counted.failed}
    if said == found:
        return []
    return [Fault("report", NUMBERS, f"a report of {_counts(said)}", f"{_counts(found)}, as the parts hold", mend)]


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in numbers.items())


def verified_numbers(verified: Verified) -> dict[str, Any]:
    """Return what was found, as JSON has it."""
    checked = verified.checked
    again = {
        "rows": len(verified.again),
        "agreeing": sum(one.agrees for one in verified.again),
        "agreement": verified.agreement,
        "must_be_equal": verified.is_exact,
        "largest_logprob_gap": max((one.logprob_gap for one in verified.again), default=None),
        "differing": [
            {"key": one.key, "failure": one.failure, "differences": [asdict(each) for each in one.differences]}
            for one in verified.again
            if not one.agrees
        ],
    }
    return {
        "uri": checked.uri,
        "well": not verified.faults,
        "finished": checked.is_done,
        "planned_rows": checked.planned_rows,
        "rows": checked.counted.rows,
        "answers": checked.counted.answers,
        "failed": checked.counted.failed,
        "rows_with_an_earlier_key": dict(checked.counted.doubled),
        "planned_parts": checked.planned_parts,
        "whole_parts": checked.parts,
        "whole_units": checked.units,
        "whole_tars": checked.tars,
        "again": again,
        "faults": [asdict(fault) for fault in verified.faults],
    }


def verify_lines(verified: Verified) -> list[str]:
    """Say what was found."""
    checked = verified.checked
    state = "finished" if checked.is_done else "not finished"
    units = f", {checked.units:,} committed units" if checked.units else ""
    tars = f", {checked.tars:,} tars" if checked.tars else ""
    lines = [
        f"{checked.uri} ({state}): {checked.counted.rows:,} of {checked.planned_rows:,} planned rows are there and "
        f"whole, in {checked.parts:,} of {checked.planned_parts:,} parts{units}{tars}",
        f"{checked.counted.answers:,} results, {checked.counted.failed:,} of them failed",
    ]
    lines += [
        f"{rows:,} rows{f' of {source}' if source else ''} have the same key as an earlier row, as in the input"
        for source, rows in checked.counted.doubled.items()
    ]
    lines += _again_lines(verified)
    for fault in verified.faults[:SHOWN_FAULTS]:
        lines += [
            f"fault ({fault.kind}) in {fault.where}:",
            f"  found {fault.found}",
            f"  expected {fault.expected}",
            f"  to mend it: {fault.mend}",
        ]
    if hidden := len(verified.faults) - SHOWN_FAULTS:
        lines += [f"and {hidden:,} more faults; --json lists all"] if hidden > 0 else []
    return [*lines, _outcome(len(verified.faults))]


def _outcome(faults: int) -> str:
    return "all well" if not faults else "1 fault found" if faults == 1 else f"{faults:,} faults found"


def _again_lines(verified: Verified) -> list[str]:
    if verified.agreement is None:
        return []
    agreeing, gap = sum(one.agrees for one in verified.again), max(one.logprob_gap for one in verified.again)
    lines = [
        f"computed again, each alone: {agreeing} of {len(verified.again)} rows agree ({verified.agreement:.0%}); "
        f"log-probabilities of equal tokens lie up to {gap:.1g} apart"
    ]
    if verified.is_exact or agreeing == len(verified.again):
        return lines
    lines.append(
        f"on this device or in this precision last bits differ, so nearly tied tokens may change places; on a CPU in "
        f"float32 all must agree, log-probabilities within {LOGPROB:g}"
    )
    return lines + [
        f"  {one.key}: {each.column} {each.found}, now {each.again}"
        for one in verified.again
        for each in one.differences[:1]
    ]
