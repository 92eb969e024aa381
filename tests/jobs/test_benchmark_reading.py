"""Published data sets from their files to the requests that a model gets, each through the real reader."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.vqa import VqaJob, VqaSettings
from models.types import BadRequest, Request, Sampling
from pipeline.input.formats.rows import ReadError
from pipeline.input.sources import join_plans
from pipeline.input.units import ReadSettings, plan_input
from pipeline.steps.read import job_rows_schema, read_job_rows, settings_by_source
from tests.jobs.benchmark_folders import (
    png,
    write_gqa,
    write_longvideobench,
    write_mmbench_v11,
    write_mmlu,
    write_mmmu,
    write_vqav2,
)
from tests.pipeline.videos import video

GQA = {"path": "GQA/instructions/*.parquet", "images": "GQA/images/*.parquet"}


def job_of(preset: str = "lmms", **benchmarks: dict[str, Any]) -> VqaJob:
    return VqaSettings(kind="vqa", preset=preset, benchmarks=benchmarks).build()


def read(job: VqaJob, root: Path, **how: Any) -> list[dict[str, Any]]:
    """Read the rows of all of a job's data sets, as a run would."""
    settings = ReadSettings(uri=str(root))
    sources = job.sources(settings)
    plans = [plan_input(source.read, 4, is_raw=source.is_raw) for source in sources]
    units = join_plans(sources, plans, settings.uri).units
    schema = job_rows_schema(job, units)
    tables = [read_job_rows(unit, job, settings_by_source(job, settings), **how) for unit in units]
    assert all(table.schema.equals(schema) for table in tables)
    return [{**row, "images": tuple(row["images"] or ())} for table in tables for row in table.to_pylist()]


def asked(job: VqaJob, row: dict[str, Any]) -> Request:
    assert row["error"] is None, row["error"]
    [request] = job.requests(row, Sampling())
    return request


def content(request: Request) -> list[str]:
    """Say what a message shows in turn: texts, and `#` for an image."""
    assert request.messages is not None
    return [piece.get("text", "#") for piece in request.messages[0]["content"]]


def test_images_that_lie_apart_are_found_by_their_ids(tmp_path):
    write_gqa(tmp_path)
    job = job_of(gqa=GQA)
    rows = read(job, tmp_path)
    assert [row["key"] for row in rows] == ["200", "201", "202", "203", "204"]
    assert [row["images"] for row in rows] == [(png(n % 2),) for n in range(5)]
    assert [row["job.item"]["cluster"] for row in rows] == [f"n{n % 2}" for n in range(5)]
    request = asked(job, rows[0])
    assert content(request) == ["#", "Is it 0?\nAnswer the question using a single word or phrase."]
    assert request.sampling.max_new_tokens == 16


def test_a_questions_images_stand_where_its_marks_do(tmp_path):
    write_mmmu(tmp_path)
    job = job_of(mmmu_val={"path": "MMMU/*/validation-*.parquet"})
    one, two, three = read(job, tmp_path)
    assert content(asked(job, one))[:3] == [
        "What is",
        "#",
        "?\nA. a\nB. b\n\nAnswer with the option's letter from the given choices directly.",
    ]
    request = asked(job, two)
    assert content(request)[:4] == ["Is", "#", "like", "#"]
    assert request.images == (png(3), png(2))
    assert three["job.item"]["answers"] == ["7", "7.0"]


def test_a_tsvs_cells_are_images_or_name_the_row_that_has_one(tmp_path):
    write_mmbench_v11(tmp_path)
    job = job_of(mmbench_dev_en_v11={"path": "MMBench/*.tsv"})
    rows = read(job, tmp_path)
    assert [row["key"] for row in rows] == ["3", "1000003", "4", "1000004"]
    assert [row["images"] for row in rows] == [(png(3),), (png(3),), (png(4),), (png(4),)]
    assert [row["job.item"]["answers"] for row in rows] == [["A"], ["B"], ["A"], ["B"]]
    assert {row["job.item"]["cluster"] for row in rows} == {"3", "4"}


def test_questions_in_words_only_have_continuations_to_be_scored(tmp_path):
    write_mmlu(tmp_path)
    job = job_of(mmlu={"path": "mmlu/*.parquet", "dataset": "mmlu_without_examples"})
    rows = read(job, tmp_path)
    request = asked(job, rows[1])
    assert len(request.choices) == 4
    assert request.images == ()
    assert rows[1]["job.item"]["answers"] == ["B"]


