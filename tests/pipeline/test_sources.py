"""Several data sets of different layouts, read in one run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.input.formats.rows import ReadError
from pipeline.input.read import read_unit
from pipeline.input.sources import Source, join_plans, typical_unit_rows
from pipeline.input.unit_files import unit_from_message, unit_to_message, units_from_parquet
from pipeline.input.units import ReadSettings, Unit, plan_input
from pipeline.job import Job, MissingColumns
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.changes import refuse_changed_input
from pipeline.preflight.check import PreflightResult, check
from pipeline.retry import refuse_changed_shards
from pipeline.settings import ConfigError, check_settings, dump_settings
from pipeline.state.ledger import read_output
from pipeline.state.plan import cut_parts, freeze_plan
from pipeline.steps.read import job_rows_schema, read_job_rows, settings_by_source
from pipeline.steps.write import plan_parts
from pipeline.storage.store import Store
from tests.end_to_end.shards import png
from tests.pipeline.inputs import write
from tests.pipeline.toys import ToyJob

# What the toy sources call the question, each in its own layout.
QUESTIONS = {"docs": "question", "charts": "query"}


@dataclass(frozen=True)
class TwoJobs(ToyJob):
    """Reads two data sets and asks the column that each calls its question."""

    required: tuple[str, ...] = ()
    needs_unique_keys: bool = True
    has_text_only_rows: bool = True
    questions: tuple[tuple[str, str], ...] = tuple(QUESTIONS.items())

    def sources(self, read: ReadSettings) -> Sequence[Source]:
        docs = read.model_copy(update={"uri": f"{read.uri}/docs/*.parquet", "columns": {"key": "questionId"}})
        charts = read.model_copy(update={"uri": f"{read.uri}/charts/test/rows.jsonl"})
        return [Source("docs", docs, is_raw=True), Source("charts", charts, is_raw=True)]

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        name = dict(self.questions)[source]
        if name not in rows.column_names:
            raise MissingColumns([f"job.{source}: needs a column `{name}`"])
        text = pc.fill_null(rows.column(name).cast(pa.string()), "")
        return rows.select(["key", "shard", "index", "images", "error"]).append_column("text", text)


def data(folder: Path) -> Path:
    (folder / "docs").mkdir(parents=True)
    docs = [{"questionId": str(n), "question": f"doc {n}", "answers": n, "image": png(n)} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(docs), folder / "docs" / "validation-0.parquet")
    charts = [{"key": str(n), "query": f"chart {n}", "text": {"a": n}} for n in range(3)]
    write(folder / "charts" / "test" / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in charts))
    return folder


def planned(job: Job, read: ReadSettings, unit_rows: int = 2) -> list[Unit]:
    sources = job.sources(read)
    plans = [plan_input(source.read, unit_rows, is_raw=source.is_raw) for source in sources]
    return join_plans(sources, plans, read.uri).units


def test_units_of_all_sources_follow_each_other_and_are_named_below_the_runs_folder(tmp_path: Path) -> None:
    read = ReadSettings(uri=str(data(tmp_path)))
    units = planned(TwoJobs(), read)
    assert [(unit.seq, unit.source, unit.shard, unit.start, unit.stop) for unit in units] == [
        (0, "docs", "docs/validation-0.parquet", 0, 2),
        (1, "docs", "docs/validation-0.parquet", 2, 4),
        (2, "docs", "docs/validation-0.parquet", 4, 5),
        (3, "charts", "charts/test/rows.jsonl", 0, 2),
        (4, "charts", "charts/test/rows.jsonl", 2, 3),
    ]
    assert {unit.root for unit in units} == {str(tmp_path)}
    assert [unit_from_message(unit_to_message(unit)) for unit in units] == units
    assert freeze_plan(Store(str(tmp_path / "out")), units) == units


def test_rows_of_all_sources_have_the_same_columns_once_they_are_adapted(tmp_path: Path) -> None:
    job, read = TwoJobs(), ReadSettings(uri=str(data(tmp_path)))
    units, sources = planned(job, read), settings_by_source(job, read)
    tables = [read_job_rows(unit, job, sources) for unit in units]
    schema = job_rows_schema(job, units)
    assert all(table.schema.equals(schema) for table in tables)
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["text"] for row in rows] == [*(f"doc {n}" for n in range(5)), *(f"chart {n}" for n in range(3))]
    assert [row["key"] for row in rows] == ["0", "1", "2", "3", "4", "0", "1", "2"]
    assert [len(row["images"]) for row in rows] == [1] * 5 + [0] * 3


def test_a_raw_sources_columns_keep_their_names_and_types(tmp_path: Path) -> None:
    columns = {
        "key": pa.array(["a"]),
        "image": pa.array([b"x"]),
        "question": pa.array([7], pa.int32()),
        "answers": pa.array([[{"answer": "yes", "answer_id": 1}]]),
        "text": pa.array(["t"], pa.large_string()),
        "index": pa.array([3]),
        "types": pa.array([{"structural": "query"}]),
        "nothing": pa.nulls(1),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    read = ReadSettings(uri=str(tmp_path), columns={"question": "text"})
    (unit,) = plan_input(read, 9, is_raw=True).units
    table = read_unit(replace(unit, is_raw=True), read)
    others = table.drop_columns(["key", "shard", "index", "images", "error"])
    assert {field.name: field.type for field in others.schema} == {
        "question": pa.int32(),
        "answers": columns["answers"].type,
        "text": pa.string(),
        "input_index": pa.int64(),
        "types": columns["types"].type,
        "nothing": pa.string(),
    }
    assert table.to_pylist()[0]["answers"] == [{"answer": "yes", "answer_id": 1}]
    with pytest.raises(ReadError, match=r"column 'question' holds int32"):
        plan_input(ReadSettings(uri=str(tmp_path)), 9)


def test_a_raw_source_names_the_missing_column_and_not_a_setting_that_nobody_has_given(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"], "image": [b"x"]}), tmp_path / "a.parquet")
    read = ReadSettings(uri=str(tmp_path), columns={"key": "id"})
    message = r"a.parquet: found no column 'id' for the key; the columns are: name, image; if it has another name"
    with pytest.raises(ReadError, match=message):
        plan_input(read, 9, is_raw=True)


def test_in_a_raw_source_of_lines_a_text_column_may_hold_what_is_no_text(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "a", "answers": "x"}\n{"text": [1], "answers": ["y"]}\n')
    read = ReadSettings(uri=str(tmp_path))
    (unit,) = plan_input(read, 9, is_raw=True).units
    rows = read_unit(replace(unit, is_raw=True), read).to_pylist()
    assert [(row["text"], row["answers"], row["error"]) for row in rows] == [("a", "x", None), ("[1]", '["y"]', None)]


def test_plans_of_versions_that_knew_no_sources_can_be_read(tmp_path: Path) -> None:
    read = ReadSettings(uri=str(data(tmp_path / "in") / "docs"))
    units = plan_input(read, 2).units
    store = Store(str(tmp_path / "out"))
    freeze_plan(store, units)
    table = pq.read_table(pa.BufferReader(store.read("_triptych/plan.parquet"))).drop_columns(["source", "is_raw"])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    assert units_from_parquet(sink.getvalue().to_pybytes()) == units


def test_two_sources_of_one_file_are_refused_because_their_rows_could_not_be_told_apart(tmp_path: Path) -> None:
    read = ReadSettings(uri=str(data(tmp_path)))
    sources = [Source(name, read.model_copy(update={"uri": f"{tmp_path}/docs"})) for name in ("a", "b")]
    plans = [plan_input(source.read, 2) for source in sources]
    with pytest.raises(ReadError, match=r"sources 'a', 'b' share the shard 'docs/validation-0.parquet'"):
        join_plans(sources, plans, read.uri)


class Losing(TwoJobs):
    """Forgets a row."""

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        return super().adapt(source, rows).slice(1)


class Differing(TwoJobs):
    """Makes a number of one source's question."""

    def adapt(self, source: str, rows: pa.Table) -> pa.Table:
        rows = super().adapt(source, rows)
        return rows.set_column(5, "text", pa.nulls(len(rows), pa.int64())) if source == "docs" else rows


