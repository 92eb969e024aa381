import asyncio
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.types import Answer, Request, Sampling
from pipeline.job import Job
from pipeline.rows import IMAGES, ODDITIES, UNIT, UNIT_ROWS, part_schema, row_seed
from pipeline.steps.answerer import Answerer
from pipeline.steps.engine_thread import EngineDied, EngineThread
from pipeline.steps.generate import Generate
from pipeline.steps.preprocess import Preprocess
from pipeline.steps.write import commit_unit, merge_part, plan_parts
from pipeline.storage.store import Store
from tests.pipeline.toys import READ_SCHEMA, ToyEngine, ToyJob, ToyProcessor, ToySequence, read_rows, units_of

SAMPLING = Sampling(max_new_tokens=60, seed=3)


def step(engine: ToyEngine | None = None, job: Job | None = None) -> Generate:
    thread = EngineThread(engine or ToyEngine(), ToySequence)
    return Generate(Answerer(thread, ToyProcessor()), job or ToyJob(), SAMPLING, "toy", READ_SCHEMA)


def block(*texts: str, unit: str = "00000000") -> pa.Table:
    rows = [{"key": f"{unit}/{n}", "text": text} for n, text in enumerate(texts)]
    return Preprocess(ToyProcessor(), ToyJob(), SAMPLING)(read_rows(rows, unit))


def generated(*texts: str) -> pa.Table:
    return asyncio.run(step()(block(*texts)))


def test_rows_leave_in_the_order_in_which_they_came() -> None:
    table = generated("abcd", "a", "abc", "ab")
    assert table.column("caption").to_pylist() == ["1 2 3 4", "1", "1 2 3", "1 2"]
    assert table.column("index").to_pylist() == [0, 1, 2, 3]


def test_a_block_has_the_schema_of_a_part_and_the_name_of_its_unit() -> None:
    table = generated("abc")
    expected = part_schema(READ_SCHEMA, ToyJob())
    assert table.drop_columns([ODDITIES, UNIT, UNIT_ROWS]).schema == expected
    (row,) = table.to_pylist()
    assert row["model"] == "toy" and row["prompt"] == "abc" and row["text"] == "abc"
    assert row["output_token_ids"] == [1, 2, 3] and row["output_logprobs"] == [-0.5] * 3
    assert (row["prompt_tokens"], row["image_tokens"], row["output_tokens"]) == (3, 1, 3)
    assert row["finish_reason"] == "stop" and row["error"] is None
    assert row["seed"] == row_seed(3, "00000000/0")


@pytest.mark.parametrize(
    ("text", "stage", "type"),
    [
        ("x" * 51, "tokenise", "PromptTooLong"),
        ("costly", "generate", "MemoryError"),
        ("undecodable", "decode_back", "UnicodeError"),
        ("unrecordable", "record", "LookupError"),
        ("mistyped", "record", "ArrowTypeError"),
    ],
)
def test_a_row_that_fails_here_keeps_its_place_and_its_neighbours(text: str, stage: str, type: str) -> None:
    rows = generated("ab", text, "abc").to_pylist()
    assert [row["caption"] for row in rows] == ["1 2", None, "1 2 3"]
    assert (rows[1]["error"]["stage"], rows[1]["error"]["type"]) == (stage, type)
    assert rows[1]["finish_reason"] == "error" and rows[1]["output_tokens"] == 0
    assert rows[1]["output_token_ids"] == [] and rows[1]["prompt"] == text


def test_a_row_of_several_answers_has_one_row_for_each_or_one_if_it_fails() -> None:
    rows = generated("2 x abc", "3 x " + "x" * 51, "a").to_pylist()
    assert [(row["index"], row["caption"]) for row in rows] == [(0, "1 2 3"), (0, "1 2 3"), (1, None), (2, "1")]
    assert rows[1]["seed"] == rows[0]["seed"] + 1
    assert rows[2]["error"]["type"] == "PromptTooLong" and rows[2]["seed"] == row_seed(3, "00000000/1")


