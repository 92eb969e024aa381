"""What is wrong with a run's settings is said before anything starts, in the words of the setting."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.vqa import VqaSettings
from models.types import PictureFormat
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.check import PreflightResult, check
from pipeline.settings import ConfigError, check_settings, dump_settings
from pipeline.state import ledger
from pipeline.state.plan import cut_parts, freeze_plan
from pipeline.storage.model_folder import weights_digest
from pipeline.storage.store import Store
from tests.end_to_end.shards import png, tar_bytes, write_shards
from tests.pipeline.toys import ToyJob, units_of
from tests.tiny import set_template, tiny_mllama


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mllama of two tiles at most."""
    return tiny_mllama(tmp_path_factory.mktemp("mllama"), vision={"max_num_tiles": 2}, images={"max_image_tiles": 2})


def settings(tmp_path: Path, checkpoint: Path, **sections: dict[str, Any]) -> PipelineSettings:
    shards = write_shards(tmp_path / "in", shards=1, rows=4)
    values: dict[str, Any] = {
        "read": {"uri": str(shards)},
        "model": {"path": str(checkpoint)},
        "write": {"uri": str(tmp_path / "out"), "unit_rows": 4},
    }
    return check_settings(
        PipelineSettings, values | {name: values.get(name, {}) | section for name, section in sections.items()}
    )


def checked(settings: PipelineSettings, *, has_text_only_rows: bool = True) -> PreflightResult:
    return check(settings, ToyJob(has_text_only_rows, required=()), Store(settings.write.uri))


def faults(settings: PipelineSettings, *, has_text_only_rows: bool = True) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        checked(settings, has_text_only_rows=has_text_only_rows)
    return caught.value.faults


def fault(settings: PipelineSettings) -> str:
    (found,) = faults(settings)
    return found


def test_more_tiles_than_the_checkpoint_takes_are_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    asked = settings(tmp_path, checkpoint, preprocess={"max_image_tiles": 4})
    assert fault(asked) == "preprocess.max_image_tiles: found 4, expected 1 to 2, the checkpoint's limit"
    assert checked(settings(tmp_path, checkpoint, preprocess={"max_image_tiles": 2})).plan.units[0].num_rows == 4


def test_each_image_setting_of_another_family_is_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    asked = settings(tmp_path, checkpoint, preprocess={"max_image_size": 490, "split_image": False})
    assert faults(asked) == [
        "preprocess.split_image: found False, but Mllama has no such image setting; leave it out",
        "preprocess.max_image_size: found 490, but Mllama has no such image setting; leave it out",
    ]


def test_an_image_setting_of_a_model_without_its_eye_is_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    asked = settings(tmp_path, checkpoint, model={"text_only": True}, preprocess={"max_image_tiles": 2})
    assert fault(asked) == (
        "preprocess.max_image_tiles: found 2, but a model loaded with text_only sees no images; leave it out"
    )


def test_a_job_that_needs_images_needs_a_model_with_its_eye(tmp_path: Path, checkpoint: Path) -> None:
    asked = settings(tmp_path, checkpoint, model={"text_only": True})
    assert faults(asked, has_text_only_rows=False) == [
        "model.text_only: found true, expected false: job toy needs an image in every row"
    ]
    assert checked(settings(tmp_path, checkpoint), has_text_only_rows=False).plan.units


def test_a_job_that_needs_images_refuses_a_decoder_alone(tmp_path: Path, checkpoint: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "decoder")
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**whole["text_config"], "model_type": "mllama_text_model"}))
    asked = settings(tmp_path, folder)
    assert faults(asked, has_text_only_rows=False) == [
        f"model.path: {folder} has no vision encoder, but job toy needs an image in every row"
    ]
    assert checked(asked).plan.units


def test_a_configuration_that_contradicts_itself_is_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    broken = Path(shutil.copytree(checkpoint, tmp_path / "broken"))
    config = json.loads((broken / "config.json").read_text())
    config["vision_config"]["intermediate_layers_indices"] = [1, 3]
    (broken / "config.json").write_text(json.dumps(config))
    said = fault(settings(tmp_path, broken))
    assert said.startswith("model.path: ") and "[1, 3], expected whole numbers from 0 to 2" in said