def test_a_job_that_loses_a_row_or_makes_different_columns_is_caught(tmp_path: Path) -> None:
    read = ReadSettings(uri=str(data(tmp_path)))
    units = planned(TwoJobs(), read)
    with pytest.raises(ValueError, match=r"job toy made 1 rows of 2 of source 'docs'"):
        read_job_rows(units[0], Losing(), settings_by_source(Losing(), read))
    with pytest.raises(ValueError, match=r"source 'charts' differs from source 'docs' in its columns: .*text: int64"):
        job_rows_schema(Differing(), units)


def settings(folder: Path, mllama: Path, **read: Any) -> PipelineSettings:
    values: dict[str, Any] = {
        "read": {"uri": str(folder / "in"), **read},
        "model": {"path": str(mllama)},
        "write": {"uri": str(folder / "out"), "unit_rows": 2},
    }
    return check_settings(PipelineSettings, values)


def checked(settings: PipelineSettings, job: Job) -> PreflightResult:
    return check(settings, job, Store(settings.write.uri))


def test_limits_apply_to_each_source(tmp_path: Path, mllama: Path) -> None:
    data(tmp_path / "in")
    ready = checked(settings(tmp_path, mllama, limit=1), TwoJobs())
    assert [(unit.source, unit.num_rows) for unit in ready.plan.units] == [("docs", 1), ("charts", 1)]


def test_an_engine_is_kept_full_by_the_source_with_the_smallest_units(tmp_path: Path) -> None:
    units = planned(TwoJobs(), ReadSettings(uri=str(data(tmp_path))), 4)
    assert [unit.num_rows for unit in units] == [4, 1, 3]
    assert typical_unit_rows(units) == 3 and typical_unit_rows(units[:2]) == 4


