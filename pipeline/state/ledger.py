"""What a run writes down beside its parts: frozen settings and plan, attempts, the mark that it is finished.

The output folder is the only state there is. This file knows its names; it knows neither Ray nor models.
"""

import contextlib
import importlib.metadata
import json
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.settings import ConfigError, differences
from pipeline.steps.tars import TARS
from pipeline.steps.write import PART_NAME, UNITS
from pipeline.storage.store import PROBES, NotFound, Store

log = logging.getLogger(__name__)

SETTINGS = "_triptych/settings.json"
PLAN = "_triptych/plan.parquet"
ATTEMPTS = "_triptych/attempts"
PROGRESS = "_triptych/progress.json"
# What a run says of its state there while it is in its rounds; at the end it says how that came.
RUNNING = ("loading", "answering")
# How moments are written there, for time.strftime and strptime.
UTC = "%Y-%m-%dT%H:%M:%SZ"
SUCCESS = "_SUCCESS"
# Stands there instead where every row has its place but more of them failed than the run allows; it says how many.
TOO_MANY_FAILED = "_TOO_MANY_FAILED"
OURS = ("_triptych/", "_report/", f"{TARS}/")

# Settings that say how and where a run works, not what it answers: they may change between two starts of one run.
# (The models' devices are compared once it is known what `auto` means.)
FREE = (
    "note",
    "plan",
    "limits",
    "ray",
    "read.on_changed",
    "read.storage",
    "model.device",
    "preprocess.actors",
    "generate.actors",
    "generate.gpus",
    "generate.slots",
    "generate.speculate",
    "job.check.model.device",
    "job.check.preprocess.actors",
    "job.check.generate.actors",
    "job.check.generate.gpus",
    "job.check.generate.slots",
    "write.uri",
    "write.on_existing",
    "write.storage",
)


@dataclass(frozen=True)
class Output:
    """What stands in an output folder.

    Attributes:
        paths: Every file of a run's.
        parts: Numbers of the finished parts.
        units: Names of the run's committed units that no part holds yet, or whose removal was interrupted.
        strangers: Files that no run wrote and that a reader of the folder would take for results.
        run: What the run that has frozen its settings here calls itself; empty where none has, or none of this version.
        sizes: Bytes of each of `paths`.
    """

    paths: tuple[str, ...]
    parts: frozenset[int]
    units: frozenset[str]
    strangers: tuple[str, ...]
    run: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_started(self) -> bool:
        """Whether a run has frozen its settings here."""
        return SETTINGS in self.paths

    @property
    def is_planned(self) -> bool:
        """Whether it has frozen its plan too, so that a later start goes on with that."""
        return self.is_started and PLAN in self.paths

    @property
    def is_done(self) -> bool:
        """Whether a run has finished here, with few failed rows or with many."""
        return self.is_started and not {SUCCESS, TOO_MANY_FAILED}.isdisjoint(self.paths)


class RunError(Exception):
    """The run stopped before every row had its place; what is committed stays."""


class RunReplaced(RunError):
    """Another run has taken the output; nothing more of this one may get there."""


def new_run() -> str:
    """Return a name for a run that is about to freeze its settings; no other has it."""
    return uuid.uuid4().hex[:16]


def units_folder(run: str) -> str:
    """Where a run's committed units stand: apart from those of a run that it has replaced and that may still live.

    Runs of earlier versions have no name, and theirs stand beside the others' folders.
    """
    return f"{UNITS}/{run}" if run else UNITS


def read_output(store: Store) -> Output:
    """List an output folder and sort what is there."""
    # Units first: one that another driver merges meanwhile is seen as a unit, as a part, or as both, never as missing.
    sizes = {entry.path: entry.size for entry in store.list(UNITS)}
    sizes |= {entry.path: entry.size for entry in store.list()}
    paths = sorted(sizes)
    run = _run_of(store) if SETTINGS in paths else None
    if run is None:  # or it was removed between the listing and the reading
        paths = [path for path in paths if path != SETTINGS]
    parts = {path: int(match[1]) for path in paths if (match := PART_NAME.fullmatch(path))}
    unit = re.compile(re.escape(units_folder(run or "")) + r"/([^/]+)\.parquet")
    units = [match[1] for path in paths if (match := unit.fullmatch(path))]
    ours = [path for path in paths if path in parts or path in (SUCCESS, TOO_MANY_FAILED) or path.startswith(OURS)]
    ours = [path for path in ours if not path.startswith(PROBES)]  # another driver is looking, too
    known = set(ours)
    strangers = [path for path in paths if path not in known and not path.startswith(("_", "."))]
    return Output(
        paths=tuple(ours),
        parts=frozenset(parts.values()),
        units=frozenset(units),
        strangers=tuple(strangers),
        run=run or "",
        sizes={path: sizes[path] for path in ours},
    )


