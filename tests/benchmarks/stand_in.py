"""Steps that answer without a model, so that what is measured is the way of the rows and nothing else.

The real `run` runs; only what it would load in its actors is another thing. Knows the columns, and no model.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.plain_job import PlainJob
from models.stopwatch import Stopwatch
from models.types import Answer, ModelInput, Request, Sampling
from pipeline.execution.guard import Step
from pipeline.execution.work import Work
from pipeline.rows import ANSWER, IDENTITY, MODEL_INPUT, UNIT, UNIT_ROWS, kept_columns, part_schema
from pipeline.steps.answerer import Answered, Answerer
from pipeline.steps.generate import Generate

WORDS = "a picture of something"
TOKENS = (5, 9, 2, 6, 5, 3, 5, 8)


class Silent(Answerer):
    """Gives every row the same answer at once."""

    def __init__(self) -> None:
        """Load nothing."""

    async def answer(self, key: str, model_input: ModelInput, sampling: Sampling) -> Answered:
        """Say the one thing."""
        size = len(model_input.token_ids)
        answer = Answer(WORDS, None, TOKENS, (0.0,) * len(TOKENS), "length", size, model_input.image_tokens)
        return Answered(answer, None)


@dataclass(frozen=True, kw_only=True)
class NullJob(PlainJob):
    """Asks one question of every line of text, and keeps one column."""

    kind: str = "null"
    text_column: str = "said"
    required: tuple[str, ...] = ("text",)
    has_text_only_rows: bool = True

    @property
    def schema(self) -> pa.Schema:
        """One column."""
        return pa.schema([("said", pa.string())])

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        """Ask the line itself."""
        return [Request(messages=[{"role": "user", "content": row["text"]}], sampling=sampling)]

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        """Keep what was said."""
        return {"said": answer and answer.text}


def load_silent(pids: str, work: Work, stopwatch: Stopwatch) -> Step:
    """Return the answering step as it is, row by row, but for the engine; leave a note of its process."""
    (Path(pids) / str(os.getpid())).touch()
    return Generate(Silent(), work.job, work.answering.sampling, work.model_name, work.schema)


def load_no_preprocess(work: Work, stopwatch: Stopwatch) -> Step:
    """Return a step that adds the columns of inputs and looks at no row."""

    async def step(block: pa.Table) -> pa.Table:
        kept = block.drop_columns(["images"])
        for field in MODEL_INPUT:
            kept = kept.append_column(field, pa.nulls(block.num_rows, field.type))
        return kept

    return step


def load_no_generate(work: Work, stopwatch: Stopwatch) -> Step:
    """Return a step that adds the columns of answers and looks at no row."""
    schema, kept = part_schema(work.schema, work.job), kept_columns(work.schema, work.job)
    values = {
        "model": "null", "prompt": "", "output_token_ids": list(TOKENS), "output_logprobs": [0.0] * len(TOKENS),
        "finish_reason": "length", "prompt_tokens": 8, "image_tokens": 0, "output_tokens": len(TOKENS), "seed": 0,
        "said": WORDS,
    }  # fmt: skip

    async def step(block: pa.Table) -> pa.Table:
        n = block.num_rows
        columns = {name: block.column(name) for name in (*IDENTITY, "error")}
        columns |= {name: block.column(source) for name, source in kept}
        for field in (*ANSWER, *work.job.schema):
            if field.name not in columns:
                columns[field.name] = pa.array([values[field.name]], field.type).take(pa.array([0] * n))
        table = pa.table([columns[name] for name in schema.names], schema=schema)
        return table.append_column(UNIT, block.column(UNIT)).append_column(UNIT_ROWS, block.column(UNIT_ROWS))

    return step


@contextmanager
def silent_engines(pids: Path) -> Iterator[None]:
    """Let runs answer with `load_silent`; the numbers of the answering processes are names of files in `pids`."""
    pids.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.run.load_generate", partial(load_silent, str(pids)))
        yield


@contextmanager
def no_steps() -> Iterator[None]:
    """Let runs read and write, and do nothing in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.run.load_generate", load_no_generate)
        patch.setattr("pipeline.execution.stream.load_preprocess", load_no_preprocess)
        yield
