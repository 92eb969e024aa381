"""Rows of every kind go through the real CPU and device steps of each family as they would alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.vqa import VqaSettings
from models import Request, Sampling, ask, load_model, load_processor
from models.engine import Engine
from models.engine.scheduler import Sequence as EngineSequence
from pipeline.rows import MODEL_INPUT, Prepared, input_columns, model_inputs, row_seed
from pipeline.steps.answerer import Answerer
from pipeline.steps.engine_thread import EngineThread
from pipeline.steps.generate import Generate
from pipeline.steps.preprocess import Preprocess
from tests.models.test_image_reader import SETTINGS
from tests.pictures import encoded
from tests.pipeline.toys import READ_SCHEMA, read_rows
from tests.tiny import FAMILIES

JOB = VqaSettings(kind="vqa").build()
SAMPLING = Sampling(max_new_tokens=5, temperature=1.0, seed=4)
SCHEMA = READ_SCHEMA.append(pa.field("question", pa.string())).append(pa.field("answers", pa.list_(pa.string())))


@pytest.fixture(scope="module", params=list(FAMILIES.values()), ids=list(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(request.param(tmp_path_factory.mktemp("checkpoint")))


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (30 + 10 * seed, 40, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def asked(*images: Sequence[bytes]) -> list[dict[str, Any]]:
    return [
        {"key": f"row{n}", "images": list(several), "question": f"Is it {n}?", "answers": ["yes"]}
        for n, several in enumerate(images)
    ]


def answered(
    checkpoint: str, rows: list[dict[str, Any]], *, text_only: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """Return a unit's rows as a part would have them, and how many images the model probe at."""
    processor = load_processor(checkpoint, text_only=text_only)
    model = load_model(checkpoint, device="cpu", text_only=text_only)
    thread = EngineThread(Engine(model, slots=3, max_length=512), EngineSequence)
    taken = JOB.adapt("", read_rows(rows, schema=SCHEMA))
    generate = Generate(Answerer(thread, processor), JOB, SAMPLING, "tiny", taken.schema)
    block = Preprocess(processor, JOB, SAMPLING)(taken)
    return list(asyncio.run(generate(block)).to_pylist()), model.image_cache.num_encoded


def test_rows_with_none_one_and_several_images_share_a_unit(checkpoint: str) -> None:
    one, two = png(0), png(1)
    rows = asked([one], [], [one, two], [b"broken"], [two], [one], [])
    table, num_encoded = answered(checkpoint, rows)
    assert [row["key"] for row in table] == [row["key"] for row in rows]
    assert [row["error"] and row["error"]["stage"] for row in table] == [None, None, None, "decode", None, None, None]
    assert num_encoded == 2
    for row, out in zip(rows, table, strict=True):
        if out["error"] is None:
            sampling = replace(SAMPLING, seed=row_seed(SAMPLING.seed, row["key"]))
            [taken] = JOB.adapt("", read_rows([row], schema=SCHEMA)).to_pylist()
            [alone] = ask(checkpoint, JOB.requests(taken | {"images": tuple(row["images"])}, sampling))
            assert tuple(out["output_token_ids"]) == alone.token_ids
            assert (out["prompt_tokens"], out["image_tokens"]) == (alone.prompt_tokens, alone.image_tokens)


def test_a_model_without_its_eye_answers_text_and_names_the_rows_with_images(checkpoint: str) -> None:
    rows = asked([], [png(0)], [])
    table, _ = answered(checkpoint, rows, text_only=True)
    assert [row["error"] and row["error"]["message"] for row in table] == [
        None,
        "found 1 image, but a model loaded with text_only sees none",
        None,
    ]
    assert table[1]["error"]["stage"] == "preprocess"
    whole, _ = answered(checkpoint, rows)
    assert [table[n]["output_token_ids"] for n in (0, 2)] == [whole[n]["output_token_ids"] for n in (0, 2)]


def test_choices_and_a_rows_own_image_settings_go_the_whole_way(
    checkpoint: str, request: pytest.FixtureRequest
) -> None:
    processor, model = load_processor(checkpoint), load_model(checkpoint, device="cpu")
    answerer = Answerer(EngineThread(Engine(model, slots=3, max_length=512), EngineSequence), processor)
    settings = SETTINGS[request.node.callspec.id][1]
    content = [{"type": "image"}, {"type": "text", "text": "Is it?"}]
    asked = Request(messages=[{"role": "user", "content": content}], images=[png(1)], choices=("yes", "no, a square"))
    requests = [asked, replace(asked, preprocess=settings)]
    prepared = [Prepared(0, SAMPLING, processor.prepare(one), None) for one in requests]
    block = pa.table(input_columns(prepared), schema=MODEL_INPUT)
    for one, given in zip(requests, model_inputs(block), strict=True):
        assert given is not None
        assert asyncio.run(answerer.answer("", given, SAMPLING)).answer == ask(checkpoint, [one])[0]
