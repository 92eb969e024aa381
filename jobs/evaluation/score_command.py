"""What `triptych score` was asked, turned into stored answers, a place and a judge. It prints nothing."""

import argparse
from collections.abc import Mapping, Sequence

from jobs.benchmarks.settings import AUTO
from jobs.config import output_at
from jobs.evaluation import joined, stored
from jobs.evaluation.answers import Answers
from jobs.evaluation.judge_model import model_judge
from jobs.evaluation.predictions import FORMATS
from jobs.evaluation.score import Scored, score
from jobs.scoring.rules import NAMES
from pipeline import ConfigError, Store

# What says how answers of another tool are read; a run's output needs none of it.
FOR_OTHERS = ("benchmark", "id", "response", "model", "preset")


def score_as_asked(asked: argparse.Namespace) -> Scored:
    """Score stored answers as the command line asks.

    Raises:
        ConfigError: What is asked for cannot be.
        ReportError: Answers are missing, fit no row, or cannot be scored so.
        StorageError: Something cannot be read or written.
    """
    rules = _rules(asked.rule)
    predictions = output_at(asked.predictions, asked.overrides)
    answers = _from_output(asked, predictions, rules) if asked.data is None else _from_file(asked, rules)
    to = Store(asked.to, answers.settings.write.storage)
    judge = None if asked.judge is None else model_judge(asked.judge)
    return score(answers, to, predictions.uri, judge)


def _from_output(asked: argparse.Namespace, output: Store, rules: Mapping[str, str]) -> Answers:
    if given := [f"--{name}" for name in FOR_OTHERS if getattr(asked, name) is not None]:
        fault = f"found {', '.join(given)} without --data, expected the data set's rows for answers of another tool"
        raise ConfigError("the command line", [fault])
    if asked.predictions.endswith(FORMATS):
        fault = (
            f"found {asked.predictions} without --data, expected the data set's rows beside answers of another tool: "
            "--data URI --benchmark NAME"
        )
        raise ConfigError("the command line", [fault])
    return stored.answers_of(
        output,
        rules,
        overrides=asked.overrides,
        end_tokens=asked.end_token,
        allow_missing=asked.allow_missing,
    )


def _from_file(asked: argparse.Namespace, rules: Mapping[str, str]) -> Answers:
    if asked.preset == AUTO:
        raise ConfigError("the command line", ["--preset auto: found no model to go by, expected a preset's name"])
    if others := [name for name in rules if name not in ("", asked.benchmark)]:
        raise ConfigError("the command line", [f"--rule {others[0]}=...: expected {asked.benchmark or 'a rule alone'}"])
    wanted = joined.Asked(
        predictions=asked.predictions,
        data=asked.data,
        benchmark=asked.benchmark,
        rule=next(iter(rules.values()), None),
        preset=asked.preset,
        id_name=asked.id,
        response_name=asked.response,
        model=asked.model,
        overrides=asked.overrides,
        end_tokens=asked.end_token,
        allow_missing=asked.allow_missing,
    )
    return joined.answers_of(wanted, asked.to)


def _rules(given: Sequence[str]) -> dict[str, str]:
    """Read `ID` and `NAME=ID`."""
    rules: dict[str, str] = {}
    faults = []
    for text in given:
        name, _, rule = text.rpartition("=")
        if rule not in NAMES:
            faults.append(f"--rule {text}: found {rule!r}, expected a rule: {', '.join(NAMES)}")
        if name in rules:
            faults.append(f"--rule {text}: found two rules for {name or 'all benchmarks'}, expected one")
        rules[name] = rule
    if faults:
        raise ConfigError("the command line", faults)
    return rules
