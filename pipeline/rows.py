"""The columns that travel between the steps, and the ones that a part has.

Rows are Arrow columns all the way: tiles are raw uint8 bytes beside their shapes, never pickled objects and never
floats. This file knows names and types; it knows neither storage nor Ray.
"""

import hashlib
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from models.types import ModelInput, Sampling
from pipeline.input.columns import ERROR
from pipeline.job import Job

RowError = dict[str, str]

# What the reader gives for every row; the input's other columns follow.
IDENTITY = ("key", "shard", "index")
READ = (*IDENTITY, "images", "error")
# What a job's `adapt` adds under such a name goes with the row to the job, and into no part.
FOR_THE_JOB = "job."

# What every part has, between `shard, index` and the columns of the input and of the job.
ANSWER = pa.schema(
    [
        ("model", pa.string()),
        ("prompt", pa.string()),
        ("output_token_ids", pa.list_(pa.int32())),
        ("output_logprobs", pa.list_(pa.float32())),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("image_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("seed", pa.int64()),
        ("error", ERROR),
    ]
)

# Columns that exist only between two steps. The dot keeps them apart from any column of an input.
UNIT = "input.unit"
UNIT_ROWS = "input.unit_rows"  # how many of the input's rows the unit has; none may be lost on the way
IS_INPUT = "input.token_ids"  # null where there is nothing to answer
STEP_SECONDS = "input.step_seconds"  # what each step was busy with up to here, the same in all rows of a unit
# The compressed images themselves, where they are to stand in a tar beside the part.
IMAGES = pa.field("input.images", pa.list_(pa.large_binary()))
ODDITIES = "input.oddities"  # what is odd about a row's images and was settled while they were decoded

MESSAGE_CHARACTERS = 2000
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def row_error(stage: str, error: Exception) -> RowError:
    """Describe what went wrong with one row, in the shape of the `error` column."""
    # Libraries like to name objects by their place in memory; a part must not depend on that.
    message = ADDRESS.sub("", str(error) or repr(error))
    return {"stage": stage, "type": type(error).__name__, "message": message[:MESSAGE_CHARACTERS]}


def row_seed(run_seed: int, key: str) -> int:
    """Derive a row's own seed: the same on every machine, in every order, in any company.

    It is the first 63 bits (so never negative) of the BLAKE2b hash of `<run seed>/0/<key>`, where the 0 is the place of
    the row's first answer; what its other answers have, the job says.

    Args:
        run_seed: `generate.sampling.seed`.
        key: The row's key.
    """
    digest = hashlib.blake2b(f"{run_seed}/0/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def with_unit(rows: pa.Table, name: str, num_rows: int) -> pa.Table:
    """Return rows with the columns that say of which unit they are."""
    rows = rows.append_column(UNIT, pa.array([name] * rows.num_rows, pa.string()))
    return rows.append_column(UNIT_ROWS, pa.array([num_rows] * rows.num_rows, pa.int64()))


def with_step_seconds(rows: pa.Table, seconds: Mapping[str, float]) -> pa.Table:
    """Return rows with the seconds of the steps that they have gone through, beside each."""
    kind = pa.map_(pa.string(), pa.float64())
    return rows.append_column(STEP_SECONDS, pa.array([list(seconds.items())] * rows.num_rows, kind))


def take_step_seconds(rows: pa.Table) -> tuple[pa.Table, dict[str, float]]:
    """Return rows without what `with_step_seconds` has put beside them, and that; nothing where nobody has."""
    if STEP_SECONDS not in rows.column_names:
        return rows, {}
    seconds = dict(rows.column(STEP_SECONDS)[0].as_py())
    return rows.drop_columns([STEP_SECONDS]), seconds


def count_rows(results: pa.Table) -> int:
    """Count the input's rows that results stand for: one that asked for several pictures stands there several times."""
    return int(results.select(["shard", "index"]).group_by(["shard", "index"]).aggregate([]).num_rows)


def kept_columns(input_schema: pa.Schema, job: Job) -> list[tuple[str, str]]:
    """Say under which name each of the input's other columns stands in a part, as (name there, name in the input).

    A column that the job reads and writes out under the same name (vqa's `question`) is not kept twice, nor is one that
    sets what stands there anyway (a row's own `seed`), nor what the job's `adapt` has put there for the job alone. Any
    other clash of names is resolved for the input's column, as `input_<name>`, so that nothing is lost.
    """
    ours = {*IDENTITY, *ANSWER.names, *job.schema.names}
    others = [name for name in input_schema.names if name not in READ and not name.startswith(FOR_THE_JOB)]
    written = {name for name in job.required if name in job.schema.names}
    written |= {name for name in job.optional if name in ours}
    kept = [name for name in others if name not in written]
    return [(f"input_{name}" if name in ours else name, name) for name in kept]


def kept_name(columns: Container[str], name: str) -> str:
    """Return what a column of the input is called among the parts' columns; see `kept_columns`."""
    return f"input_{name}" if f"input_{name}" in columns else name


def part_schema(input_schema: pa.Schema, job: Job) -> pa.Schema:
    """Return the one schema that every part of a run has.

    Raises:
        ValueError: Two columns would have the same name.
    """
    if taken := sorted({*IDENTITY, *ANSWER.names}.intersection(job.schema.names)):
        raise ValueError(
            f"found {', '.join(taken)} in the schema of job {job.kind}, expected other names: every part has these"
        )
    fields = [pa.field(name, kind) for name, kind in zip(IDENTITY, (pa.string(), pa.string(), pa.int64()), strict=True)]
    fields += ANSWER
    fields += [pa.field(name, input_schema.field(source).type) for name, source in kept_columns(input_schema, job)]
    fields += [pa.field(field.name, field.type) for field in job.schema]
    names = [field.name for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"output columns {', '.join(twice)} would exist twice; rename the input's")
    return pa.schema(fields)


@dataclass(frozen=True)
class Prepared:
    """One request of a row, made ready; without an input, what kept it from being so."""

    answer: int
    sampling: Sampling
    model_input: ModelInput | None
    error: RowError | None


# The columns of a request made ready: their types, and what each holds of the request or of its input.
_OF_REQUEST: list[tuple[str, pa.DataType, Callable[[Prepared], Any]]] = [
    ("input.answer", pa.int32(), lambda request: request.answer),  # which of the row's answers this one is
    ("input.seed", pa.int64(), lambda request: request.sampling.seed),
    ("input.guidance_scale", pa.float64(), lambda request: request.sampling.guidance_scale),
    ("input.max_new_tokens", pa.int32(), lambda request: request.sampling.max_new_tokens),
]
_OF_INPUT: list[tuple[str, pa.DataType, Callable[[ModelInput], Any]]] = [
    ("input.prompt", pa.string(), lambda given: given.prompt),
    (IS_INPUT, pa.list_(pa.int32()), lambda given: given.token_ids),
    ("input.tiles", pa.list_(pa.large_binary()), lambda given: [_pixel_bytes(tile) for tile in given.tiles]),
    # Height and width of each tile in turn.
    (
        "input.tile_shapes",
        pa.list_(pa.int32()),
        lambda given: [side for tile in given.tiles for side in tile.shape[:2]],
    ),
    ("input.layout", pa.list_(pa.int64()), lambda given: list(given.layout)),
    ("input.image_tokens", pa.int32(), lambda given: given.image_tokens),
    ("input.image_names", pa.list_(pa.string()), lambda given: list(given.image_names)),
    ("input.negative", pa.list_(pa.int32()), lambda given: given.negative),
    ("input.num_new_tokens", pa.int32(), lambda given: given.num_new_tokens),
    ("input.choices", pa.list_(pa.list_(pa.int32())), lambda given: list(given.choices)),
    ("input.shared_length", pa.int32(), lambda given: given.shared_length),
]
MODEL_INPUT = pa.schema([(name, kind) for name, kind, _ in (*_OF_REQUEST, *_OF_INPUT)])


def input_columns(prepared: Sequence[Prepared]) -> list[pa.Array]:
    """Turn requests made ready into the columns of MODEL_INPUT, all but the first four null where one has failed."""
    inputs = [request.model_input for request in prepared]
    columns = [pa.array([value(request) for request in prepared], kind) for _, kind, value in _OF_REQUEST]
    return columns + [pa.array([given and value(given) for given in inputs], kind) for _, kind, value in _OF_INPUT]


def model_inputs(block: pa.Table) -> list[ModelInput | None]:
    """Turn the columns of MODEL_INPUT back; tiles are views into the block, not copies."""
    columns = {name: block.column(name).combine_chunks() for name in MODEL_INPUT.names}
    return [_model_input({name: column[i] for name, column in columns.items()}) for i in range(block.num_rows)]


def _model_input(row: Mapping[str, Any]) -> ModelInput | None:
    if not row[IS_INPUT].is_valid:
        return None
    sides = row["input.tile_shapes"].as_py()
    tiles = row["input.tiles"].values
    return ModelInput(
        prompt=row["input.prompt"].as_py(),
        token_ids=row["input.token_ids"].values.to_numpy(),
        tiles=tuple(
            np.frombuffer(tile.as_buffer(), np.uint8).reshape(height, width, 3)
            for tile, height, width in zip(tiles, sides[::2], sides[1::2], strict=True)
        ),
        layout=tuple(row["input.layout"].as_py()),
        image_tokens=row["input.image_tokens"].as_py(),
        image_names=tuple(row["input.image_names"].as_py()),
        negative=row["input.negative"].values.to_numpy() if row["input.negative"].is_valid else None,
        num_new_tokens=row["input.num_new_tokens"].as_py(),
        choices=tuple(np.array(ids, np.int32) for ids in row["input.choices"].as_py()),
        shared_length=row["input.shared_length"].as_py(),
    )


def _pixel_bytes(tile: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    if tile.dtype != np.uint8 or tile.ndim != 3 or tile.shape[2] != 3:
        raise ValueError(f"a tile is {tile.dtype} {tile.shape}, expected uint8 (height, width, 3)")
    return tile.tobytes()