def test_weights_that_no_engine_could_load_are_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "quantised"))
    tensors = load_file(folder / "model.safetensors")
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "model.safetensors")
    told = rf"model\.path: {folder} holds quantised weights .*: {name} is I8, expected numbers as they are"
    assert re.match(told, fault(settings(tmp_path, folder)))


def test_a_token_of_every_prompt_that_the_weights_do_not_know_is_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "grown"))
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["?"] = 9999
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    told = rf"model\.path: {folder}: prompts have the token '\?' \(id 9999\), but the embedding table has \d+ rows"
    assert re.match(told, fault(settings(tmp_path, folder)))


def test_text_only_needs_nothing_that_images_need(tmp_path: Path, checkpoint: Path) -> None:
    blind = Path(shutil.copytree(checkpoint, tmp_path / "blind"))
    (blind / "preprocessor_config.json").unlink()
    assert "does not say how images are prepared" in fault(settings(tmp_path, blind))
    assert checked(settings(tmp_path, blind, model={"text_only": True})).plan.units


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("preprocess", {"today": "2031-03-02"}, "preprocess.today: was '2024-07-26', now '2031-03-02'"),
        ("preprocess", {"max_image_tiles": 1}, "preprocess.max_image_tiles: was nothing, now 1"),
        ("model", {"text_only": True}, "model.text_only: was False, now True"),
    ],
)
def test_a_run_is_not_gone_on_with_settings_that_change_its_prompts(
    tmp_path: Path, checkpoint: Path, section: str, change: dict[str, Any], said: str
) -> None:
    begun = settings(tmp_path, checkpoint)
    frozen = {"settings": dump_settings(begun), "weights": "w"}
    ledger.refuse_other_answers(frozen, dump_settings(begun), "w", "out")
    with pytest.raises(ConfigError) as caught:
        now = dump_settings(settings(tmp_path, checkpoint, **{section: change}))
        ledger.refuse_other_answers(frozen, now, "w", "out")
    assert caught.value.faults == [said]


def test_a_run_from_before_a_setting_was_there_is_told_so(tmp_path: Path, checkpoint: Path) -> None:
    now = dump_settings(settings(tmp_path, checkpoint))
    before = now | {"model": {name: value for name, value in now["model"].items() if name != "text_only"}}
    with pytest.raises(
        ConfigError, match=r"text_only: was not set when the run began \(an older version, or another job\), now False"
    ):
        ledger.refuse_other_answers({"settings": before, "weights": "w"}, now, "w", "out")


def test_of_another_job_no_more_is_said_than_that_it_is_one() -> None:
    before = {"job": {"kind": "vqa", "rule": "exact"}, "read": {"limit": 1}}
    now = {"job": {"kind": "caption", "prompt": "What?"}, "read": {"limit": 2}}
    with pytest.raises(ConfigError) as caught:
        ledger.refuse_other_answers({"settings": before, "weights": "w"}, now, "w", "out")
    assert caught.value.faults == ["job.kind: was 'vqa', now 'caption'", "read.limit: was 1, now 2"]


def test_a_checkpoints_fingerprint_is_that_of_the_files_that_are_read(tmp_path: Path, checkpoint: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    before = weights_digest([str(folder)])
    (folder / "original").mkdir()
    for name in ("original/params.json", "original/consolidated.00.pth", "README.md", "._config.json"):
        (folder / name).write_text("{}")
    assert weights_digest([str(folder)]) == before
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "notes.txt").write_text("{}")
    assert weights_digest([str(folder)]) == before
    (folder / "additional_chat_templates" / "rag.jinja").write_text("another")
    more = weights_digest([str(folder)])
    (folder / "chat_template.jinja").write_text("another")
    assert len({before, more, weights_digest([str(folder)])}) == 3


