"""Doubles of what the pipeline is given: a processor, an engine and a job that are small enough to foresee.

The toy answers a prompt of n tokens with n tokens: 1, 2, 3 ..., and is slower with some rows than with others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from models.types import (
    Answer,
    BadImage,
    BadRequest,
    Completion,
    ModelInput,
    PictureFormat,
    PromptTooLong,
    Request,
    Sampling,
)
from pipeline.input.columns import ERROR, OUR_COLUMNS
from pipeline.input.sources import Source
from pipeline.input.units import ReadSettings, Unit
from pipeline.job import Check
from pipeline.rows import ANSWER, IDENTITY, with_unit

READ_SCHEMA = pa.schema([*OUR_COLUMNS, ("text", pa.string()), ("error", ERROR)])


def part_columns(*names: str) -> list[pa.Field]:
    """The columns of these names that every part has; without names, all of them."""
    columns = pa.schema([*map(OUR_COLUMNS.field, IDENTITY), *ANSWER])
    return [columns.field(name) for name in names or columns.names]


def read_rows(rows: Sequence[Mapping[str, Any]], unit: str = "00000000", schema: pa.Schema = READ_SCHEMA) -> pa.Table:
    """What the reader gives for one unit."""
    defaults = {"shard": "s.tar", "images": [b"jpeg"], "text": "look", "error": None}
    table = pa.Table.from_pylist([{"index": i, **defaults, **row} for i, row in enumerate(rows)], schema=schema)
    return with_unit(table, unit, len(rows))


SAMPLING = Sampling()


class ToyProcessor:
    """A prompt has as many tokens as its text has letters; each image is one tile whose colour is its first byte."""

    stop_ids = frozenset({0})
    sees_images = True
    pixels_per_code = 1
    max_position_embeddings = 100
    chat_fault: str | None = None

    def prepare(self, request: Request) -> ModelInput:
        if any(image == b"broken" for image in request.images):
            raise BadImage("cannot decode 6 bytes")
        if request.prompt == "boom":
            raise ZeroDivisionError("division by zero")
        text = request.prompt or ""
        tiles = tuple(np.full((2, 3, 3), image[0], np.uint8) for image in request.images)
        ids = np.arange(len(text), dtype=np.int32)
        if request.grid is not None:
            return ModelInput(text, ids, layout=request.grid, negative=ids[:1], num_new_tokens=len(text))
        return ModelInput(text, ids, tiles, (len(tiles), 7), len(tiles), tuple(map(bytes.hex, request.images)))

    def stop_condition(self, sampling: Sampling) -> Callable[[Sequence[int]], bool] | None:
        return None

    def to_answer(self, model_input: ModelInput, completion: Completion, sampling: Sampling) -> Answer:
        if model_input.prompt == "undecodable":
            raise UnicodeError("no such letter")
        text = " ".join(map(str, completion.token_ids))
        count = len(model_input.token_ids)
        return Answer(
            text, completion.image, completion.token_ids, completion.logprobs, completion.finish_reason, count, 0
        )


@dataclass
class ToySequence:
    """The fields of an engine's sequence that the pipeline touches."""

    key: str
    model_input: ModelInput
    sampling: Sampling
    stop_ids: frozenset[int]
    stop_condition: Callable[[Sequence[int]], bool] | None
    completion: Completion | None = None
    error: Exception | None = None


@dataclass
class ToyEngine:
    """Ends one sequence per step, the shortest prompt first, so that rows leave in another order than they came.

    No answer is longer than its row's sampling says.

    Attributes:
        most_at_once: The most sequences that it held at one time.
        dies_on: A prompt that takes the whole engine down.
        prompts: What was submitted, in that order.
    """

    dies_on: str | None = None
    most_at_once: int = 0
    prompts: list[str] = field(default_factory=list)
    held: list[ToySequence] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        return not self.held

    def submit(self, sequence: ToySequence) -> None:
        self.held.append(sequence)
        self.prompts.append(sequence.model_input.prompt)
        self.most_at_once = max(self.most_at_once, len(self.held))

    def step(self) -> list[ToySequence]:
        sequence = min(self.held, key=lambda one: len(one.model_input.token_ids))
        self.held.remove(sequence)
        if sequence.model_input.prompt == self.dies_on:
            raise RuntimeError("CUDA error: device-side assert triggered")
        length = len(sequence.model_input.token_ids)
        if length > 50:
            sequence.error = PromptTooLong(f"the prompt has {length} tokens")
        elif sequence.model_input.prompt == "costly":
            sequence.error = MemoryError("out of memory on one row")
        else:
            ids = tuple(range(1, min(length, sequence.sampling.max_new_tokens) + 1))
            sequence.completion = Completion(ids, tuple(-0.5 for _ in ids), "stop")
        return [sequence]


@dataclass(frozen=True)
class ToyJob:
    """Asks the column `text` and keeps the answer's text; a text `3 x look` is asked three times, with other seeds."""

    has_text_only_rows: bool = False
    expects_images: bool = False
    kind: str = "toy"
    required: tuple[str, ...] = ("text",)
    optional: tuple[str, ...] = ()
    needs_unique_keys: bool = False
    template: str | None = None
    sampling: Sampling = SAMPLING
    picture: PictureFormat | None = None
    check: Check | None = None

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([("caption", pa.string())])

    @property
    def text_column(self) -> str:
        return "caption"

    def sources(self, read: ReadSettings) -> Sequence[Source]:
        return [Source("", read)]

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        return rows

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        if not row["text"]:
            raise BadRequest("found no text")
        times, _, text = row["text"].rpartition(" x ")
        return [
            Request(prompt=text, images=row["images"], sampling=replace(sampling, seed=sampling.seed + n))
            for n in range(int(times or 1))
        ]

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        if row["text"] == "unrecordable" and answer is not None:
            raise LookupError("no place for this answer")
        if row["text"] == "mistyped" and answer is not None:
            return {"caption": 7}
        return {"caption": answer.text} if answer else {}

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        return {}


def units_of(num_rows: int, unit_rows: int) -> list[Unit]:
    """A plan of so many rows."""
    return [
        Unit(seq, "memory://in", "s.tar", "webdataset", start, min(start + unit_rows, num_rows), b"")
        for seq, start in enumerate(range(0, num_rows, unit_rows))
    ]
