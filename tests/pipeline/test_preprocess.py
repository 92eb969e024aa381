import numpy as np
import pyarrow as pa
import pytest

from models.types import BadImage, ModelInput, Sampling
from pipeline.rows import (
    MODEL_INPUT,
    Prepared,
    count_rows,
    input_columns,
    kept_columns,
    kept_name,
    model_inputs,
    part_schema,
    row_error,
    row_seed,
)
from pipeline.steps.preprocess import Preprocess
from tests.pipeline.toys import READ_SCHEMA, ToyJob, ToyProcessor, read_rows


def ready(model_input: ModelInput) -> Prepared:
    return Prepared(0, Sampling(), model_input, None)


def prepared(*rows: dict[str, object], has_text_only_rows: bool = False) -> pa.Table:
    step = Preprocess(ToyProcessor(), ToyJob(has_text_only_rows), Sampling(seed=5))
    return step(read_rows(rows))


def test_rows_become_inputs_in_their_order() -> None:
    block = prepared({"key": "a", "text": "abc", "images": [b"\x01", b"\x02"]}, {"key": "b", "text": "z"})
    first, second = model_inputs(block)
    assert first is not None and second is not None
    assert first.prompt == "abc" and first.token_ids.tolist() == [0, 1, 2] and first.token_ids.dtype == np.int32
    assert [tile[0, 0, 0] for tile in first.tiles] == [1, 2] and first.tiles[0].shape == (2, 3, 3)
    assert first.layout == (2, 7) and first.image_tokens == 2 and first.image_names == ("01", "02")
    assert block.column("key").to_pylist() == ["a", "b"]
    assert "images" not in block.column_names


def test_each_failure_costs_one_row_and_names_its_stage() -> None:
    fetch = {"stage": "fetch", "type": "NotFound", "message": "gone"}
    block = prepared(
        {"key": "good"},
        {"key": "fetch", "images": [], "error": fetch},
        {"key": "none", "images": []},
        {"key": "null", "images": None},
        {"key": "broken", "images": [b"broken"]},
        {"key": "empty", "text": ""},
        {"key": "boom", "text": "boom"},
        {"key": "also good"},
    )
    errors = block.column("error").to_pylist()
    assert [error and (error["stage"], error["type"]) for error in errors] == [
        None,
        ("fetch", "NotFound"),
        ("fetch", "MissingImage"),
        ("fetch", "MissingImage"),
        ("decode", "BadImage"),
        ("template", "BadRequest"),
        ("preprocess", "ZeroDivisionError"),
        None,
    ]
    assert [given is None for given in model_inputs(block)] == [error is not None for error in errors]


def test_a_row_that_wants_several_answers_becomes_several_rows_of_its_unit() -> None:
    block = prepared({"key": "a", "text": "3 x abc"}, {"key": "b", "text": ""}, {"key": "c", "text": "2 x z"})
    assert block.column("key").to_pylist() == ["a", "a", "a", "b", "c", "c"]
    assert block.column("index").to_pylist() == [0, 0, 0, 1, 2, 2]
    assert block.column("input.answer").to_pylist() == [0, 1, 2, 0, 0, 1]
    seed = row_seed(5, "a")
    assert block.column("input.seed").to_pylist()[:3] == [seed, seed + 1, seed + 2]
    assert [error is None for error in block.column("error").to_pylist()] == [True, True, True, False, True, True]
    assert [given and given.prompt for given in model_inputs(block)] == ["abc", "abc", "abc", None, "z", "z"]
    assert count_rows(block) == 3


def test_what_a_drawn_answer_needs_travels_with_its_input() -> None:
    given = ModelInput("p", np.array([1], np.int32), (), (2, 3), 0, (), np.array([4, 5], np.int32), 11)
    columns = input_columns([ready(given), Prepared(1, Sampling(guidance_scale=2.5, seed=8), None, None)])
    block = pa.table(columns, schema=MODEL_INPUT)
    back, none = model_inputs(block)
    assert back is not None and none is None
    assert back.negative is not None and back.negative.tolist() == [4, 5]
    assert back.is_drawn and back.num_new_tokens == 11 and back.layout == (2, 3)
    assert block.column("input.guidance_scale").to_pylist() == [1.0, 2.5]
    assert block.column("input.seed").to_pylist() == [0, 8]