def test_a_model_that_cannot_be_asked_is_a_fault_before_anything_starts(tmp_path: Path, checkpoint: Path) -> None:
    lost = Path(shutil.copytree(checkpoint, tmp_path / "lost"))
    set_template(lost, None)
    asked = settings(tmp_path, lost)
    assert fault(asked).startswith(f"model.path: {lost} has no chat template (looked for processor_config.json, ")
    with_template = ToyJob(True, required=(), template="{image}{question}")
    assert check(asked, with_template, Store(asked.write.uri)).answering.processor.chat_fault is None
    wrong = settings(tmp_path, lost, preprocess={"max_image_tiles": 4})
    with pytest.raises(ConfigError) as caught:
        check(wrong, with_template, Store(wrong.write.uri))
    assert [one.split(":")[0] for one in caught.value.faults] == ["preprocess.max_image_tiles"]
    set_template(lost, "{{ messages | length }}")
    assert "shows no text of a message of role 'user'" in fault(asked)
    # Drawing asks by a prompt alone; that this family draws nothing is the one fault.
    drawing = ToyJob(True, required=(), picture=PictureFormat())
    with pytest.raises(ConfigError) as caught:
        check(asked, drawing, Store(asked.write.uri))
    assert not [one for one in caught.value.faults if "template" in one]


def test_image_settings_that_are_not_read_are_said_once(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "both"))
    older = json.loads((folder / "preprocessor_config.json").read_text())
    nested = folder / "processor_config.json"
    nested.write_text(json.dumps({"image_processor": older | {"processor_class": "Other", "do_pad": True}}))
    asked = settings(tmp_path, folder)
    checked(asked)
    assert "preprocessor_config" not in caplog.text
    nested.write_text(json.dumps({"image_processor": older | {"max_image_tiles": 1}}))
    checked(asked)
    said = f"{folder}: processor_config.json holds before preprocessor_config.json: max_image_tiles (1 and not 2)"
    assert [record.message for record in caplog.records if "holds before" in record.message] == [said]


def broken_start(folder: Path, rows: int, broken: int) -> Path:
    """A shard whose first images are none."""
    folder.mkdir()
    members: dict[str, bytes] = {}
    for n in range(rows):
        members |= {f"{n:03d}.txt": b"<|image|>what?", f"{n:03d}.png": b"<html>gone</html>" if n < broken else png(n)}
    (folder / "0.tar").write_bytes(tar_bytes(members))
    return folder


def test_first_rows_that_all_fail_alike_are_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    asked = settings(tmp_path, checkpoint, read={"uri": str(broken_start(tmp_path / "broken", 50, 50))})
    said = fault(asked)
    assert said.startswith("read: all of the first 32 rows fail, the first one at decode: BadImage: ")
    assert said.endswith("(limits.max_failed_share=1 runs them anyway)")
    all_the_same = {"limits": {"max_failed_share": 1.0}}
    assert checked(settings(tmp_path, checkpoint, read={"uri": asked.read.uri}, **all_the_same)).plan.units


@pytest.mark.parametrize(("rows", "broken"), [(50, 31), (8, 8)])
def test_a_dataset_may_begin_with_broken_rows(tmp_path: Path, checkpoint: Path, rows: int, broken: int) -> None:
    uri = broken_start(tmp_path / "broken", rows, broken)
    assert checked(settings(tmp_path, checkpoint, read={"uri": str(uri)})).plan.row_bytes > 0


