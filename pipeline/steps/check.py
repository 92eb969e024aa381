"""Ask another model about finished rows, such as whether a picture shows what it was drawn from.

The check is a step behind generation, on actors of its own; what it finds fills columns of the row. Its few images are
made ready right here: the rows before it took a GPU seconds each.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from models.types import Answer, Request, Sampling
from pipeline.input.columns import ERROR
from pipeline.job import Check
from pipeline.rows import RowError, row_error
from pipeline.steps.answerer import Answerer
from pipeline.steps.engine_thread import EngineDied
from pipeline.steps.generate import fitting

CHECK_STAGE = "check"
# As long as the answers, and no question is about them.
NOT_SHOWN = ("output_token_ids", "output_logprobs")


class CheckFailed(Exception):
    """A question about a row got no answer."""

    def __init__(self, error: RowError) -> None:
        super().__init__(error["message"])
        self.error = {**error, "stage": CHECK_STAGE}


class CheckAnswers:
    """The checking step. An instance owns one engine and is called once per unit, several calls at a time."""

    def __init__(self, answerer: Answerer, check: Check, sampling: Sampling, schema: pa.Schema) -> None:
        """Keep what all units share.

        Args:
            answerer: The running engine of the model that checks.
            check: Says what to ask and what is kept.
            sampling: How it answers; each row has its own seed.
            schema: The job's columns, some of which the check fills.
        """
        self._answerer = answerer
        self.slots = answerer.slots
        self._check = check
        self._sampling = sampling
        self._schema = schema
        self._preparing = asyncio.Lock()  # one at a time: decoding an image changes Python's warnings for a moment

    async def __call__(self, block: pa.Table) -> pa.Table:
        """Return an answered unit with the columns that the check fills; rows with an error pass through."""
        rows = block.drop_columns([name for name in NOT_SHOWN if name in block.column_names]).to_pylist()
        found = await asyncio.gather(*(self._verdict(row) for row in rows))
        for name in dict.fromkeys(name for values, _ in found for name in values):
            field = self._schema.field(name)
            values = [given.get(name, row[name]) for row, (given, _) in zip(rows, found, strict=True)]
            block = _replaced(block, field, pa.array(values, field.type))
        errors = [error or row["error"] for row, (_, error) in zip(rows, found, strict=True)]
        return _replaced(block, pa.field("error", ERROR), pa.array(errors, ERROR))

    async def _verdict(self, row: Mapping[str, Any]) -> tuple[Mapping[str, Any], RowError | None]:
        if row["error"] is not None:
            return {}, None
        try:
            requests = self._check.requests(row, replace(self._sampling, seed=row["seed"]))
            answers = await asyncio.gather(*(self._ask(row["key"], request) for request in requests))
            record = self._check.record(row, answers)
            fitted = fitting(record, self._schema, CHECK_STAGE)
            return {name: fitted[name] for name in record}, None
        except CheckFailed as failure:
            return {}, failure.error
        except EngineDied:  # nobody will answer the other rows either
            raise
        except Exception as failure:  # whatever it is, the picture stands and the other rows go on
            return {}, row_error(CHECK_STAGE, failure)

    async def _ask(self, key: str, request: Request) -> Answer:
        async with self._preparing:
            model_input = await asyncio.to_thread(self._answerer.processor.prepare, replace(request, key=key))
        answered = await self._answerer.answer(key, model_input, request.sampling)
        if answered.answer is None:
            assert answered.error is not None
            raise CheckFailed(answered.error)
        return answered.answer


def _replaced(block: pa.Table, field: pa.Field, column: pa.Array) -> pa.Table:
    return block.set_column(block.column_names.index(field.name), field, column)