def read_own_output(store: Store, run: str) -> Output:
    """List a run's output once more.

    Raises:
        RunReplaced: It is another run's by now.
    """
    output = read_output(store)
    if not output.is_started or output.run != run:
        raise _replaced(store)
    return output


def refuse_replaced(store: Store, run: str) -> None:
    """See with one small read that an output still is this run's.

    Raises:
        RunReplaced: It is another's by now.
    """
    if _run_of(store) != run:
        raise _replaced(store)


def _run_of(store: Store) -> str | None:
    """Return what the run calls itself whose settings stand there; None where none do."""
    try:
        return str(read_settings(store).get("run", ""))
    except NotFound:
        return None


def _replaced(store: Store) -> RunReplaced:
    return RunReplaced(
        f"another run has replaced this one in {store.uri} ({SETTINGS} is no longer this run's); "
        "nothing more of this run is written there"
    )


def existing_fault(output: Output, on_existing: str, uri: str) -> str | None:
    """Say why a run may not write here, if it may not."""
    if output.strangers:
        some = ", ".join(output.strangers[:3])
        return f"write.uri: {uri} holds files that no run wrote ({some}); expected an empty folder"
    if on_existing == "fail" and output.paths:
        return f"write.on_existing: found results in {uri}, and the setting is 'fail'; use 'resume' or 'replace'"
    if output.paths and not output.is_started and on_existing != "replace":
        without = f"results without the settings they were made with ({SETTINGS} is missing)"
        return f"write.uri: {uri} holds {without}; write elsewhere"
    return None


def clear(store: Store, output: Output) -> None:
    """Remove an earlier run's results.

    The mark that all is done goes first and the settings last: what an interrupted removal leaves is still known as a
    run's, and as an unfinished one. Parts go before their tars, as a part that stands says that its tar does, and both
    before the plan: by another one, they would hold other rows.
    """
    parts = [path for path in output.paths if PART_NAME.fullmatch(path)]
    units = [path for path in output.paths if path.startswith(f"{UNITS}/")]
    marks = [SUCCESS, TOO_MANY_FAILED]
    kept = {*marks, PLAN, SETTINGS, *parts, *units}
    run, say = ("a finished run", log.info) if output.is_done else ("an unfinished run", log.warning)
    if parts or units:
        say("removing %d parts and %d units of %s from %s", len(parts), len(units), run, store.uri)
    for paths in (marks, parts, units, [path for path in output.paths if path not in kept], [PLAN], [SETTINGS]):
        store.delete(paths)


def sweep(store: Store, kept: str = "") -> None:
    """Remove what crashed writers left half written, and all committed units but those in the folder `kept`.

    Others are of runs that this one has replaced, or of workers that outlived their driver.
    """
    store.sweep()
    store.delete([entry.path for entry in store.list(UNITS) if not entry.path.startswith(f"{kept}/")])


