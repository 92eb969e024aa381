"""What an actor loads, and what it refuses to load; without Ray."""

import asyncio
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.execution.actors import StepActor
from pipeline.execution.work import OtherWeights, Work, load_generate, load_preprocess, model_folder
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.check import PreflightResult
from pipeline.preflight.inputs import Plan
from pipeline.run import work_of
from pipeline.settings import check_settings
from pipeline.storage.model_folder import CACHE_VARIABLE, weights_digest
from pipeline.storage.store import Store
from tests.pipeline.drivers import DEVICES, probed
from tests.pipeline.toys import READ_SCHEMA, ToyJob, read_rows, units_of


def work(path: str, digest: str) -> Work:
    values = {"read": {"uri": "memory://in"}, "model": {"path": path}, "write": {"uri": "memory://out"}}
    settings = check_settings(PipelineSettings, values)
    units = [replace(unit, schema=READ_SCHEMA.serialize().to_pybytes()) for unit in units_of(1, 1)]
    ready = PreflightResult(probed(path, digest=digest), None, Plan(units), digest, is_started=False, is_done=False)
    return work_of(settings, ToyJob(has_text_only_rows=True), Store("memory://out"), ready, DEVICES)


def prepared(work: Work) -> pa.Table:
    return asyncio.run(StepActor(load_preprocess, work, "preprocess", 1)(read_rows([{"key": "a", "images": None}])))


def test_an_actor_loads_the_model_that_the_run_began_with(mllama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert prepared(work(str(mllama), weights_digest([str(mllama)]))).num_rows == 1


def test_an_actor_refuses_weights_that_were_written_over_and_says_where(
    tmp_path: Path, mllama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = Path(shutil.copytree(mllama, tmp_path / "weights"))
    before = weights_digest([str(folder)])
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    now = weights_digest([str(folder)])
    for load in (load_preprocess, load_generate):
        actor = StepActor(load, work(str(folder), before), "", 1)
        with pytest.raises(RuntimeError, match="the model cannot be loaded: ") as caught:
            asyncio.run(actor(read_rows([{"key": "a"}])))
        said = str(caught.value)
        assert f"on node {platform.node()} the model's files in {folder}" in said
        assert f"found {now}, expected {before}" in said


def test_a_model_that_has_changed_at_its_source_is_refused_too(
    tmp_path: Path, mllama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    source = Path(shutil.copytree(mllama, tmp_path / "source"))
    asked = work(f"local://{source}", weights_digest([str(source)]))
    assert weights_digest([model_folder(asked, asked.answering)]) == weights_digest([str(source)])
    (source / "chat_template.jinja").write_text("another")
    with pytest.raises(OtherWeights, match=r"the model's files in .*cache.* are not those that the run began with"):
        model_folder(asked, asked.answering)
