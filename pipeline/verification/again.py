"""Compute rows of an output again, each alone and through the plain steps, in this process; compare what comes of it.

It knows steps and columns, and no Ray.
"""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from models.stopwatch import Stopwatch
from pipeline.execution.guard import Step
from pipeline.execution.work import Work, load_check, load_preprocess
from pipeline.input.formats.rows import ReadError
from pipeline.rows import with_unit
from pipeline.steps.read import read_job_rows, settings_by_source
from pipeline.storage.store import StorageError
from pipeline.verification.files import Chosen

log = logging.getLogger(__name__)

# README, "What it leaves": so far log-probabilities of equal tokens may lie apart on CPUs in float32.
LOGPROB = 1e-5
# Its codes are compared, as tokens; pixels may differ by a level of 255, and then all bytes of the file do.
PICTURE = "image"
# What a device has had no part in: equal wherever it is computed.
OF_THE_PROMPT = ("key", "shard", "index", "prompt", "prompt_tokens", "image_tokens", "seed")


@dataclass(frozen=True)
class Difference:
    """Where a row is another when it is computed again.

    Attributes:
        column: What differs; `rows` if there are more or fewer answers.
        found: What stands in the output.
        again: What came of it now.
    """

    column: str
    found: str
    again: str

    @property
    def is_of_prompt(self) -> bool:
        """Whether it was asked otherwise, and not only answered so."""
        return self.column in OF_THE_PROMPT


@dataclass(frozen=True)
class Again:
    """One row computed again.

    Attributes:
        row: As it stands in the output.
        differences: Where it is another now; empty where it is the same.
        logprob_gap: The largest between log-probabilities of the same tokens.
        failure: Why it could not be computed; empty where it could.
    """

    row: Chosen
    differences: Sequence[Difference] = ()
    logprob_gap: float = 0.0
    failure: str = ""

    @property
    def key(self) -> str:
        """The row's."""
        return str(self.row.rows["key"][0].as_py())

    @property
    def agrees(self) -> bool:
        """Whether all of it is as it stands there."""
        return not self.differences and not self.failure


def answer_again(work: Work, chosen: Sequence[Chosen]) -> list[Again]:
    """Compute rows again, one after the other.

    Args:
        work: What an actor of the run knew.
        chosen: The rows.

    Raises:
        OtherWeights: The model's files are others.
        CheckpointError: The model cannot be loaded.
    """
    if not chosen:
        return []
    stopwatch = Stopwatch()
    steps: list[Step] = [load_preprocess(work, stopwatch), work.load(work, stopwatch)]
    if work.checking is not None:
        steps.append(load_check(work, stopwatch))
    done = []
    with asyncio.Runner() as runner:  # one loop for all: what a step waits on belongs to the first that it was used in
        for row in chosen:
            try:
                again = runner.run(_answer(row, work, steps))
                done.append(_compared(row, again.select(row.rows.column_names)))
            except (ReadError, StorageError) as error:
                done.append(Again(row, failure=str(error)))
            log.info("row %s computed again: %s", done[-1].key, "it agrees" if done[-1].agrees else "it does not agree")
    return done


async def _answer(row: Chosen, work: Work, steps: Sequence[Step]) -> pa.Table:
    number = row.unit.only[row.number] if row.unit.only else row.number
    alone = replace(row.unit, only=(number,))
    table = read_job_rows(alone, work.job, settings_by_source(work.job, work.read))
    block = with_unit(table, alone.name, alone.num_rows)
    for step in steps:
        block = await step(block)
    return block


def _compared(row: Chosen, again: pa.Table) -> Again:
    before, after = row.rows.to_pylist(), again.to_pylist()
    if len(before) != len(after):
        return Again(row, [Difference("rows", f"{len(before)} answers", f"{len(after)} answers")])
    differences: list[Difference] = []
    gap = 0.0
    for one, other in zip(before, after, strict=True):
        if one["error"] is not None:  # what failed then may be well now
            continue
        if other["error"] is not None:
            return Again(row, [Difference("error", "none", f"{other['error']['type']}: {other['error']['message']}")])
        differences += _differences(one, other)
        if one["output_token_ids"] == other["output_token_ids"]:
            pairs = zip(one["output_logprobs"], other["output_logprobs"], strict=True)
            gap = max([gap, *(abs(a - b) for a, b in pairs)])
    return Again(row, differences, gap)


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(name, _said(one[name], other[name]), _said(other[name], one[name]))
        for name in one
        if name != PICTURE and not _are_close(one[name], other[name])
    ]


def _are_close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or math.isclose(one, other, rel_tol=0, abs_tol=LOGPROB) or (one != one and other != other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_are_close, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_close(one[name], other[name]) for name in one)
    return bool(one == other)


def _said(value: Any, other: Any) -> str:
    """Say what a value is: of a list from where on it is another."""
    if isinstance(value, list) and isinstance(other, list):
        first = next((n for n, (a, b) in enumerate(zip(value, other, strict=False)) if not _are_close(a, b)), None)
        first = min(len(value), len(other)) if first is None else first
        return f"{value[first : first + 4]} from number {first} on"
    return f"{value!r:.120}"