def freeze_settings(store: Store, frozen: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings down unless a run has done so before; return those that stand there."""
    store.publish(SETTINGS, json.dumps(frozen, indent=2, ensure_ascii=False).encode())
    return read_settings(store)


def read_settings(store: Store) -> dict[str, Any]:
    """Return what a run has frozen: `run`, `settings`, `device`, `check_device`, `weights`, `versions`."""
    frozen = json.loads(store.read(SETTINGS))
    assert isinstance(frozen, dict)
    return frozen


def refuse_other_answers(frozen: Mapping[str, Any], settings: Mapping[str, Any], weights: str, uri: str) -> None:
    """Refuse to go on with settings or weights that would give other answers than those already there.

    Raises:
        ConfigError: It names each setting that differs.
    """
    lines = _binding_differences(frozen["settings"], settings)
    if frozen["weights"] != weights:
        lines.append(f"model.path: a checkpoint's files have changed (was {frozen['weights']}, now {weights})")
    if lines:
        advice = "Go on with the old settings, write elsewhere, or start over with write.on_existing=replace."
        raise ConfigError(f"{uri} holds a run with other settings", lines, advice)


def refuse_other_settings(frozen: Mapping[str, Any], settings: Mapping[str, Any], uri: str) -> None:
    """Refuse to answer rows of a finished run again with settings that would give other answers.

    Raises:
        ConfigError: It names each setting that differs.
    """
    if lines := _binding_differences(frozen, settings):
        advice = f"A retry may change only {', '.join(name for name in FREE if not name.startswith('job.'))}."
        raise ConfigError(f"{uri} holds a run with other settings", lines, advice)


def refuse_other_device(frozen: Mapping[str, Any], devices: Mapping[str, str], uri: str) -> None:
    """Refuse to go on where `device: auto` means another device than before, and so another arithmetic.

    Args:
        frozen: What the run has frozen.
        devices: `device` and `check_device`, that of the model that checks; empty without one.
        uri: The output.

    Raises:
        ConfigError: A device differs.
    """
    names = {"device": "model.device", "check_device": "job.check.model.device"}
    faults = [
        f"{names[name]}: the run began on {frozen[name]}, but here it would continue on {device}; set {names[name]}"
        for name, device in devices.items()
        if frozen[name] != device
    ]
    if faults:
        raise ConfigError(f"{uri} holds a run on another device", faults)


def warn_of_other_versions(frozen: Mapping[str, Any]) -> None:
    """Say so if a run goes on with other packages than it began with: its later answers may differ in last bits."""
    before, now = frozen["versions"], versions()
    changed = [
        f"{name} (was {before.get(name, 'absent')}, now {now.get(name, 'absent')})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        log.warning("the run began with other package versions, so later answers may differ: %s", ", ".join(changed))


def mark_finished(store: Store, fault: str | None) -> None:
    """Leave the mark that every row has its place, and of the two only the right one.

    Args:
        store: The output.
        fault: What is wrong with the results, if too many rows failed.
    """
    right, wrong = (SUCCESS, TOO_MANY_FAILED) if fault is None else (TOO_MANY_FAILED, SUCCESS)
    if right == SUCCESS:
        store.publish(SUCCESS, b"")
    else:
        store.replace(TOO_MANY_FAILED, f"{fault}\n".encode())
    store.delete([wrong])


def part_paths(store: Store) -> list[str]:
    """List the parts in order."""
    return [entry.path for entry in store.list() if PART_NAME.fullmatch(entry.path)]


def write_attempt(store: Store, name: str, numbers: Mapping[str, Any]) -> None:
    """Write down when, where and how far one start of the run went. Nothing else here knows of time."""
    store.replace(_attempt_path(name), json.dumps(numbers, indent=2).encode())


def keep_killed_start(store: Store) -> None:
    """Write down how far the latest start came if it has not come to do so: the next one's progress will hide it.

    Should it live, on another machine, it writes over this at its end.
    """
    last = unended_start(read_progress(store), [entry.path for entry in store.list(ATTEMPTS)])
    if last is not None:
        outcome = "killed" if last["state"] in RUNNING else last["state"]
        write_attempt(store, last["attempt"], {**last, "outcome": outcome})


def read_attempts(store: Store, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return what starts wrote down at their ends, oldest first.

    Args:
        store: The output.
        paths: What stands there.
    """
    return [json.loads(store.read(path)) for path in sorted(paths) if path.startswith(f"{ATTEMPTS}/")]


def unended_start(progress: Mapping[str, Any] | None, paths: Sequence[str]) -> dict[str, Any] | None:
    """Return what the latest start wrote of its progress if it still runs, or was killed; None if it wrote of its end.

    Starts of older versions do not say which they are: None.
    """
    name = (progress or {}).get("attempt")
    return None if progress is None or name is None or _attempt_path(name) in paths else dict(progress)


def _attempt_path(name: str) -> str:
    return f"{ATTEMPTS}/{name}.json"


def write_progress(store: Store, numbers: Mapping[str, Any]) -> None:
    """Write down how far the run is, or how it ended; of several drivers on one output the last to do so is seen."""
    store.replace(PROGRESS, json.dumps(numbers, indent=2).encode())


def read_progress(store: Store) -> dict[str, Any] | None:
    """Return how far the run was when it last wrote that down; None where it has not."""
    try:
        progress = json.loads(store.read(PROGRESS))
    except NotFound:
        return None
    assert isinstance(progress, dict)
    return progress


def versions(names: Sequence[str] = ("triptych", "ray", "torch", "pyarrow", "pillow", "tokenizers")) -> dict[str, str]:
    """Return the versions of the packages that answers depend on, as far as they are installed as packages."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _binding_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List where two dumped settings differ in what answers depend on; of another job all else differs, and is not."""
    lines = [line for line in differences(before, now) if not _is_free(line.split(":")[0])]
    is_other_job = any(line.startswith("job.kind:") for line in lines)
    return [line for line in lines if not (is_other_job and line.startswith("job.") and "job.kind:" not in line)]


def _is_free(path: str) -> bool:
    return path in FREE or path.startswith(tuple(f"{free}." for free in FREE))
