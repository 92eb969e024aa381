"""Look at all that stands in an output: the plan, each part and committed unit, their tars, the marks.

Files are read one after the other, and nothing is written; what to do about a fault is said with it. It knows what a
run writes down, and no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.input.units import Unit
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.rows import part_schema
from pipeline.state import ledger
from pipeline.state.plan import frozen_parts, read_frozen_plan
from pipeline.state.rewrite import RowId
from pipeline.steps.read import job_rows_schema, settings_by_source
from pipeline.steps.tars import TARS, tar_path
from pipeline.steps.write import Part, unit_path, unit_schema
from pipeline.storage.store import NotFound, Store
from pipeline.verification.files import FOREIGN, Counted, Damaged, Sample, check_file
from pipeline.verification.tars import check_tar


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with an output.

    Attributes:
        kind: What, in a word or two.
        where: The file below the output, or the row.
        found: What is there.
        expected: What should be there.
        mend: What to do about it.
    """

    kind: str
    where: str
    found: str
    expected: str
    mend: str


@dataclass
class Checked:
    """What an output was found to be.

    Attributes:
        uri: The output.
        is_done: Whether its run is finished.
        planned_rows: Rows of the plan.
        planned_parts: Parts of the plan.
        parts: Parts that stand there and are whole.
        units: Committed units that no part holds yet, and that are whole.
        tars: Tars that hold what their parts do.
        counted: What the whole files hold.
        faults: All that is wrong.
    """

    uri: str
    is_done: bool
    planned_rows: int = 0
    planned_parts: int = 0
    parts: int = 0
    units: int = 0
    tars: int = 0
    counted: Counted = field(default_factory=Counted)
    faults: list[Fault] = field(default_factory=list)


def check_output(settings: PipelineSettings, job: Job, store: Store, sample: Sample) -> Checked:
    """Look at all files of a run's.

    Args:
        settings: The run's own.
        job: The run's own.
        store: The output.
        sample: Gets some of the rows that are well.

    Raises:
        RunError: No run has planned anything there.
        StorageError: The output cannot be read.
    """
    progress = ledger.read_progress(store)  # before the files are listed: a run that goes on says more later
    output = ledger.read_output(store)
    checked = Checked(store.uri, output.is_done)
    if not output.is_planned and not output.parts and not output.is_done:
        raise ledger.RunError(f"found no plan in {store.uri} ({ledger.PLAN} is missing), expected the output of a run")
    try:
        parts, schema = _open_plan(store, settings, job)
    except _WrongPlan as error:
        checked.faults.append(Fault("plan", ledger.PLAN, str(error), "the plan that the run froze", OF_PLAN))
        return checked
    checked.planned_rows = sum(unit.num_rows for part in parts for unit in part.units)
    checked.planned_parts = len(parts)
    look = _Look(store, output, parts, settings.model.path, schema, sample, checked)
    for part in parts:
        look.at_part(part)
    _refuse_foreign_plan(checked, look.files)
    checked.faults += _strangers(output, parts)
    checked.faults += _ledger_faults(output, progress, checked)
    if job.needs_unique_keys:
        checked.faults += [_doubled_keys(source, rows) for source, rows in checked.counted.doubled.items()]
    return checked


class _WrongPlan(Exception):
    """The plan is not one, or another run's."""


OF_PLAN = (
    "put the run's own plan back; if it is lost, the rows that stand there are still well: write a new run elsewhere, "
    "or start over with write.on_existing=replace"
)


def _open_plan(store: Store, settings: PipelineSettings, job: Job) -> tuple[list[Part], pa.Schema]:
    """Read the plan.

    Raises:
        _WrongPlan: It says why.
    """
    try:
        plan = read_frozen_plan(store)
    except NotFound as error:
        raise _WrongPlan("no plan beside the results") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise _WrongPlan(f"a file that is no plan ({str(error)[:200]})") from error
    units, sizes = plan.units, plan.part_sizes
    if not units or [unit.seq for unit in units] != list(range(len(units))):
        raise _WrongPlan(f"{len(units)} units that do not count up from 0")
    if sizes is not None and sum(sizes) != len(units):
        raise _WrongPlan(f"parts of {sum(sizes)} units, and {len(units)} units")
    known = settings_by_source(job, settings.read)
    if others := sorted({unit.source for unit in units} - known.keys()):
        raise _WrongPlan(f"units of {', '.join(map(repr, others))}, which the settings do not name")
    try:
        schema = part_schema(job_rows_schema(job, units), job)
    except ValueError as error:
        raise _WrongPlan(f"columns that do not fit the job ({error})") from error
    return frozen_parts(store, units, settings.write, job), schema


