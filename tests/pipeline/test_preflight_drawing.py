"""What keeps a run from drawing, or from having its pictures looked at, is said before anything starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.synthesize import SynthesizeSettings
from models import load_processor
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.check import PreflightResult, check
from pipeline.settings import ConfigError, check_settings
from pipeline.state import ledger
from pipeline.storage.model_folder import weights_digest
from pipeline.storage.store import Store
from tests.pipeline.toys import ToyJob


def settings(tmp_path: Path, folder: Path, rows: int = 5, **sections: dict[str, Any]) -> PipelineSettings:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"text": f"number {n}", "num_images": 2}) for n in range(rows)))
    values: dict[str, Any] = {
        "read": {"uri": str(prompts)},
        "model": {"path": str(folder)},
        "write": {"uri": str(tmp_path / "out")},
    }
    return check_settings(
        PipelineSettings, values | {name: values.get(name, {}) | section for name, section in sections.items()}
    )


def drawing(asked: PipelineSettings, area: int = 256, **job: Any) -> PreflightResult:
    return check(asked, SynthesizeSettings(kind="synthesize", area=area, **job).build(), Store(asked.write.uri))


def faults(asked: PipelineSettings, **job: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        drawing(asked, **job)
    return caught.value.faults


def test_a_unit_holds_few_pictures_however_many_a_row_asks_for(tmp_path: Path, emu3: Path) -> None:
    ready = drawing(settings(tmp_path, emu3, rows=10))
    assert [unit.num_rows for unit in ready.plan.units] == [4, 4, 2]


@pytest.mark.parametrize("text_only", [False, True])
def test_a_model_that_cannot_draw_is_a_fault(tmp_path: Path, emu3: Path, aria: Path, text_only: bool) -> None:
    folder = emu3 if text_only else aria
    asked = settings(tmp_path, folder, model={"text_only": text_only})
    assert faults(asked) == [
        "model.text_only: found true, expected false: job synthesize needs a model that draws pictures"
        if text_only
        else f"model.path: {folder} draws no pictures, but job synthesize needs a model that draws pictures"
    ]


def test_one_slot_is_too_few(tmp_path: Path, emu3: Path) -> None:
    assert faults(settings(tmp_path, emu3, generate={"slots": 1})) == [
        "generate.slots: found 1, expected at least 2: a picture with guidance takes two"
    ]


def test_text_cannot_be_guessed_ahead(tmp_path: Path, emu3: Path) -> None:
    asked = settings(tmp_path, emu3, generate={"speculate": 4})
    assert drawing(asked).plan.units
    with pytest.raises(ConfigError) as refused:
        check(asked, ToyJob(), Store(asked.write.uri))
    assert "generate.speculate: found 4, expected 1: only drawn pictures are guessed ahead" in refused.value.faults


def test_tars_are_for_drawn_pictures_and_for_images_that_are_read(tmp_path: Path, emu3: Path) -> None:
    asked = settings(tmp_path, emu3, write={"webdataset": True})
    assert drawing(asked).plan.units
    assert check(asked, ToyJob(has_text_only_rows=True), Store(asked.write.uri)).plan.units


def test_all_that_is_wrong_with_the_model_that_checks_is_said_under_its_own_names(
    tmp_path: Path, emu3: Path, aria: Path
) -> None:
    nowhere = {"model": {"path": str(tmp_path / "nowhere")}}
    (fault,) = faults(settings(tmp_path, emu3), check=nowhere)
    assert fault.startswith("job.check.model.path: ") and "nowhere" in fault
    blind = {"model": {"path": str(aria), "text_only": True}, "preprocess": {"max_image_tiles": 2}}
    assert faults(settings(tmp_path, emu3), check=blind) == [
        "job.check.preprocess.max_image_tiles: found 2, but a model loaded with text_only sees no images; leave it out",
        f"job.check.model.path: {aria} has no vision encoder, but has to look at the pictures that it checks",
    ]
    blind = {"model": {"path": str(aria), "text_only": True}}
    assert faults(settings(tmp_path, emu3), check=blind) == [
        f"job.check.model.path: {aria} has no vision encoder, but has to look at the pictures that it checks"
    ]
    unknown = {"model": {"path": str(aria)}, "questions": [{"ask": "Is the {thing} red?"}]}
    (fault,) = faults(settings(tmp_path, emu3), check=unknown)
    assert fault.startswith("read.columns: job synthesize needs a column `thing`")


def test_both_models_are_in_the_fingerprint(tmp_path: Path, emu3: Path, aria: Path) -> None:
    alone, both = (
        drawing(settings(tmp_path, emu3)),
        drawing(settings(tmp_path, emu3), check={"model": {"path": str(aria)}}),
    )
    assert alone.weights == weights_digest([str(emu3)]) != both.weights
    assert both.checking and both.checking.path == str(aria) and alone.checking is None


def test_the_authors_tokenizer_is_emu3s_alone(tmp_path: Path, emu3: Path, aria: Path) -> None:
    assert drawing(settings(tmp_path, emu3, preprocess={"tokenizer": "baai"})).plan.units
    asked = settings(tmp_path, aria, preprocess={"tokenizer": "baai"})
    assert faults(asked) == [
        f"preprocess.tokenizer: found 'baai', expected 'checkpoint': {aria} is no Emu3",
        f"model.path: {aria} draws no pictures, but job synthesize needs a model that draws pictures",
    ]


def test_more_tokens_than_the_checkpoints_positions_are_a_fault(tmp_path: Path, emu3: Path, aria: Path) -> None:
    limits = [load_processor(str(folder)).max_position_embeddings for folder in (emu3, aria)]
    asked = settings(tmp_path, emu3, generate={"max_length": limits[0]})
    assert drawing(asked, check={"model": {"path": str(aria)}, "generate": {"max_length": limits[1]}}).plan.units
    asked = settings(tmp_path, emu3, generate={"max_length": limits[0] + 1})
    assert faults(asked, check={"model": {"path": str(aria)}, "generate": {"max_length": limits[1] + 1}}) == [
        f"generate.max_length: found {limits[0] + 1}, expected at most {limits[0]}, the checkpoint's limit",
        f"job.check.generate.max_length: found {limits[1] + 1}, expected at most {limits[1]}, the checkpoint's limit",
    ]


def test_pictures_that_can_never_fit_are_a_fault(tmp_path: Path, emu3: Path) -> None:
    asked = settings(tmp_path, emu3, generate={"max_length": 40})
    (fault,) = faults(asked, area=64 * 64)
    assert fault.startswith(
        "generate.max_length: 40 tokens are too few for any of the first 10 prompts with its answer"
    )
    least = int(fault.rsplit(" ", 1)[1])
    assert least > 8 * 9 + 3
    assert drawing(settings(tmp_path, emu3, generate={"max_length": least}), area=64 * 64).plan.units


def test_pictures_beyond_the_checkpoints_end_are_to_be_smaller(tmp_path: Path, emu3: Path) -> None:
    limit = load_processor(str(emu3)).max_position_embeddings
    asked = settings(tmp_path, emu3, generate={"max_length": limit + 1})
    beyond, fault = faults(asked, area=64 * (limit + 64))
    assert beyond == f"generate.max_length: found {limit + 1}, expected at most {limit}, the checkpoint's limit"
    assert f"generate.max_length: {limit} tokens are too few" in fault
    assert f"but the checkpoint ends at {limit}; ask for less: smaller pictures (job.area, preprocess)" in fault


def test_a_check_whose_questions_can_never_fit_is_a_fault(tmp_path: Path, emu3: Path, aria: Path) -> None:
    check = {"model": {"path": str(aria)}, "generate": {"max_length": 20, "sampling": {"max_new_tokens": 4}}}
    (fault,) = faults(settings(tmp_path, emu3), check=check, area=64 * 64)
    assert fault.startswith(
        "job.check.generate.max_length: 20 tokens are too few for a question about a picture of 32 x 32 pixels"
    )
    check["generate"]["max_length"] = int(fault.rsplit(" ", 1)[1])
    assert drawing(settings(tmp_path, emu3), check=check, area=64 * 64).plan.units


def test_what_ends_a_text_does_not_end_a_picture(tmp_path: Path, emu3: Path) -> None:
    asked = settings(tmp_path, emu3, generate={"sampling": {"max_new_tokens": 9, "stop": ["."], "seed": 1}})
    assert faults(asked) == [
        "generate.sampling.max_new_tokens: a picture ends when it is whole; remove this setting",
        "generate.sampling.stop: a picture ends when it is whole; remove this setting",
    ]


def test_a_run_does_not_go_on_where_the_model_that_checks_means_another_device() -> None:
    frozen = {"device": "cuda", "check_device": "cuda"}
    ledger.refuse_other_device(frozen, {"device": "cuda", "check_device": "cuda"}, "out")
    with pytest.raises(
        ConfigError, match=r"job.check.model.device: the run began on cuda, but here it would continue on cpu"
    ):
        ledger.refuse_other_device(frozen, {"device": "cuda", "check_device": "cpu"}, "out")
