"""Answer prepared rows on device actors whose engine lives from the first unit of a run to the last.

Several units are in flight at once, so that the engine's slots stay full while one unit ends and the next begins; rows
end in any order and leave in the order of their unit. This file knows nothing of storage.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from models.images import group_by_image
from models.types import ModelInput, Sampling
from pipeline.job import Job
from pipeline.rows import (
    ANSWER,
    IDENTITY,
    IMAGES,
    ODDITIES,
    UNIT,
    UNIT_ROWS,
    kept_columns,
    model_inputs,
    part_schema,
    row_error,
)
from pipeline.steps.answerer import Answered, Answerer

# What of its sampling a row may have for itself.
OF_A_ROW = ("seed", "guidance_scale", "max_new_tokens")


class Generate:
    """The device step. An instance owns one engine and is called once per unit, several calls at a time."""

    def __init__(self, answerer: Answerer, job: Job, sampling: Sampling, model: str, schema: pa.Schema) -> None:
        """Keep what all units share.

        Args:
            answerer: The running engine, and what stands before and behind it.
            job: Says what is kept of an answer.
            sampling: The run's; each row has what OF_A_ROW says for itself.
            model: Stands in the column `model`.
            schema: The columns of what the reader gives.
        """
        self._answerer = answerer
        self.slots = answerer.slots
        self._job = job
        self._sampling = sampling
        self._model = model
        self._kept = kept_columns(schema, job)
        self._schema = part_schema(schema, job)

    async def __call__(self, block: pa.Table) -> pa.Table:
        """Answer the rows of one unit; return them in the schema of a part, with the unit's name beside each."""
        inputs = model_inputs(block)
        rows = _rows(block)
        # Questions about one image stand next to each other, so that it is still there for the second one.
        order = group_by_image([given.image_names if given else () for given in inputs])
        ended = await asyncio.gather(*(self._answer(rows[place], inputs[place]) for place in order))
        answered = [result for _, result in sorted(zip(order, ended, strict=True), key=lambda pair: pair[0])]
        recorded = [self._record(row, result) for row, result in zip(rows, answered, strict=True)]
        table = self._table(block, rows, inputs, recorded)
        # Filtered and not taken: Arrow joins what it takes, and refuses to with more than 2 GiB of pictures.
        return table.filter(pa.array(_standing(rows, [answered.error is not None for answered, _ in recorded])))

    async def _answer(self, row: Mapping[str, Any], model_input: ModelInput | None) -> Answered:
        if model_input is None:
            return Answered(None, row["error"])
        return await self._answerer.answer(row["key"], model_input, self._sampling_of(row))

    def _sampling_of(self, row: Mapping[str, Any]) -> Sampling:
        return replace(self._sampling, **{name: row[f"input.{name}"] for name in OF_A_ROW})

    def _record(self, row: Mapping[str, Any], answered: Answered) -> tuple[Answered, dict[str, Any]]:
        """Ask the job what it keeps; a job that cannot say costs the row its answer, never its place."""
        given = {name: value for name, value in row.items() if not name.startswith("input.")}
        try:
            record = self._job.record(given, answered.answer, row["input.answer"], self._sampling_of(row))
            return answered, fitting(record, self._job.schema, f"job {self._job.kind}")
        except Exception as error:
            failed = Answered(None, answered.error or row_error("record", error))
        if answered.error is None:
            return self._record(row, failed)
        return failed, dict.fromkeys(self._job.schema.names)

    def _table(
        self,
        block: pa.Table,
        rows: Sequence[Mapping[str, Any]],
        inputs: Sequence[ModelInput | None],
        recorded: Sequence[tuple[Answered, Mapping[str, Any]]],
    ) -> pa.Table:
        answers = [
            _answer_columns(self._model, row["input.seed"], model_input, answered)
            for row, model_input, (answered, _) in zip(rows, inputs, recorded, strict=True)
        ]
        columns: dict[str, Any] = {name: block.column(name) for name in IDENTITY}
        columns |= {field.name: pa.array([result[field.name] for result in answers], field.type) for field in ANSWER}
        columns |= {name: block.column(source) for name, source in self._kept}
        columns |= {
            field.name: pa.array([record[field.name] for _, record in recorded], field.type)
            for field in self._job.schema
        }
        table = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
        kept = [IMAGES.name] if IMAGES.name in block.column_names else []
        for name in (UNIT, UNIT_ROWS, ODDITIES, *kept):
            table = table.append_column(name, block.column(name))
        return table


def _standing(rows: Sequence[Mapping[str, Any]], have_failed: Sequence[bool]) -> list[bool]:
    """Say which rows stay: of a row none of whose answers came to be, the first alone."""
    well = {(row["shard"], row["index"]) for row, has_failed in zip(rows, have_failed, strict=True) if not has_failed}
    return [row["input.answer"] == 0 or (row["shard"], row["index"]) in well for row in rows]


def fitting(record: Mapping[str, Any], schema: pa.Schema, who: str) -> dict[str, Any]:
    """Return a record as a schema's columns hold it; checked now, for inside a column it would cost the whole unit.

    Raises:
        KeyError: The schema lacks one of its columns.
        ArrowException: A value is of another type.
    """
    unknown = [name for name in record if name not in schema.names]
    if unknown:
        raise KeyError(f"{who} recorded {', '.join(unknown)}, which its schema does not have")
    return {field.name: pa.scalar(record.get(field.name), field.type).as_py() for field in schema}


def _answer_columns(model: str, seed: int, model_input: ModelInput | None, answered: Answered) -> dict[str, Any]:
    """Return one row's values of ANSWER; what a failed row never had is null, what it did not emit is empty."""
    answer = answered.answer
    return {
        "model": model,
        "prompt": model_input.prompt if model_input else None,
        "output_token_ids": answer.token_ids if answer else (),
        "output_logprobs": answer.logprobs if answer else (),
        "finish_reason": answer.finish_reason if answer else "error",
        "prompt_tokens": len(model_input.token_ids) if model_input else None,
        "image_tokens": model_input.image_tokens if model_input else None,
        "output_tokens": len(answer.token_ids) if answer else 0,
        "seed": seed,
        "error": answered.error,
    }


def _rows(block: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as the job knows them, with their error and what is their answer's own, without its input."""
    names = [name for name in block.column_names if not name.startswith("input.")]
    return list(block.select([*names, "input.answer", *(f"input.{name}" for name in OF_A_ROW)]).to_pylist())