def test_choices_travel_with_their_input() -> None:
    choices = (np.array([4], np.int32), np.array([5, 6], np.int32))
    given = ModelInput("p", np.array([1], np.int32), choices=choices, shared_length=1)
    columns = input_columns([ready(given), Prepared(0, Sampling(), None, None), ready(ModelInput("", choices[0]))])
    chosen, none, answered = model_inputs(pa.table(columns, schema=MODEL_INPUT))
    assert chosen is not None and none is None and answered is not None
    assert [(ids.dtype, ids.tolist()) for ids in chosen.choices] == [(np.int32, [4]), (np.int32, [5, 6])]
    assert answered.choices == () and (chosen.shared_length, answered.shared_length) == (1, 0)


def test_an_error_names_no_place_in_memory() -> None:
    error = row_error("decode", BadImage("cannot identify image file <_io.BytesIO object at 0x7fbae7eee5c0>"))
    assert error["message"] == "cannot identify image file <_io.BytesIO object>"


def test_a_job_with_text_only_rows_asks_without_an_image() -> None:
    (given,) = model_inputs(prepared({"key": "a", "images": []}, has_text_only_rows=True))
    assert given is not None and given.tiles == ()


def test_tiles_travel_as_views_of_plain_bytes() -> None:
    tile = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    columns = input_columns([ready(ModelInput("p", np.array([1, 2], np.int32), (tile,)))])
    block = pa.table(columns, schema=MODEL_INPUT)
    (back,) = model_inputs(block)
    assert back is not None and np.array_equal(back.tiles[0], tile)
    assert not back.tiles[0].flags.owndata
    assert block.schema.field("input.tiles").type == pa.list_(pa.large_binary())


def test_a_tile_that_is_not_uint8_is_refused() -> None:
    tile = np.zeros((2, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r"a tile is float32 \(2, 2, 3\), expected uint8"):
        input_columns([ready(ModelInput("p", np.zeros(1, np.int32), (tile,)))])


def test_inputs_survive_any_slicing_of_their_block() -> None:
    block = prepared(*[{"key": str(n), "text": "x" * (n + 1), "images": [bytes([n])]} for n in range(9)])
    for given, n in zip(model_inputs(block.slice(3, 4)), range(3, 7), strict=True):
        assert given is not None
        assert len(given.token_ids) == n + 1 and int(given.tiles[0].max()) == n


def test_a_rows_seed_depends_on_run_and_key_alone() -> None:
    assert row_seed(0, "a") == row_seed(0, "a") == 5050641589276093629
    assert len({row_seed(0, "a"), row_seed(1, "a"), row_seed(0, "b")}) == 3
    assert all(0 <= row_seed(n, "k") < 2**63 for n in range(1000))


def test_no_column_of_the_input_is_lost_to_one_of_ours() -> None:
    schema = READ_SCHEMA.append(pa.field("caption", pa.string())).append(pa.field("model", pa.int64()))
    assert kept_columns(schema, ToyJob()) == [
        ("text", "text"),
        ("input_caption", "caption"),
        ("input_model", "model"),
    ]
    names = part_schema(schema, ToyJob()).names
    assert names[:4] == ["key", "shard", "index", "model"]
    assert names[-4:] == ["text", "input_caption", "input_model", "caption"]


def test_a_column_that_a_prompt_names_is_kept_beside_ours_of_that_name() -> None:
    schema = READ_SCHEMA.append(pa.field("model", pa.string())).append(pa.field("seed", pa.int64()))
    job = ToyJob(required=("text", "model", "seed"))
    assert kept_columns(schema, job) == [("text", "text"), ("input_model", "model"), ("input_seed", "seed")]
    names = part_schema(schema, job).names
    assert [kept_name(names, name) for name in ("text", "model", "seed")] == ["text", "input_model", "input_seed"]
    # But a row that sets its own seed has it in the part's.
    assert kept_columns(schema, ToyJob(required=("text",), optional=("seed",))) == [
        ("text", "text"),
        ("input_model", "model"),
    ]


def test_a_jobs_column_by_a_name_that_every_part_has_is_the_jobs_fault() -> None:
    class Prompted(ToyJob):
        schema = pa.schema([("prompt", pa.string())])

    with pytest.raises(ValueError, match="found prompt in the schema of job toy"):
        part_schema(READ_SCHEMA, Prompted())


def test_columns_that_would_stand_twice_are_named() -> None:
    schema = READ_SCHEMA.append(pa.field("model", pa.int64())).append(pa.field("input_model", pa.int64()))
    with pytest.raises(ValueError, match="input_model would exist twice"):
        part_schema(schema, ToyJob())
