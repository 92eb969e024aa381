import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from models.types import Answer, BadRequest, Request, Sampling
from pipeline.pipeline_settings import CheckSettings
from pipeline.rows import UNIT
from pipeline.steps.answerer import Answerer
from pipeline.steps.check import CheckAnswers
from pipeline.steps.engine_thread import EngineDied, EngineThread
from tests.pipeline.toys import ToyEngine, ToyProcessor, ToySequence, part_columns

SETTINGS = CheckSettings.model_validate({"model": {"path": "vlm"}})
JOB = pa.schema([("image", pa.binary()), ("said", pa.list_(pa.string())), ("keep", pa.bool_())])


@dataclass(frozen=True)
class ToyCheck:
    """Asks each word of the row's text about its picture; keeps it if every answer has two tokens."""

    settings: CheckSettings = SETTINGS
    template: str | None = None

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        if row["text"] == "unaskable":
            raise BadRequest("found nothing to ask")
        return [Request(prompt=word, images=(row["image"],), sampling=sampling) for word in row["text"].split()]

    def record(self, row: Mapping[str, Any], answers: Sequence[Answer]) -> Mapping[str, Any]:
        return {"said": [a.text for a in answers], "keep": all(len(a.token_ids) == 2 for a in answers)}


def block(*texts: str) -> pa.Table:
    failed = {"stage": "decode", "type": "BadImage", "message": "broken"}
    rows = [
        {
            "key": str(n),
            "seed": n,
            "text": text,
            "output_token_ids": [1],
            "output_logprobs": [0.5],
            "error": failed if text == "failed" else None,
            "image": None if text == "failed" else b"broken" if text == "blurred" else b"\x07",
            UNIT: "u",
        }
        for n, text in enumerate(texts)
    ]
    schema = [
        *part_columns("key", "seed", "output_token_ids", "output_logprobs", "error"),
        *JOB,
        ("text", pa.string()),
        (UNIT, pa.string()),
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(schema))


def checked(*texts: str, dies_on: str | None = None) -> pa.Table:
    engine = EngineThread(ToyEngine(dies_on), ToySequence)
    step = CheckAnswers(Answerer(engine, ToyProcessor()), ToyCheck(), Sampling(), JOB)
    return asyncio.run(step(block(*texts)))


def test_what_the_answers_say_fills_the_rows_columns_and_touches_no_other() -> None:
    given, table = block("ab cd", "abc"), checked("ab cd", "abc")
    assert table.schema == given.schema
    assert table.column("said").to_pylist() == [["1 2", "1 2"], ["1 2 3"]]
    assert table.column("keep").to_pylist() == [True, False]
    unchanged = [name for name in given.column_names if name not in ("said", "keep")]
    assert table.select(unchanged).equals(given.select(unchanged))


def test_a_row_that_failed_before_is_not_asked_about() -> None:
    table = checked("failed", "ab")
    assert table.column("keep").to_pylist() == [None, True]
    assert table.column("error").to_pylist()[0]["stage"] == "decode"


@pytest.mark.parametrize(
    ("text", "type"), [("unaskable", "BadRequest"), ("blurred", "BadImage"), ("costly", "MemoryError")]
)
def test_a_check_that_fails_costs_the_row_its_verdict_and_not_its_picture(text: str, type: str) -> None:
    rows = checked("ab", text, "abc").to_pylist()
    assert [row["keep"] for row in rows] == [True, None, False]
    assert (rows[1]["error"]["stage"], rows[1]["error"]["type"]) == ("check", type)
    assert rows[1]["image"] is not None


def test_a_unit_of_failed_rows_alone_passes_through() -> None:
    assert checked("failed", "failed").equals(block("failed", "failed"))


@pytest.mark.timeout(20)
def test_a_dead_engine_ends_the_unit() -> None:
    with pytest.raises(EngineDied):
        checked("ab fatal", dies_on="fatal")
