"""What a run has left in its output, read back for the report: plan, attempts, frozen settings, and its parts.

The parts are read in one pass with one of them in memory at a time. Of every row a few bytes are kept, and texts only
of rows that are shown or listed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.candidates import CANDIDATE_COLUMNS, Candidates
from jobs.report.counts import BENCHMARK_COLUMNS, COUNTED, OF_QUESTIONS, BenchmarkCounts, Counts
from jobs.report.job import ReportedJob
from jobs.report.outcome import read_kept_plan
from jobs.report.part_files import Pictures, open_parts
from jobs.report.texts import Texts
from pipeline import FrozenPlan, NotFound, Standing, Store, Unit, has_pictures, ledger, look_at, oddities_in


class ReportError(ValueError):
    """There is nothing to report on."""


@dataclass(frozen=True)
class Results:
    """One output, finished or not.

    Attributes:
        uri: Where it is.
        frozen: `settings`, `device`, `weights`, `versions`, as the run wrote them down at its start.
        units: The run's plan.
        attempts: What each start of the run wrote down at its end, oldest first; of one that still runs or was killed,
            what it last wrote of its progress, without an `outcome`.
        is_finished: Whether the run is finished, with few failed rows or with many.
        too_many_failed: What its mark says where more rows failed than the run allows; else empty.
        warnings: What is wrong with the input although its rows could be read.
        counts: Of rows, tokens, endings and failures.
        texts: The counts of what was written; None for a job that asks questions, or that draws.
        benchmarks: The counts of each benchmark; None for a job that asks none.
        verdicts: How many rows are right, wrong, or neither.
        oddities: What was odd about pictures and was settled while they were decoded, and how often.
        candidates: The rows that the gallery may show.
        pictures: Where the drawn pictures are; None for a job that draws none.
        output_bytes: Of all files with results, without tars.
        plan: What `triptych plan` said before the run, where that is kept beside the report.
        summary_rows: What the job's `summarize` needs, a line for each row of the results.
        judged_rows: The same with a judge's verdicts on the answers that no rule could read; None without a judge.
    """

    uri: str
    frozen: Mapping[str, Any]
    units: Sequence[Unit]
    attempts: Sequence[Mapping[str, Any]]
    is_finished: bool
    too_many_failed: str
    warnings: Sequence[str]
    counts: Counts
    texts: Texts | None
    benchmarks: BenchmarkCounts | None
    verdicts: Mapping[bool | None, int]
    oddities: Mapping[str, int]
    candidates: Candidates
    pictures: Pictures | None
    output_bytes: int
    plan: Mapping[str, Any] | None
    summary_rows: pa.Table
    judged_rows: pa.Table | None

    @property
    def planned_rows(self) -> int:
        """Rows of the input that the output has, or will have."""
        return sum(unit.num_rows for unit in self.units)


def read_results(store: Store, job: ReportedJob) -> Results:
    """Read an output back, its parts one after the other; the job decides what is kept of their rows.

    Of a run that is not finished these are the rows that are committed.

    Raises:
        ReportError: No run has started there, or nothing is committed yet.
        StorageError: It cannot be read.
    """
    while True:
        standing, plan = look_for_parts(store)
        try:
            return _read_output(store, job, standing, plan)
        except NotFound:  # the run goes on meanwhile, and has merged and removed a unit
            if ledger.read_output(store).parts == standing.output.parts:
                raise


def _read_output(store: Store, job: ReportedJob, standing: Standing, plan: FrozenPlan) -> Results:
    output = standing.output
    counts, candidates = Counts(), Candidates(plan.units)
    benchmarks = BenchmarkCounts() if OF_QUESTIONS.issubset(job.schema.names) else None
    texts = Texts() if benchmarks is None and job.picture is None else None
    columns = {*COUNTED, *CANDIDATE_COLUMNS, *(BENCHMARK_COLUMNS if benchmarks else ())}
    columns |= {job.text_column} if texts else set()
    verdict_counts: Counter[bool | None] = Counter()
    oddities: Counter[str] = Counter()
    summary_rows: list[pa.Table] = []
    judged_rows: list[pa.Table] = []
    rows_by_part: dict[str, int] = {}
    are_drawn = False
    for part in open_parts(store, standing.files):
        rows = part.read({*columns, *job.summary_columns(part.schema.names)})
        verdicts = job.verdicts(rows)
        counts.add(rows)
        candidates.add(part, rows, verdicts)
        if texts:
            texts.add(rows[job.text_column].to_pylist())
        if benchmarks:
            benchmarks.add(part, rows, verdicts)
        verdict_counts.update(verdicts)
        summary_rows.append(job.summary_rows(rows))
        if "judged_score" in rows.column_names:
            judged_rows.append(job.summary_rows(_as_judged(rows)))
        oddities += oddities_in(part.schema)
        rows_by_part[part.path] = rows.num_rows
        are_drawn = are_drawn or has_pictures(part.schema)
    last = ledger.unended_start(ledger.read_progress(store), output.paths)
    return Results(
        uri=store.uri,
        frozen=ledger.read_settings(store),
        units=plan.units,
        attempts=[*ledger.read_attempts(store, output.paths), *([last] if last else [])],
        is_finished=output.is_done,
        too_many_failed=_too_many_failed(store, output),
        warnings=plan.warnings,
        counts=counts,
        texts=texts,
        benchmarks=benchmarks,
        verdicts=verdict_counts,
        oddities=oddities,
        candidates=candidates,
        pictures=Pictures(store, rows_by_part) if are_drawn else None,
        output_bytes=sum(file.size for file in standing.files),
        plan=read_kept_plan(store, output.paths),
        summary_rows=_concatenated(summary_rows),
        judged_rows=_concatenated(judged_rows) if judged_rows else None,
    )


def _too_many_failed(store: Store, output: ledger.Output) -> str:
    if ledger.TOO_MANY_FAILED not in output.paths:
        return ""
    return store.read(ledger.TOO_MANY_FAILED).decode(errors="replace").strip()


def look_for_parts(store: Store) -> tuple[Standing, FrozenPlan]:
    """Return what is in an output, and its plan.

    Raises:
        ReportError: No run has started there, or nothing is committed yet.
        StorageError: It cannot be read.
    """
    standing, plan = look_for_run(store)
    if not standing.files:
        raise ReportError(f"found no committed rows in {store.uri} yet; wait, or continue with `triptych run`")
    return standing, plan


def look_for_run(store: Store) -> tuple[Standing, FrozenPlan]:
    """Return what is in an output, which may be nothing yet but a plan.

    Raises:
        ReportError: No run has started there.
        StorageError: It cannot be read.
    """
    standing = look_at(store)
    if standing.plan is None:
        raise ReportError(f"found no run in {store.uri} ({ledger.PLAN} is missing), expected the output of one")
    return standing, standing.plan


def _as_judged(rows: pa.Table) -> pa.Table:
    """Put a judge's verdicts in the place of what no rule could read; other rows stay as they are."""
    judged = pc.cast(rows["judged_score"], pa.float64())
    scores = pc.if_else(rows["judge"].is_valid(), judged, pc.cast(rows["score"], pa.float64()))
    rows = rows.set_column(rows.column_names.index("score"), "score", scores)
    if "parsed" not in rows.column_names or "judge_verdict" not in rows.column_names:
        return rows
    parsed = pc.coalesce(pc.cast(rows["judge_verdict"], pa.string()), rows["parsed"])
    return rows.set_column(rows.column_names.index("parsed"), "parsed", parsed)


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries()  # each part has a dictionary of its own