def test_a_row_that_has_lost_its_image_is_no_question_in_words(tmp_path):
    write_vqav2(tmp_path)
    job = job_of(vqav2_val={"path": "VQAv2/*.parquet"})
    rows = read(job, tmp_path)
    assert rows[4]["job.item"]["answers"] == ["4"] * 10
    with pytest.raises(BadRequest, match="found no image"):
        job.requests(rows[5], Sampling())


def test_a_videos_frames_stand_among_its_subtitles(tmp_path):
    write_longvideobench(tmp_path, video(20))
    entry = {
        "path": "LongVideoBench/*.parquet",
        "videos": "LongVideoBench/videos",
        "subtitles": "LongVideoBench/subtitles",
        "num_frames": 4,
    }
    job = job_of(longvideobench_val=entry)
    well, lost = read(job, tmp_path)
    assert (lost["error"]["stage"], lost["images"]) == ("fetch", ())
    shown = content(asked(job, well))
    assert shown.count("#") == len(well["images"]) == 4
    assert "Hello there." in "".join(shown)
    assert shown[-1].endswith("A. Hello\nB. Bye\nAnswer with the option's letter from the given choices directly.\n")
    with pytest.raises(BadRequest, match="found no video"):
        job.requests({**well, "images": ()}, Sampling())


def test_several_data_sets_are_read_one_after_the_other_and_each_keeps_to_itself(tmp_path):
    for write in (write_gqa, write_mmmu, write_vqav2, write_mmlu):
        write(tmp_path)
    job = job_of(
        gqa=GQA,
        vqav2_val={"path": "VQAv2/*.parquet", "limit": 4},
        mmmu_val={"path": "MMMU/*/*.parquet"},
        mmlu={"path": "mmlu/*.parquet", "dataset": "mmlu_without_examples"},
    )
    rows = read(job, tmp_path)
    assert [row["job.item"]["benchmark"] for row in rows] == ["gqa"] * 5 + ["vqav2_val"] * 4 + ["mmmu_val"] * 3 + [
        "mmlu"
    ] * 6
    assert {row["shard"] for row in rows if row["job.item"]["benchmark"] == "gqa"} == {
        "GQA/instructions/testdev-0.parquet"
    }
    assert len({(row["shard"], row["index"]) for row in rows}) == len(rows)


def test_without_images_the_same_questions_are_read(tmp_path):
    write_gqa(tmp_path)
    job = job_of(gqa=GQA)
    with_images, without = read(job, tmp_path), read(job, tmp_path, with_images=False)
    assert [row["images"] for row in without] == [()] * 5
    for one, other in zip(with_images, without, strict=True):
        assert one["job.item"]["row_hash"] == other["job.item"]["row_hash"]
        assert other["job.item"]["image_hash"] is None


def test_a_file_of_questions_alone_can_be_read_without_images(tmp_path):
    write_vqav2(tmp_path)
    path = tmp_path / "VQAv2" / "validation-0.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["image"]), path)
    job = job_of(vqav2_val={"path": "VQAv2/*.parquet"})
    with pytest.raises(ReadError, match="found no column 'image'"):
        read(job, tmp_path)
    source = job.sources(ReadSettings(uri=str(tmp_path)))[0]
    units = plan_input(source.read, 4, is_raw=True, with_images=False).units
    sources = {"vqav2_val": source.read}
    [*rows] = [
        row
        for unit in units
        for row in read_job_rows(replace(unit, source="vqav2_val"), job, sources, with_images=False).to_pylist()
    ]
    assert [row["job.item"]["question"] for row in rows] == [f"What is {n}?" for n in range(6)]


def test_a_copy_may_call_its_columns_otherwise(tmp_path):
    write_vqav2(tmp_path)
    path = tmp_path / "VQAv2" / "validation-0.parquet"
    table = pq.read_table(path)
    pq.write_table(
        table.rename_columns([{"question": "q", "question_id": "qid"}.get(n, n) for n in table.column_names]), path
    )
    job = job_of(vqav2_val={"path": "VQAv2/*.parquet", "columns": {"question": "q", "question_id": "qid"}})
    rows = read(job, tmp_path)
    assert (rows[1]["key"], rows[1]["job.item"]["question"]) == ("1", "What is 1?")


def test_missing_columns_are_named_with_what_was_found_and_how_to_say_it(tmp_path):
    write_vqav2(tmp_path)
    job = job_of(docvqa_val={"path": "VQAv2/*.parquet", "columns": {"questionId": "question_id"}})
    with pytest.raises(ValueError, match=r"docvqa_val needs a column `docId`, but the input has .*question") as found:
        read(job, tmp_path)
    assert "job.benchmarks.docvqa_val.columns" in str(found.value)
