"""Score stored answers without a model: a run's or another tool's, by any rule, perhaps with a judge, and report on it.

It writes an output like a run's, which `triptych report`, `compare` and `submit` take.
"""

import argparse
from collections.abc import Mapping, Sequence

from jobs.benchmarks.settings import AUTO
from jobs.config import output_at
from jobs.evaluation.answers import Answers, vqa_job
from jobs.evaluation.file_answers import PredictionFile, answers_from_file
from jobs.evaluation.judge import Judge, add_verdicts, model_judge
from jobs.evaluation.predictions import EXTENSIONS
from jobs.evaluation.run_answers import answers_from_run
from jobs.report.results import ReportError
from jobs.report.writer import Report, write_report
from jobs.scoring.rules import NAMES
from pipeline import ConfigError, Store, dump_settings, freeze_plan, ledger, parquet_bytes

# In the frozen settings of an output that was scored from stored answers: where these are from.
SCORED_FROM = "scored_from"
# Arguments about answers of another tool; a run's output needs none of them.
FILE_ARGUMENTS = ("benchmark", "id", "response", "model", "preset")


def run_command(arguments: argparse.Namespace) -> Report:
    """Score stored answers as the arguments of `triptych score` say; return the report on them.

    Raises:
        ConfigError: An argument is wrong.
        ReportError: Answers are missing, fit no row, or cannot be scored so.
        StorageError: Something cannot be read or written.
    """
    rules = _rules(arguments.rule)
    predictions = output_at(arguments.predictions, arguments.overrides)
    answers = _from_run(arguments, predictions, rules) if arguments.data is None else _from_file(arguments, rules)
    to = Store(arguments.to, answers.settings.write.storage)
    judge = None if arguments.judge is None else model_judge(arguments.judge)
    return score(answers, to, predictions.uri, judge)


def score(answers: Answers, to: Store, origin: str, judge: Judge | None = None) -> Report:
    """Score answers, write the rows and the report on them; return the report.

    Args:
        answers: The answers.
        to: Where to write the rows: a folder that is empty, or holds what an earlier call has written.
        origin: Where the answers are from.
        judge: Asked about answers that no rule can read; the rules' own scores stay beside its verdicts.

    Raises:
        ReportError: The folder holds something else, a rule cannot score a row, or there is nothing to score.
        JudgeError: The judge has failed. Nothing is written but its replies.
        StorageError: Something cannot be read or written.
    """
    before = _refuse_other_files(to, answers)
    pieces = answers.pieces() if judge is None else add_verdicts(answers.pieces, judge, to)
    first = next(pieces, None)  # a rule or a judge that fails does so now, before anything is removed
    if first is None:
        raise ReportError(f"found no answer in {origin}, expected some to score")
    ledger.clear(to, before)
    settings = dump_settings(answers.settings)
    settings["write"]["uri"] = to.name("")
    ledger.freeze_settings(to, {**answers.frozen, "settings": settings, SCORED_FROM: origin})
    freeze_plan(to, answers.units, answers.warnings)
    for path, attempt in answers.attempts.items():
        to.publish(path, attempt)
    for piece in (first, *pieces):
        to.replace(piece.path, parquet_bytes(piece.rows))
    if answers.is_whole:
        to.publish(ledger.SUCCESS, b"")
    return write_report(to, vqa_job(answers.settings), answers.settings.read)


def _refuse_other_files(to: Store, answers: Answers) -> ledger.Output:
    """Return what is in the folder for the scored rows; refuse files of a run or of anybody else."""
    before = ledger.read_output(to)
    if before.strangers:
        raise ReportError(f"{to.uri} holds files of another origin ({', '.join(before.strangers[:3])}), expected none")
    if not before.paths:
        return before
    frozen = ledger.read_settings(to) if before.is_started else {}
    # The settings are equal only where the answers are from, by whatever path that is reached.
    if SCORED_FROM not in frozen or frozen == answers.frozen:
        raise ReportError(f"{to.uri} holds the results of a run, expected a folder of its own for the scored rows")
    return before


def _from_run(arguments: argparse.Namespace, output: Store, rules: Mapping[str, str]) -> Answers:
    if given := [f"--{name}" for name in FILE_ARGUMENTS if getattr(arguments, name) is not None]:
        fault = f"found {', '.join(given)} without --data, expected the data set's rows for answers of another tool"
        raise ConfigError("the command line", [fault])
    if arguments.predictions.endswith(EXTENSIONS):
        fault = (
            f"found {arguments.predictions} without --data, expected the data set's rows beside answers of another "
            "tool: --data URI --benchmark NAME"
        )
        raise ConfigError("the command line", [fault])
    return answers_from_run(
        output,
        rules,
        overrides=arguments.overrides,
        end_tokens=arguments.end_token,
        allow_missing=arguments.allow_missing,
    )


def _from_file(arguments: argparse.Namespace, rules: Mapping[str, str]) -> Answers:
    benchmark = arguments.benchmark
    if arguments.preset == AUTO:
        raise ConfigError("the command line", ["--preset auto: found no model to go by, expected a preset's name"])
    if others := [name for name in rules if name not in ("", benchmark)]:
        raise ConfigError("the command line", [f"--rule {others[0]}=...: expected {benchmark or 'a rule alone'}"])
    file = PredictionFile(
        uri=arguments.predictions,
        data=arguments.data,
        benchmark=benchmark,
        rule=next(iter(rules.values()), None),
        preset=arguments.preset,
        id_name=arguments.id,
        response_name=arguments.response,
        model=arguments.model,
        overrides=arguments.overrides,
        end_tokens=arguments.end_token,
        allow_missing=arguments.allow_missing,
    )
    return answers_from_file(file, arguments.to)


def _rules(texts: Sequence[str]) -> dict[str, str]:
    """Read `ID` and `NAME=ID`."""
    rules: dict[str, str] = {}
    faults = []
    for text in texts:
        name, _, rule = text.rpartition("=")
        if rule not in NAMES:
            faults.append(f"--rule {text}: found {rule!r}, expected a rule: {', '.join(NAMES)}")
        if name in rules:
            faults.append(f"--rule {text}: found two rules for {name or 'all benchmarks'}, expected one")
        rules[name] = rule
    if faults:
        raise ConfigError("the command line", faults)
    return rules
