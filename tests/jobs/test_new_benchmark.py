"""A data set is added by one entry, as the docstring of jobs/benchmarks says: here a made-up one, all the way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.benchmarks.benchmark import Aggregation, Benchmark, PromptTemplate, question_from
from jobs.benchmarks.datasets import BENCHMARKS
from jobs.benchmarks.presets import PRESETS, find_template
from jobs.benchmarks.row import Row
from jobs.benchmarks.templates import QUESTION_SHORT, aria
from jobs.config import RunSettings
from models.types import Answer, Sampling
from pipeline.input.sources import join_plans
from pipeline.input.units import plan_input
from pipeline.settings import ConfigError, check_settings
from pipeline.steps.read import read_job_rows, settings_by_source

ROWS = [
    {"number": 7, "question": "How many legs?", "answers": "8", "animal": "spider", "habitat": "land", "image": b"1"},
    {"number": 8, "question": "How many eyes?", "answers": "2", "animal": "cat", "habitat": "land", "image": b"2"},
    {"number": 9, "question": "How many arms?", "answers": "8", "animal": "octopus", "habitat": "sea", "image": b"3"},
    {"number": 10, "question": "How many fins?", "answers": "", "animal": "cod", "habitat": "sea", "image": b"4"},
]


def best(rows: pa.Table, rule: str, with_meteor: bool) -> dict[str, Any]:
    return {"metric": "best row", "score": max(filter(None, rows["score"].to_pylist()))}


ANIMALS = Benchmark(
    key="animals",
    needed=("question", "animal"),
    used=("answers", "habitat"),
    key_column="number",
    to_item=question_from(
        answers=Row.gold_answer, groups=("habitat",), cluster="animal", facts={"number": Row.integer}
    ),
    rule="exact/nocase_nopunct",
    other_rules=("relaxed/pix2struct",),
    prompts={
        "lmms": PromptTemplate(QUESTION_SHORT, 16),
        "aria": aria(64),
        "llama": PromptTemplate("Count in animal {number}: {question}", 32, marker="ANSWER:"),
    },
)
SHORT = "How many legs?\nAnswer the question using a single word or phrase."


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "animals", ANIMALS)


def settings(root: Path, **entry: Any) -> RunSettings:
    pq.write_table(pa.Table.from_pylist(ROWS), root / "animals.parquet")
    values = {
        "read": {"uri": str(root)},
        "model": {"path": "m"},
        "write": {"uri": str(root / "out")},
        "job": {"kind": "vqa", "preset": "llama", "benchmarks": {"zoo": {"path": "*.parquet", **entry}}},
    }
    return check_settings(RunSettings, values)


def read(run: RunSettings) -> list[dict[str, Any]]:
    """Read the rows as a run would, with one question each."""
    job = run.job.build()
    sources = job.sources(run.read)
    plans = [plan_input(source.read, 8, is_raw=source.is_raw) for source in sources]
    [unit] = join_plans(sources, plans, run.read.uri).units
    return [
        {**row, "images": tuple(row["images"])}
        for row in read_job_rows(unit, job, settings_by_source(job, run.read)).to_pylist()
    ]


def test_settings_know_its_name_its_columns_and_what_it_lacks(tmp_path):
    assert settings(tmp_path, dataset="animals").job.benchmarks["zoo"].dataset == "animals"
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, dataset="animals", columns={"colour": "c"}, meteor=True)
    assert "found 'colour', expected columns of animals: animal, answers, habitat, image, number" in str(caught.value)
    assert "answers to animals are no captions" in str(caught.value)


def test_its_rows_become_questions(tmp_path):
    rows = read(settings(tmp_path, dataset="animals"))
    assert [row["key"] for row in rows] == ["7", "8", "9", "10"]
    assert [row["job.item"]["answers"] for row in rows] == [["8"], ["2"], ["8"], None]
    assert rows[2]["job.item"]["groups"] == [{"name": "habitat", "value": "sea"}]
    assert (rows[0]["job.item"]["cluster"], rows[0]["job.item"]["facts"]) == ("spider", '{"number": 7}')


@pytest.mark.parametrize(
    ("preset", "used", "prompt"),
    [
        ("lmms", "lmms", SHORT),
        ("lmms_solution", "lmms", SHORT),
        ("lmms_reason_first", "lmms", SHORT),
        ("vlmevalkit", "lmms", SHORT),
        ("aria", "aria", f"\n{SHORT}"),
        ("llama", "llama", "Count in animal 7: How many legs?"),
        ("emu3", "lmms", SHORT),
    ],
)
def test_it_is_put_in_each_presets_words_or_in_those_that_take_their_place(preset, used, prompt):
    found, template = find_template(preset, ANIMALS)
    assert (found, template.render(ANIMALS.to_item(Row(ROWS[0])))) == (used, prompt)


def test_every_preset_is_tried_above():
    [mark] = test_it_is_put_in_each_presets_words_or_in_those_that_take_their_place.pytestmark
    assert [case[0] for case in mark.args[1]] == list(PRESETS)


def records(run: RunSettings, texts: list[str]) -> list[dict[str, Any]]:
    """Answer each row with a text and return what is kept."""
    job, kept = run.job.build(), []
    for row, words in zip(read(run), texts, strict=True):
        [request] = job.requests(row, Sampling())
        assert request.sampling.max_new_tokens == 32
        given = Answer(words, None, (), (), "stop", 0, 0)
        kept.append({**job.record(row, given, 0, request.sampling), "key": row["key"], "error": None})
    return [{**one, "finish_reason": "stop"} for one in kept]


def summary(run: RunSettings, rows: list[dict[str, Any]]) -> dict[str, Any]:
    job = run.job.build()
    schema = pa.schema([*job.schema, ("key", pa.string()), ("error", pa.null()), ("finish_reason", pa.string())])
    return job.summarize(job.summary_rows(pa.Table.from_pylist(rows, schema=schema)))["scores"]["zoo"]


TEXTS = ["Let me see. ANSWER: 8", "ANSWER: 3", "eight", "ANSWER: 2"]


def test_its_answers_are_scored_by_its_rule_and_counted_under_its_groups(tmp_path):
    run = settings(tmp_path, dataset="animals")
    rows = records(run, TEXTS)
    assert [row["score"] for row in rows] == [1.0, 0.0, 0.0, None]
    assert [row["preset"] for row in rows] == ["llama"] * 4
    found = summary(run, rows)
    assert (found["metric"], found["n"], found["unscored"]) == ("mean", 3, 1)
    assert found["score"] == pytest.approx(1 / 3)
    assert {group: part["score"] for group, part in found["by"].items()} == {"land": 0.5, "sea": 0.0}
    assert found["others"]["relaxed/pix2struct"] == pytest.approx(1 / 3)


def test_it_may_bring_a_first_number_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "animals", replace(ANIMALS, aggregation=Aggregation(best)))
    run = settings(tmp_path, dataset="animals")
    found = summary(run, records(run, TEXTS))
    assert (found["metric"], found["score"], found["n"]) == ("best row", 1.0, 3)
