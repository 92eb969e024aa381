"""Folders that hold no plain weights, two sets of them, or weights under other names are refused by what they hold."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import check_weights, load_model, load_processor
from models.types import CheckpointError
from models.weight_files import INDEX, SINGLE, WeightsError, stored_dtype
from tests.tiny import save_tensors, tiny_aria

STEM = "language_model.model.layers.0.self_attn.q_proj"
READS = r" reads? them, and here the model that they were made from can be run$"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_aria(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "tiny"))


def change(folder: Path, **tensors: Tensor | None) -> None:
    """Put tensors beside those of a folder, named below one of its matrices; None takes the matrix away."""
    stored = load_file(folder / SINGLE)
    for name, tensor in tensors.items():
        full = f"{STEM}.{name}"
        stored.pop(full, None)
        if tensor is not None:
            stored[full] = tensor.clone()
    save_file(stored, folder / SINGLE)


def say(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


BYTES, WORDS, SCALE = torch.zeros(32, 32, dtype=torch.uint8), torch.zeros(32, 4, dtype=torch.int32), torch.ones(32)
STORED: dict[str, tuple[dict[str, Any], str, str]] = {
    "integers alone": ({"weight": BYTES.to(torch.int8)}, "of no scheme that their names show", "weight is I8"),
    "words": ({"weight": WORDS}, "of no scheme", "weight is I32"),
    "float8": ({"weight": BYTES.to(torch.float8_e4m3fn)}, "fp8", "weight is F8_E4M3"),
    "float8 with scales": (
        {"weight": BYTES.to(torch.float8_e4m3fn), "weight_scale_inv": SCALE}, "fp8", "weight is F8_E4M3"
    ),
    "bitsandbytes 4 bit": (
        {"weight": torch.zeros(512, 1, dtype=torch.uint8), "weight.absmax": SCALE, "weight.quant_map": SCALE,
         "weight.quant_state.bitsandbytes__nf4": BYTES[0]},
        "bitsandbytes", "weight is U8",
    ),
    "bitsandbytes 8 bit": (
        {"weight": BYTES.to(torch.int8), "SCB": SCALE, "weight_format": BYTES[0, 0]}, "bitsandbytes", "weight is I8"
    ),
    "gptq": ({"weight": None, "qweight": WORDS, "qzeros": WORDS, "g_idx": WORDS[0], "scales": SCALE},
             "gptq", r"(qweight|qzeros|g_idx) is I32"),
    "awq": ({"weight": None, "qweight": WORDS, "qzeros": WORDS, "scales": SCALE}, "awq or gptq", r"q\w+ is I32"),
    "compressed-tensors": (
        {"weight": None, "weight_packed": WORDS, "weight_scale": SCALE, "weight_shape": WORDS[0, :2].clone()},
        "compressed-tensors", r"weight_(packed|shape|scale) is",
    ),
    "torchao": ({"weight": None, "weight:qdata": BYTES, "weight:scale": SCALE}, "torchao", "weight:(qdata|scale) is"),
    "quanto": ({"weight": None, "weight._data": BYTES, "weight._scale": SCALE}, "quanto", r"weight\._(data|scale) is"),
    "hqq": ({"weight": None, "W_q": BYTES}, "hqq", "W_q is U8"),
    "mlx": ({"weight": WORDS.to(torch.uint32), "scales": SCALE, "biases": SCALE}, "mlx", "weight is U32"),
}  # fmt: skip


@pytest.mark.parametrize(("tensors", "scheme", "shown"), STORED.values(), ids=STORED)
def test_quantised_weights_are_named_with_a_tensor_and_what_reads_them(
    folder: Path, tensors: dict[str, Tensor], scheme: str, shown: str
) -> None:
    change(folder, **tensors)
    told = rf"^{folder} holds quantised weights \({scheme}.*\): {STEM}\.{shown}.*{READS}"
    for check in (check_weights, load_model):
        with pytest.raises(WeightsError, match=told):
            check(str(folder))


@pytest.mark.parametrize(("fields", "scheme", "reader"), [
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes", "transformers w"),
    ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes", "transformers with bitsandbytes"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq", "vLLM, or transformers with gptqmodel"),
    ({"quantization_config": {"quant_method": "awq"}}, "awq", "vLLM"),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors", "vLLM"),
    ({"quantization_config": {"quant_method": "torchao"}}, "torchao", "transformers with torchao"),
    ({"quantization_config": {"quant_method": "fp8"}}, "fp8", "vLLM, or transformers"),
    ({"compression_config": {"format": "pack-quantized"}}, "compressed-tensors", "vLLM"),
    ({"quantization": {"group_size": 64, "bits": 4}}, "mlx", "mlx-vlm"),
])  # fmt: skip
def test_a_checkpoint_that_calls_itself_quantised_is_believed(
    folder: Path, fields: dict[str, Any], scheme: str, reader: str
) -> None:
    [name] = fields
    say(folder, **fields)
    with pytest.raises(WeightsError, match=rf"weights \({scheme}\): config.json has {name}, .*; {reader}.* reads them"):
        check_weights(str(folder))
    say(folder, **dict.fromkeys(fields))
    check_weights(str(folder))
    text = json.loads((folder / "config.json").read_text())["text_config"]
    say(folder, text_config=text | fields)
    with pytest.raises(WeightsError, match=rf"config.json has text_config\.{name}"):
        check_weights(str(folder))


def test_integers_that_nothing_needs_are_passed_over(folder: Path) -> None:
    stored = load_file(folder / SINGLE)
    stored["vision_tower.embeddings.position_ids"] = torch.arange(16)
    save_file(stored, folder / SINGLE)
    check_weights(str(folder))


@pytest.mark.parametrize(("name", "told"), [
    ("pytorch_model.bin", r"pickled weights, which are never opened; save them again as safetensors"),
    ("consolidated.00.pth", r"pickled weights"),
    ("model-Q4_K_M.gguf", r"llama\.cpp's weights; take the checkpoint that they were made from"),
    ("pytorch_model_fsdp_0", r"FSDP's shards; merge them"),
    ("global_step500", r"DeepSpeed's shards; merge them"),
    ("adapter_model.safetensors", r"an adapter without its base model; merge the two"),
    ("model-00001-of-00002.safetensors", r"safetensors under other names; expected model\.safetensors, or model\.saf"),
])  # fmt: skip
def test_what_a_folder_has_in_place_of_weights_is_named(folder: Path, name: str, told: str) -> None:
    (folder / SINGLE).rename(folder / name)
    with pytest.raises(WeightsError, match=rf"has neither {SINGLE} nor {INDEX}, but {re.escape(name)}: {told}"):
        check_weights(str(folder))


def test_an_adapter_beside_the_weights_is_not_left_out_in_silence(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"has adapter_config\.json beside the weights; .* merge the two"):
        check_weights(str(folder))


def test_one_file_beside_an_index_is_taken_only_if_the_index_names_it(tmp_path: Path, kept: Path) -> None:
    folder = tiny_aria(tmp_path, shards=2)
    names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    shutil.copy(kept / SINGLE, folder / SINGLE)
    told = rf"two sets of weights, {SINGLE} and what {INDEX} names \({', '.join(names)}\); transformers reads the first"
    with pytest.raises(WeightsError, match=told):
        check_weights(str(folder))
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(load_file(folder / SINGLE), SINGLE)}))
    check_weights(str(folder))


@pytest.mark.parametrize(("index", "told"), [
    ({"metadata": {"total_size": 1}}, r"does not say where each tensor is: expected `weight_map` with names of files"),
    ({"weight_map": {}}, r"does not say where each tensor is"),
    ({"weight_map": {"a": 1}}, r"does not say where each tensor is"),
    ({"weight_map": ["a"]}, r"does not say where each tensor is"),
    ({"weight_map": {"a": "weights/a.safetensors"}}, r"names weights/a\.safetensors; expected files that lie"),
    ({"weight_map": {"a": "../a.safetensors"}}, r"names \.\./a\.safetensors; expected files that lie beside it"),
])  # fmt: skip
def test_an_index_that_names_no_files_beside_it_is_refused(folder: Path, index: Any, told: str) -> None:
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=told):
        check_weights(str(folder))


@pytest.mark.parametrize("name", [SINGLE, "config.json", "tokenizer.json", "generation_config.json"])
def test_a_link_to_a_file_that_is_gone_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../blobs/0123")
    told = rf"{name} is a link to \.\./blobs/0123, which is not there; fetch the checkpoint again"
    for load in (load_processor, load_model, check_weights):
        with pytest.raises(CheckpointError, match=told):
            load(str(folder))


@pytest.mark.parametrize("name", [SINGLE, "config.json", "tokenizer.json"])
def test_a_file_that_git_lfs_has_not_fetched_is_named(folder: Path, name: str) -> None:
    note = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 17209920\n"
    (folder / name).write_text(note)
    told = rf"{name} is a note of Git LFS and not the file; type `git lfs pull` in {folder}"
    for load in (load_processor, load_model, check_weights):
        with pytest.raises(CheckpointError, match=told):
            load(str(folder))


@pytest.mark.parametrize("dtype", ["int8", "float64", "half", ""])
def test_a_model_is_computed_in_few_types(folder: Path, dtype: str) -> None:
    with pytest.raises(CheckpointError, match=rf"dtype: found '{dtype}', expected auto, float32, bfloat16, float16"):
        load_model(str(folder), device="cpu", dtype=dtype)


def test_links_to_files_that_are_there_are_files(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    folder.rename(blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    check_weights(str(snapshot))
    load_processor(str(snapshot))
    with pytest.raises(CheckpointError, match=r"has no config\.json but snapshots/, as a hub's cache; expected one of"):
        check_weights(str(tmp_path))


WRAPPED: dict[str, tuple[Callable[[str], str], str]] = {
    "peft": (lambda name: f"base_model.model.{name}", r"a name of peft: save model\.merge_and_unload"),
    "compiled": (lambda name: f"_orig_mod.{name}", r"a name of torch\.compile: save model\._orig_mod"),
    "compiled inside": (
        lambda name: name.replace("model.layers", "model._orig_mod.layers"),
        r"a name of torch\.compile",
    ),
    "data parallel": (lambda name: f"module.{name}", r"a name of DataParallel: save model\.module"),
    "fsdp": (lambda name: f"_fsdp_wrapped_module.{name}", "a name of FSDP: save its full state dict"),
    "unmerged": (
        lambda name: name.replace("q_proj.", "q_proj.base_layer."),
        r"a name of an adapter: save model\.merge",
    ),
}


@pytest.mark.parametrize(("wrap", "told"), WRAPPED.values(), ids=WRAPPED)
def test_names_that_training_leaves_are_told_by_what_left_them(
    folder: Path, wrap: Callable[[str], str], told: str
) -> None:
    save_tensors(folder, {wrap(name): tensor for name, tensor in load_file(folder / SINGLE).items()})
    with pytest.raises(WeightsError, match=rf"does not fit AriaModel: \S+ is {told}.*; no place for "):
        check_weights(str(folder))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_what_no_file_says_the_weights_say(folder: Path, dtype: str) -> None:
    tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(folder / SINGLE).items()}
    save_tensors(folder, {"a.inv_freq": torch.arange(3)} | tensors)
    for said in (None, "auto"):
        say(folder, torch_dtype=said)
        assert stored_dtype(folder) == dtype
        model = load_model(str(folder), device="cpu")  # where all is computed in float32
        assert model.dtype == torch.float32


def test_weights_of_mixed_types_are_one_model(folder: Path) -> None:
    exact = {name: tensor.bfloat16() for name, tensor in load_file(folder / SINGLE).items()}
    save_tensors(folder, exact)
    expected = dict(load_model(str(folder), device="cpu").named_parameters())
    types = (torch.float64, torch.bfloat16, torch.float32)
    save_tensors(folder, {name: tensor.to(types[i % 3]) for i, (name, tensor) in enumerate(exact.items())})
    found = dict(load_model(str(folder), device="cpu").named_parameters())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