def test_the_faults_of_all_sources_are_listed_at_once(tmp_path: Path, mllama: Path) -> None:
    data(tmp_path / "in")
    job = TwoJobs(questions=(("docs", "inquiry"), ("charts", "ask")))
    with pytest.raises(ConfigError) as caught:
        checked(settings(tmp_path, mllama), job)
    assert caught.value.faults == ["job.docs: needs a column `inquiry`", "job.charts: needs a column `ask`"]
    (tmp_path / "in" / "charts" / "test" / "rows.jsonl").unlink()
    with pytest.raises(ConfigError) as caught:
        checked(settings(tmp_path, tmp_path / "no checkpoint"), job)
    model, docs, charts = caught.value.faults
    assert model.startswith("model.path: ") and docs == "job.docs: needs a column `inquiry`"
    assert charts.startswith("read of charts: found no files at")


def test_keys_must_differ_within_a_source_and_may_come_again_in_another(tmp_path: Path, mllama: Path) -> None:
    charts = data(tmp_path / "in") / "charts" / "test" / "rows.jsonl"
    assert len(checked(settings(tmp_path, mllama), TwoJobs()).plan.units) == 5
    charts.write_text(charts.read_text() + '{"key": "1", "query": "again"}\n')
    with pytest.raises(ConfigError) as caught:
        checked(settings(tmp_path, mllama), TwoJobs())
    assert caught.value.faults == ["read: several rows of charts have the key '1', but job toy needs unique keys"]


def test_a_changed_file_of_any_source_is_noticed(tmp_path: Path, mllama: Path) -> None:
    charts = data(tmp_path / "in") / "charts" / "test" / "rows.jsonl"
    asked = settings(tmp_path, mllama)
    ready = checked(asked, TwoJobs())
    output = read_output(Store(str(tmp_path / "out")))
    refuse_changed_input(output, cut_parts(ready.plan.units, asked.write, TwoJobs()), asked, TwoJobs())
    charts.write_text(charts.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"charts/test/rows.jsonl: found \d+ bytes") as caught:
        refuse_changed_input(output, cut_parts(ready.plan.units, asked.write, TwoJobs()), asked, TwoJobs())
    assert len(caught.value.faults) == 2
    charts.unlink()
    with pytest.raises(ConfigError, match=r"rows\.jsonl: is missing"):
        refuse_changed_input(output, cut_parts(ready.plan.units, asked.write, TwoJobs()), asked, TwoJobs())


def test_a_run_does_not_go_on_with_another_table_of_images_than_it_began_with(tmp_path: Path, mllama: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a", "b"], "imageId": [1, 2]}), tmp_path / "in" / "a.parquet")
    pq.write_table(pa.table({"id": [1, 2], "image": [png(1), png(2)]}), tmp_path / "images.parquet")
    how = {"columns": {"image": "imageId"}, "join": {"uri": str(tmp_path / "images.parquet")}}
    asked, job = settings(tmp_path, mllama, **how), ToyJob()
    ready = checked(asked, job)
    output = read_output(Store(str(tmp_path / "out")))
    refuse_changed_input(output, cut_parts(ready.plan.units, asked.write, job), asked, job)
    parts = plan_parts(ready.plan.units, 9)
    refuse_changed_shards(parts, settings_by_source(job, asked.read))
    pq.write_table(pa.table({"id": [1, 2], "image": [png(2), png(1)]}), tmp_path / "images.parquet")
    said = r"images.parquet: found \d+ bytes \(version"
    with pytest.raises(ConfigError, match=said):
        refuse_changed_input(output, cut_parts(ready.plan.units, asked.write, job), asked, job)
    with pytest.raises(ConfigError, match=said):
        refuse_changed_shards(parts, settings_by_source(job, asked.read))
    (tmp_path / "images.parquet").unlink()
    with pytest.raises(ConfigError, match=r"read.join.uri: found no files at"):
        refuse_changed_input(output, cut_parts(ready.plan.units, asked.write, job), asked, job)


def test_a_source_that_the_standing_run_does_not_have_is_a_fault(tmp_path: Path, mllama: Path) -> None:
    data(tmp_path / "in")
    asked = settings(tmp_path, mllama)
    store = Store(asked.write.uri)
    freeze_plan(store, checked(asked, TwoJobs()).plan.units)
    frozen = {"settings": dump_settings(asked), "weights": "w", "run": "r"}
    store.publish("_triptych/settings.json", json.dumps(frozen).encode())
    with pytest.raises(ConfigError) as caught:
        checked(asked, ToyJob(has_text_only_rows=True))
    assert caught.value.faults == [
        f"read: the run in {store.uri} reads charts, docs, but these settings read one input without a name; use "
        "the run's own settings, or start over with write.on_existing=replace"
    ]
