"""What `triptych plan` said before a run, set against what the run did.

The plan is a file of its own, which `triptych report --plan` takes and keeps beside the report.
"""

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import ConfigError, Store

KEPT = "_report/plan.json"
# What a comparison needs of a plan.
NUMBERS = (
    "rows", "rows_left", "failed_share", "start_seconds", "check_seconds", "seconds", "seconds_least", "seconds_most",
    "output_bytes", "device_hours",
)  # fmt: skip
TOKENS = ("prompt_tokens", "image_tokens", "output_tokens")


def keep_plan(output: Store, uri: str) -> None:
    """Read a plan and keep it beside an output's report, in the place of an earlier one.

    Raises:
        ConfigError: The file holds no plan.
        StorageError: It cannot be read, or the output not be written.
    """
    folder, name = posixpath.split(uri)
    data = Store(folder or ".", output.settings).read(name)
    if fault := _fault_of(data):
        expected = "expected what `triptych plan --json` says"
        raise ConfigError("the command line", [f"--plan: {uri} holds {fault}, {expected}"])
    output.replace(KEPT, data)


def read_kept_plan(output: Store, paths: Sequence[str]) -> dict[str, Any] | None:
    """Return the plan that is kept beside a report; None where there is none.

    Args:
        output: The run's.
        paths: What stands there.
    """
    return dict(json.loads(output.read(KEPT))) if KEPT in paths else None


def _fault_of(data: bytes) -> str | None:
    try:
        plan = json.loads(data)
    except ValueError:
        return "no JSON"
    if not isinstance(plan, dict):
        return "no JSON object"
    missing = [name for name in NUMBERS if not isinstance(plan.get(name), int | float)]
    tokens = plan.get("tokens")
    spreads = tokens if isinstance(tokens, dict) else {}
    missing += [name for name in TOKENS if not isinstance(spreads.get(name, {}).get("mean"), int | float)]
    missing += [] if isinstance(plan.get("made"), str) else ["made"]
    return f"no {', '.join(missing)}" if missing else None


def starts_after(plan: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the starts that a plan was made for: all of a run, or of one that went on those since.

    Moments are compared by the clocks of the machines that wrote them down.
    """
    if plan["rows_left"] == plan["rows"]:
        return list(attempts)
    return [attempt for attempt in attempts if str(attempt.get("started", "")) >= plan["made"]]


def against_plan(plan: Mapping[str, Any], did: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Return what was expected beside what came, line by line; lines of which one is not known are left out.

    Args:
        plan: What `triptych plan --json` said.
        did: What the run did, by the names of the lines; see `_expected`.

    Returns:
        `name`, `expected`, `did`, and `off`: by what share of what came the plan was too high, or too low; None where
        nothing came.
    """
    lines = []
    for name, number in _expected(plan):
        came = did.get(name)
        if number is not None and came is not None:
            off = round(number / came - 1, 4) if came else None
            lines.append({"name": name, "expected": number, "did": came, "off": off})
    return lines


def _expected(plan: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Give what a plan expects, by the names of the lines. Times are those in which devices are held."""
    checks = plan["check_seconds"]
    yield "rows", plan["rows_left"]
    yield "failed_share", plan["failed_share"]
    yield "loading_seconds", plan["start_seconds"] - checks
    yield "answering_seconds", plan["seconds"] - plan["start_seconds"]
    yield "seconds", plan["seconds"] - checks
    for name in TOKENS:
        yield name, plan["tokens"][name]["mean"]
    yield "output_bytes", plan["output_bytes"]
    yield "device_hours", plan["device_hours"]
    yield "cost", plan.get("cost")
