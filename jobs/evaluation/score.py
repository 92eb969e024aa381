"""Score stored answers without a model: theirs or ours, by any rule, with a judge if one is given, and report on it.

What it writes is an output like a run's: `triptych report`, `compare` and `submit` take it. It holds the order of
things; where answers come from, stored.py and joined.py know.
"""

from dataclasses import dataclass

from jobs.evaluation.answers import Answers
from jobs.evaluation.judge import Judge
from jobs.evaluation.judged import judged
from jobs.report.results import ReportError
from jobs.report.write import Report, write_report
from pipeline import Store, dump_settings, freeze_plan, ledger, parquet_bytes

# Stands among the frozen settings of an output that was scored from stored answers: from which.
SCORED_FROM = "scored_from"


@dataclass(frozen=True)
class Scored:
    """What has come of scoring stored answers.

    Attributes:
        report: The report on them.
        rows: How many rows have an answer or an error.
        planned_rows: How many there are.
        uri: Where the scored rows stand.
    """

    report: Report
    rows: int
    planned_rows: int
    uri: str


def score(answers: Answers, to: Store, origin: str, judge: Judge | None = None) -> Scored:
    """Score answers, write the rows and the report on them.

    Args:
        answers: What is scored.
        to: Where the rows are to stand: a folder that is empty, or holds what an earlier call has written.
        origin: Where the answers come from.
        judge: Who is asked about answers that no rule can read; the rules' own scores stay beside.

    Raises:
        ReportError: Something else stands there, a rule cannot look at a row, or there is nothing to score.
        JudgeError: The judge has failed. Nothing is written but what it has said.
        StorageError: Something cannot be read or written.
    """
    standing = _refuse_strangers(to, answers)
    pieces = answers.pieces() if judge is None else judged(answers.pieces, judge, to)
    first = next(pieces, None)  # what is wrong with rules and judges is known now, before anything is removed
    if first is None:
        raise ReportError(f"found no answer in {origin}, expected some to score")
    ledger.clear(to, standing)
    settings = dump_settings(answers.settings)
    settings["write"]["uri"] = to.name("")
    ledger.freeze_settings(to, {**answers.frozen, "settings": settings, SCORED_FROM: origin})
    freeze_plan(to, answers.units, answers.warnings)
    for path, attempt in answers.attempts.items():
        to.publish(path, attempt)
    rows = 0
    for piece in (first, *pieces):
        to.replace(piece.path, parquet_bytes(piece.rows))
        rows += piece.rows.num_rows
    if answers.is_whole:
        to.publish(ledger.SUCCESS, b"")
    return Scored(write_report(to, answers.job, answers.settings.read), rows, answers.planned_rows, to.uri)


def _refuse_strangers(to: Store, answers: Answers) -> ledger.Output:
    """Return what stands where scored rows are to stand, if that is of no run and of nobody else."""
    standing = ledger.read_output(to)
    if standing.strangers:
        raise ReportError(
            f"{to.uri} holds files of another origin ({', '.join(standing.strangers[:3])}), expected none"
        )
    if not standing.paths:
        return standing
    frozen = ledger.read_settings(to) if standing.is_started else {}
    # Where the answers come from is frozen alike only there, by whatever path it is reached.
    if SCORED_FROM not in frozen or frozen == answers.frozen:
        raise ReportError(f"{to.uri} holds the results of a run, expected a folder of its own for the scored rows")
    return standing