class _Look:
    """What is known while an output's files are read one after the other."""

    def __init__(
        self,
        store: Store,
        output: ledger.Output,
        parts: Sequence[Part],
        model: str,
        schema: pa.Schema,
        sample: Sample,
        checked: Checked,
    ) -> None:
        self._store, self._output, self._parts, self._model, self._schema = store, output, parts, model, schema
        self._sample, self._checked = sample, checked
        self._folder = ledger.units_folder(output.run)
        self.files = 0

    def at_part(self, part: Part) -> None:
        """Look at a part; if it is not made yet, at those of its units that are committed."""
        if part.number in self._output.parts:
            self._at_whole_part(part)
        elif self._output.is_done:
            self._missing(part)
        else:
            self._at_units(part)

    def _at_whole_part(self, part: Part) -> None:
        tar = tar_path(part.number)
        try:
            samples = self._at_file(part.path, part.units, self._schema, self._checked.counted, part.tar_text)
            self._checked.parts += 1
            if part.tar_text:
                with self._store.open(tar) as file:
                    check_tar(file, part.number, samples)
                self._checked.tars += 1
        except Damaged as damage:
            self._damaged(tar if damage.kind == "tar" else part.path, damage, self._mend(part))
        except NotFound:
            if part.tar_text and self._store.exists(part.path):
                gone = Damaged("tar", "no tar", "one beside the part: write.webdataset is true")
                self._damaged(tar, gone, self._mend(part))
            else:
                self._missing(part)

    def _at_units(self, part: Part) -> None:
        counted, whole = Counted(), 0
        for unit in part.units:
            path = unit_path(unit.name, self._folder)
            if unit.name not in self._output.units:
                continue
            try:
                self._at_file(path, [unit], unit_schema(part, self._schema), counted)
                whole += 1
            except Damaged as damage:
                mend = f"delete {path} and give the run's command again: it answers these rows again"
                self._damaged(path, damage, mend)
            except NotFound:
                if self._store.exists(part.path):  # it has been made of its units meanwhile
                    self._at_whole_part(part)
                    return
                gone = Damaged("missing unit", "no file, though it was committed", f"{unit.num_rows:,} rows")
                self._damaged(path, gone, "give the run's command again: it answers these rows again")
        self._checked.counted.extend(counted)
        self._checked.units += whole

    def _at_file(
        self, path: str, units: Sequence[Unit], schema: pa.Schema, counted: Counted, tar_text: str = ""
    ) -> dict[int, tuple[str, bool]]:
        self.files += 1
        sample, model = self._sample, self._model
        with self._store.open(path) as file:
            return check_file(file, path, units, schema, model, counted=counted, sample=sample, tar_text=tar_text)

    def _damaged(self, path: str, damage: Damaged, mend: str) -> None:
        owner = next((part.path for part in self._parts if damage.stranger and _holds(part, damage.stranger)), None)
        found = f"{damage.found}, a row of {owner}" if owner else damage.found
        self._checked.faults.append(Fault(damage.kind, path, found, damage.expected, mend))

    def _missing(self, part: Part) -> None:
        rows = sum(unit.num_rows for unit in part.units)
        units = f"units {part.units[0].name} to {part.units[-1].name}"
        gone = Damaged("missing part", "no file, though the run is finished", f"{rows:,} rows, those of {units}")
        self._damaged(part.path, gone, self._mend(part))

    def _mend(self, part: Part) -> str:
        marks = [mark for mark in (ledger.SUCCESS, ledger.TOO_MANY_FAILED) if mark in self._output.paths]
        tar = tar_path(part.number)
        paths = [path for path in (part.path, tar) if path in self._output.paths]
        return (
            f"delete {', '.join([*paths, *marks])} and give the run's command again: it answers the rows of "
            f"{part.path} again"
        )


def _holds(part: Part, row: RowId) -> bool:
    shard, index = row
    return any(
        shard in unit.paths if unit.paths else unit.shard == shard and unit.start <= index < unit.stop
        for unit in part.units
    )


def _refuse_foreign_plan(checked: Checked, files: int) -> None:
    """Blame the plan, and not each of several files, if the rows of none of them stand in it."""
    if files > 1 and [fault.kind for fault in checked.faults].count(FOREIGN) == files:
        first = checked.faults[0]
        found = f"a plan in which none of the {files} files of results has its rows; of {first.where}: {first.found}"
        checked.faults = [fault for fault in checked.faults if fault.kind != FOREIGN]
        checked.faults.insert(0, Fault("plan", ledger.PLAN, found, "the plan that the run froze", OF_PLAN))


def _strangers(output: ledger.Output, parts: Sequence[Part]) -> list[Fault]:
    """Say what stands there that the plan does not know."""
    planned = {part.path for part in parts} | {tar_path(part.number) for part in parts if part.tar_text}
    units = {unit.name for part in parts for unit in part.units}
    known = [path for path in output.paths if path.startswith((f"{TARS}/", "part-"))]
    paths = [*output.strangers, *(path for path in known if path not in planned)]
    paths += [unit_path(name, ledger.units_folder(output.run)) for name in sorted(output.units - units)]
    expected = f"the plan's {len(parts):,} parts and nothing else that a reader takes for results"
    return [
        Fault("foreign file", path, "a file that the plan does not know", expected, f"move {path} elsewhere")
        for path in paths
    ]


def _ledger_faults(output: ledger.Output, progress: Mapping[str, Any] | None, checked: Checked) -> list[Fault]:
    """Hold the marks and the progress that the run wrote down against what stands there."""
    faults = []
    marks = [mark for mark in (ledger.SUCCESS, ledger.TOO_MANY_FAILED) if mark in output.paths]
    if len(marks) > 1:
        mend = "delete both, and give the run's command again: it leaves the right one"
        faults.append(Fault("marks", " and ".join(marks), "both marks", "one of them", mend))
    said = progress.get("done", 0) if progress else 0
    if not output.is_done and not checked.faults and said > checked.counted.rows:
        found, expected = f"{checked.counted.rows:,} committed rows", f"at least {said:,}, as the run wrote down"
        mend = "give the run's command again: it answers what is missing"
        faults.append(Fault("missing rows", ledger.PROGRESS, found, expected, mend))
    return faults


def _doubled_keys(source: str, rows: int) -> Fault:
    where = f"data set {source}" if source else "key"
    found = f"{rows:,} rows whose key an earlier row has too"
    mend = "give each row of the input a key of its own, and run it anew: its scores count these twice"
    return Fault("doubled keys", where, found, "each key once", mend)