def test_images_that_go_into_a_tar_stay_with_their_rows_up_to_the_unit(tmp_path: Path) -> None:
    several = {"key": "c", "text": "a", "images": [b"x", b"y"]}
    given = [{"key": "a", "text": "abcd"}, {"key": "b", "text": "boom"}, several]
    ready = Preprocess(ToyProcessor(), ToyJob(), SAMPLING, keeps_images=True)(read_rows(given))
    table = asyncio.run(step()(ready))
    assert table.column(IMAGES.name).to_pylist() == [[b"jpeg"], [b"jpeg"], [b"x", b"y"]]
    store = Store(str(tmp_path))
    (part,) = plan_parts(units_of(3, 3), 3, tar_text="caption")
    commit_unit(table, store)
    merge_part(store, part, part_schema(READ_SCHEMA, ToyJob()))
    assert pq.read_table(store.uri).schema == part_schema(READ_SCHEMA, ToyJob()), "not into the part"
    with tarfile.open(tmp_path / "_webdataset/part-00000.tar") as tar:
        names = tar.getnames()
    assert {name.partition(".")[0] for name in names} == {"00000-000000", "00000-000002"} and len(names) == 7


class Limited(ToyJob):
    """Lets each answer have as many tokens as the row's key says, and keeps what it was told of that."""

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        (request,) = super().requests(row, sampling)
        return [replace(request, sampling=replace(sampling, max_new_tokens=int(row["key"])))]

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        return {"caption": f"{answer.text if answer else None} of {sampling.max_new_tokens}"}


def test_each_row_has_the_limit_of_its_own_request() -> None:
    rows = read_rows([{"key": key, "text": "abcd"} for key in ("2", "9", "1")])
    table = asyncio.run(step(job=Limited())(Preprocess(ToyProcessor(), Limited(), SAMPLING)(rows)))
    assert table.column("caption").to_pylist() == ["1 2 of 2", "1 2 3 4 of 9", "1 of 1"]
    assert table.column("output_tokens").to_pylist() == [2, 4, 1]


def test_a_row_that_failed_before_passes_through_with_its_error() -> None:
    row = generated("abc", "boom").to_pylist()[1]
    assert row["error"]["stage"] == "preprocess" and row["finish_reason"] == "error"
    assert row["prompt"] is None and row["prompt_tokens"] is None
    assert row["text"] == "boom"


def test_several_units_share_the_engine_at_once() -> None:
    engine = ToyEngine()
    generate = step(engine)

    async def both() -> list[pa.Table]:
        return await asyncio.gather(generate(block("abcd", "ab", unit="u1")), generate(block("abc", "a", unit="u2")))

    one, two = asyncio.run(both())
    assert one.column("caption").to_pylist() == ["1 2 3 4", "1 2"]
    assert two.column("caption").to_pylist() == ["1 2 3", "1"]
    assert one.column(UNIT).to_pylist() == ["u1", "u1"] and two.column(UNIT).to_pylist() == ["u2", "u2"]


def test_the_engine_lives_on_from_one_unit_to_the_next() -> None:
    generate = step()
    for _ in range(3):
        assert asyncio.run(generate(block("ab"))).column("caption").to_pylist() == ["1 2"]


@pytest.mark.timeout(20)
def test_a_dead_engine_is_heard_of_by_all_who_wait_and_all_who_come_later() -> None:
    generate = step(ToyEngine(dies_on="fatal"))
    with pytest.raises(EngineDied, match="device-side assert"):
        asyncio.run(generate(block("fatal", "longer than fatal")))
    with pytest.raises(EngineDied, match="died earlier"):
        asyncio.run(generate(block("ab")))


def test_rows_that_share_an_image_reach_the_engine_together_and_leave_in_their_places() -> None:
    engine = ToyEngine()
    rows = [
        {"key": str(n), "text": text, "images": images}
        for n, (text, images) in enumerate(
            [
                ("a", [b"x"]),
                ("bb", []),
                ("boom", [b"x"]),
                ("ccc", [b"y"]),
                ("dd", [b"x"]),
                ("e", [b"y"]),
                ("ff", [b"z", b"y"]),
            ]
        )
    ]
    given = Preprocess(ToyProcessor(), ToyJob(has_text_only_rows=True), SAMPLING)(read_rows(rows))
    table = asyncio.run(step(engine)(given))
    assert engine.prompts == ["a", "dd", "bb", "ccc", "e", "ff"]
    assert table.column("caption").to_pylist() == ["1", "1 2", None, "1 2 3", "1 2", "1", "1 2"]
    assert table.column("text").to_pylist() == [row["text"] for row in rows]