def test_an_output_that_cannot_be_written_is_listed_beside_other_faults(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    asked = settings(tmp_path, checkpoint, model={"path": "nowhere"}, write={"uri": str(tmp_path / "file" / "out")})
    assert [said.split(":")[0] for said in faults(asked)] == ["model.path", "write.uri"]


def test_what_an_engine_loads_is_known_before_it_does(tmp_path: Path, checkpoint: Path) -> None:
    ready = checked(settings(tmp_path, checkpoint))
    stored = (checkpoint / "model.safetensors").stat().st_size
    assert 0 < ready.answering.num_weights * 4 <= stored * 1.05


def test_of_a_run_that_was_refused_nothing_stays(tmp_path: Path, checkpoint: Path) -> None:
    assert faults(
        settings(tmp_path, checkpoint, write={"uri": str(tmp_path / "new" / "out")}, model={"path": "nowhere"})
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    (tmp_path / "mine").mkdir()
    assert faults(settings(tmp_path, checkpoint, write={"uri": str(tmp_path / "mine")}, model={"path": "nowhere"}))
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_run_that_goes_on_refuses_a_changed_input_unless_it_is_finished(tmp_path: Path, checkpoint: Path) -> None:
    asked, store = settings(tmp_path, checkpoint), Store(str(tmp_path / "out"))
    ready = checked(asked)
    ledger.freeze_settings(store, {"settings": dump_settings(asked), "weights": ready.weights})
    freeze_plan(store, ready.plan.units)
    assert checked(asked).is_started
    os.utime(tmp_path / "in" / "000.tar", (1, 1))
    with pytest.raises(ConfigError, match="the input is not what it was when the run was planned") as caught:
        checked(asked)
    assert "000.tar: found the planned size, but version 1970-01-01T00:00:01" in caught.value.faults[0]
    store.publish(ledger.SUCCESS, b"")
    assert checked(asked).is_done


def test_a_finished_output_that_is_to_be_replaced_is_checked_like_a_new_one(tmp_path: Path, checkpoint: Path) -> None:
    asked, store = settings(tmp_path, checkpoint), Store(str(tmp_path / "out"))
    ledger.freeze_settings(store, {"settings": dump_settings(asked), "weights": checked(asked).weights})
    freeze_plan(store, checked(asked).plan.units)
    store.publish(ledger.SUCCESS, b"")
    assert checked(asked).answering.num_weights == 0
    again = settings(tmp_path, checkpoint, write={"uri": store.uri, "on_existing": "replace"})
    assert not checked(again).is_done
    assert checked(again).answering.num_weights > 0
    assert checked(again).first_writer_wins


def test_a_run_that_cannot_go_on_says_all_that_differs_beside_what_is_wrong(tmp_path: Path, checkpoint: Path) -> None:
    asked, store = settings(tmp_path, checkpoint), Store(str(tmp_path / "out"))
    ready = checked(asked)
    ledger.freeze_settings(store, {"settings": dump_settings(asked), "weights": ready.weights})
    freeze_plan(store, ready.plan.units)
    other = settings(tmp_path, checkpoint, generate={"sampling": {"seed": 1}}, preprocess={"max_image_tiles": 4})
    assert faults(other) == [
        "preprocess.max_image_tiles: found 4, expected 1 to 2, the checkpoint's limit",
        "preprocess.max_image_tiles: was nothing, now 4",
        "generate.sampling.seed: was 0, now 1",
    ]


@pytest.mark.parametrize("path", ["s3://bucket/aria", "rhymes-ai/Aria"])
def test_no_model_is_fetched_where_there_is_no_input(
    path: str, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.preflight.models.local_copy", lambda *args, **more: pytest.fail("fetched"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    asked = settings(
        tmp_path, checkpoint, model={"path": path}, read={"uri": str(tmp_path / "none")}, generate={"gpus": 1}
    )
    missing, device = faults(asked)
    assert missing == f"read: found no files at {tmp_path / 'none'}"
    assert device.startswith("generate: found 1 engine with 1 GPU each, but Ray has 0 GPUs")


def test_units_of_large_image_files_that_rows_name_are_small(tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    for name, size in (("large", 5 * 10**6), ("small", 0)):
        (folder / f"{name}.png").write_bytes(png(0) + bytes(size))
        lines = [json.dumps({"image": f"{name}.png", "text": "<|image|>look"}) for _ in range(600)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))

    def ready(name: str, **write: Any) -> PreflightResult:
        read = {"uri": str(folder / f"{name}.jsonl")}
        return checked(settings(tmp_path, checkpoint, read=read, write={"unit_rows": "auto", **write}))

    assert max(unit.num_rows for unit in ready("small").plan.units) == 13, "a forty-eighth"
    large = ready("large").plan
    assert max(unit.num_rows for unit in large.units) == 11
    assert large.row_bytes > 5 * 10**6
    assert ready("large", unit_rows=100).plan.row_bytes == large.row_bytes, "it is weighed whoever says how many rows"


def test_images_that_go_into_a_tar_are_weighed_and_its_parts_are_small(tmp_path: Path, checkpoint: Path) -> None:
    with_tars = settings(tmp_path, checkpoint, write={"webdataset": True})
    without, job = settings(tmp_path, checkpoint), ToyJob(has_text_only_rows=True, required=())
    images = len(png(0))
    assert checked(with_tars).plan.row_bytes >= checked(without).plan.row_bytes + images // 2
    units = units_of(100, 4)
    parts = cut_parts(units, with_tars.write, job)
    assert [(len(part.units), part.tar_text) for part in parts] == [(count, "caption") for count in (1, 8, 8, 8)]
    assert {part.tar_text for part in cut_parts(units, without.write, job)} == {""}


def rows_without_images(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def faults_of_questions(tmp_path: Path, checkpoint: Path, uri: str, **sections: dict[str, Any]) -> list[str]:
    sections["read"] = {"uri": uri, **sections.get("read", {})}
    run = settings(tmp_path, checkpoint, **sections)
    try:
        check(run, ToyJob(has_text_only_rows=True, expects_images=True, required=()), Store(run.write.uri))
    except ConfigError as error:
        return error.faults
    return []


def test_rows_without_any_image_stop_a_job_about_images_and_the_columns_are_named(
    tmp_path: Path, checkpoint: Path
) -> None:
    uri = rows_without_images(tmp_path, "x.jsonl", '{"text": "What?", "image_path": "a.png"}\n' * 40)
    (found,) = faults_of_questions(tmp_path, checkpoint, uri)
    assert "none of the first 32 rows has an image, and the columns are text, image_path" in found
    assert found.endswith("; set read.columns.image=image_path, or set read.images=optional if none is meant")
    assert faults_of_questions(tmp_path, checkpoint, uri, read={"images": "optional"}) == []
    assert faults_of_questions(tmp_path, checkpoint, uri, model={"text_only": True}) == []


@pytest.mark.parametrize(
    ("row", "setting"),
    [
        ({"img": "a.png"}, "read.columns.image=img"),
        ({"images": ["a.png"]}, "read.columns.image=images"),
        ({"file": "train", "file_name": "a.png"}, "read.columns.image=file_name"),
        ({"Image-URL": "https://x.org/1"}, "read.columns.image=Image-URL"),
        ({"my photo": "a.png"}, "'read.columns.image=my photo'"),
        ({"jpg": "0001"}, "read.columns.image=jpg"),
        ({"note": "a", "seen": {"path": "b/a.JPEG"}}, "read.columns.image=seen"),
        ({"width": 3, "image_id": 7}, "read.columns.image=COLUMN"),
    ],
)
def test_the_column_that_may_hold_the_images_is_proposed(
    tmp_path: Path, checkpoint: Path, row: dict[str, Any], setting: str
) -> None:
    uri = rows_without_images(tmp_path, "x.jsonl", json.dumps({"text": "What?", **row}) + "\n")
    (found,) = faults_of_questions(tmp_path, checkpoint, uri)
    assert ", ".join(["text", *row]) in found and f" {setting}, or set read.images=optional" in found
    if "COLUMN" not in setting:
        (tmp_path / "a.png").write_bytes(png(7))
        name = setting.strip("'").removeprefix("read.columns.image=")
        assert not faults_of_questions(tmp_path, checkpoint, uri, read={"columns": {"image": name}}), "it is to type"


def test_of_a_tar_no_column_is_proposed_for_images_are_its_members(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_bytes({"1.json": b'{"text": "What?", "url": "https://x.org/1.png"}'}))
    (found,) = faults_of_questions(tmp_path, checkpoint, str(tmp_path / "x.tar"))
    assert found.endswith("the columns are text, url; set read.images=optional if none is meant")


def test_fields_of_a_tar_are_proposed_as_columns_are(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_bytes({"1.json": b'{"query": "What?"}', "1.png": png(1)}))
    run = settings(tmp_path, checkpoint, read={"uri": str(tmp_path / "x.tar")})
    with pytest.raises(ConfigError) as caught:
        check(run, VqaSettings(kind="vqa").build(), Store(run.write.uri))
    (said,) = caught.value.faults
    assert said.endswith("; set read.columns.question=query")
    run = settings(tmp_path, checkpoint, read={"uri": str(tmp_path / "x.tar"), "columns": {"question": "query"}})
    assert check(run, VqaSettings(kind="vqa").build(), Store(run.write.uri)).plan.units


def test_lines_of_text_that_are_questions_need_no_images(tmp_path: Path, checkpoint: Path) -> None:
    uri = rows_without_images(tmp_path, "x.txt", "What?\n")
    run = settings(tmp_path, checkpoint, read={"uri": uri})
    with pytest.raises(ConfigError) as caught:
        check(run, VqaSettings(kind="vqa").build(), Store(run.write.uri))
    (said,) = caught.value.faults
    assert said.endswith("the input has key, text; set read.columns.question=text")


def test_a_column_that_a_job_needs_is_proposed_under_the_inputs_own_name(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(7))
    uri = rows_without_images(tmp_path, "x.jsonl", '{"image": "a.png", "prompt": "What?", "n": 1, "images": "b"}\n')
    run = settings(tmp_path, checkpoint, read={"uri": uri})
    with pytest.raises(ConfigError) as caught:
        check(run, ToyJob(required=("text",)), Store(run.write.uri))
    assert caught.value.faults[0] == (
        "read.columns: job toy needs a column `text`, but the input has prompt, n, images, image_path; "
        "set read.columns.text=prompt"
    )


def test_images_and_questions_under_other_names_are_told_at_once(tmp_path: Path, checkpoint: Path) -> None:
    uri = rows_without_images(tmp_path, "x.jsonl", '{"img": "a.png", "query": "What?"}\n' * 9)
    run = settings(tmp_path, checkpoint, read={"uri": uri})
    with pytest.raises(ConfigError) as caught:
        check(run, VqaSettings(kind="vqa").build(), Store(run.write.uri))
    asked, seen = caught.value.faults
    assert asked.endswith("set read.columns.question=query") and "set read.columns.image=img, or" in seen
    both = {"question": "query", "image": "img"}
    (tmp_path / "a.png").write_bytes(png(7))
    run = settings(tmp_path, checkpoint, read={"uri": uri, "columns": both})
    ready = check(run, VqaSettings(kind="vqa").build(), Store(run.write.uri))
    assert ready.plan.units[0].num_rows, "answers are not needed"


def test_a_column_that_a_job_may_read_is_told_and_stops_nothing(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = rows_without_images(tmp_path, "x.jsonl", '{"text": "What?", "answer": "a cat"}\n')
    run = settings(tmp_path, checkpoint, read={"uri": uri})
    with caplog.at_level("INFO"):
        check(run, ToyJob(has_text_only_rows=True, optional=("answers",)), Store(run.write.uri))
    said = "no column `answers`, which job toy reads where there is one; read.columns.answers=answer names another"
    assert said in caplog.messages


def test_a_few_rows_without_an_image_before_others_with_one_stop_nothing(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(7))
    some = '{"text": "What?"}\n' * 20 + '{"text": "What?", "image": "a.png"}\n'
    assert faults_of_questions(tmp_path, checkpoint, rows_without_images(tmp_path, "x.jsonl", some)) == []


def test_an_image_that_is_gone_is_the_rows_own_fault_and_no_blindness(tmp_path: Path, checkpoint: Path) -> None:
    uri = rows_without_images(tmp_path, "x.jsonl", '{"text": "What?", "image": "gone.png"}\n' * 3)
    assert faults_of_questions(tmp_path, checkpoint, uri) == []


def test_a_list_of_paths_that_nobody_called_images_is_no_list_of_questions(tmp_path: Path, checkpoint: Path) -> None:
    uri = rows_without_images(tmp_path, "x.lst", "a.png\n" * 40)
    asked = settings(tmp_path, checkpoint, read={"uri": uri})
    run = ToyJob(has_text_only_rows=False, expects_images=True, required=())
    with pytest.raises(ConfigError) as caught:
        check(asked, run, Store(asked.write.uri))
    (found,) = caught.value.faults
    assert "the columns are text; set read.columns={image: text, key: text} if lines are paths of images, or" in found


def test_images_that_lie_elsewhere_are_looked_for_there_once_settings_say_so(tmp_path: Path, checkpoint: Path) -> None:
    uri = rows_without_images(tmp_path, "x.jsonl", '{"text": "<|image|>What?", "image": "gone.png"}\n' * 40)
    (found,) = faults_of_questions(tmp_path, checkpoint, uri)
    assert "all of the first 32 rows fail" in found and "may lie elsewhere: set read.folders" in found
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "gone.png").write_bytes(png(1))
    there = {"folders": {"image": str(folder)}}
    assert faults_of_questions(tmp_path, checkpoint, uri, read=there) == []


def test_lines_of_text_are_questions_without_images(tmp_path: Path, checkpoint: Path) -> None:
    assert faults_of_questions(tmp_path, checkpoint, rows_without_images(tmp_path, "x.txt", "What?\nWho?\n")) == []
