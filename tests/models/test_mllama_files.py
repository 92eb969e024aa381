"""However its files were written and wherever its layers lie, a checkpoint is one Mllama; for text alone half of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import load_model
from models.mllama.model import MllamaModel
from models.types import CheckpointError
from tests.models.mllama_ours import generated, logits_of, rows_from_an_image, rows_with_left_context
from tests.models.mllama_reference import TABLES, Row, batch, change, greedy, write_reference, write_text_reference
from tests.models.mllama_sizes import LLAMA3, PLAIN, SIZES, TEXT

SIZE = SIZES["released_in_small"]
ROWS = rows_with_left_context(SIZE)[:3]
TEXTS = [row for row in rows_with_left_context(SIZE) if not row.pictures] + [Row([*range(3, 40)])]


@dataclass(frozen=True)
class Written:
    """A folder, the reference's model of it and the scores of ROWS."""

    folder: Path
    reference: Any
    scores: torch.Tensor


@pytest.fixture
def written(tmp_path: Path) -> Written:
    reference = write_reference(tmp_path, SIZE)
    return Written(tmp_path, reference, scores_of(tmp_path))


def scores_of(folder: Path, **load: Any) -> torch.Tensor:
    model = load_model(str(folder), **{"device": "cpu"} | load)
    return torch.cat([logits_of(model, row, SIZE) for row in ROWS])


def rename(folder: Path, names: dict[str, str]) -> None:
    """Give fields of config.json other names, in whatever section they stand."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for section in (config, config["text_config"], config["vision_config"]):
        for old in names.keys() & section.keys():
            section[names[old]] = section.pop(old)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("rope", [LLAMA3, PLAIN], ids=["llama3", "default"])
def test_older_and_newer_configurations_are_the_same_model(written: Written, rope: dict[str, Any]) -> None:
    config = written.folder / "config.json"
    change(config, "text_config", rope_parameters=rope)
    newer = scores_of(written.folder)
    assert torch.equal(newer, written.scores) == (rope is LLAMA3)
    older = {name: value for name, value in rope.items() if name != "rope_theta"}
    change(config, "text_config", rope_parameters=None, rope_theta=rope["rope_theta"], rope_scaling=older)
    # What 4.45 wrote into every section.
    change(config, "text_config", num_beams=1, top_k=50, do_sample=False, tie_word_embeddings=True, is_decoder=False)
    rename(written.folder, {"dtype": "torch_dtype", "attention_heads": "num_attention_heads"})
    assert torch.equal(scores_of(written.folder), newer)


def test_names_as_they_are_in_memory_and_sharded_files_are_the_same_model(tmp_path: Path) -> None:
    reference = write_reference(tmp_path, SIZE, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    sharded = scores_of(tmp_path)
    for path in tmp_path.glob("*.safetensors*"):
        path.unlink()
    names = {name: tensor.clone().contiguous() for name, tensor in reference.state_dict().items()}
    assert {"model.language_model.layers.0.mlp.up_proj.weight", "model.vision_model.class_embedding"} <= names.keys()
    save_file(names, tmp_path / "model.safetensors")
    assert torch.equal(scores_of(tmp_path), sharded)


def test_a_tensor_too_many_or_too_few_is_named(written: Written) -> None:
    file = written.folder / "model.safetensors"
    tensors = load_file(file)
    gate = "language_model.model.layers.1.cross_attn_attn_gate"
    tensors["language_model.model.layers.0.cross_attn_attn_gate"] = tensors.pop(gate)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"layers\.0\.cross_attn_attn_gate.*layers\.1\.cross_attn_attn_gate"):
        load_model(str(written.folder), device="cpu")


def parts(model: MllamaModel) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def test_a_whole_checkpoint_loaded_for_text_holds_no_eye_and_answers_text_as_the_reference(written: Written) -> None:
    whole = load_model(str(written.folder), device="cpu")
    half = load_model(str(written.folder), device="cpu", text_only=True)
    left_out = parts(whole) - parts(half)
    assert parts(half) < parts(whole)
    assert all(
        "vision" in name or "multi_modal" in name or ".layers.1." in name or ".layers.4." in name for name in left_out
    )
    assert not any("vision" in name or "multi_modal" in name or "cross" in name for name in parts(half))
    for row in TEXTS:
        with torch.inference_mode():
            expected = written.reference(**batch([row], SIZE)).logits[0]
        torch.testing.assert_close(logits_of(half, row, SIZE), expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(logits_of(half, row, SIZE), logits_of(whole, row, SIZE))
    assert generated(half, TEXTS, SIZE, 30) == greedy(written.reference, batch(TEXTS, SIZE), 30)


def test_a_decoder_alone_answers_as_the_references(tmp_path: Path) -> None:
    reference = write_text_reference(tmp_path, TEXT)
    model = load_model(str(tmp_path), device="cpu")
    assert not any("vision" in name or "cross" in name for name in parts(model))
    for row in TEXTS:
        with torch.inference_mode():
            expected = reference(torch.tensor([list(row.ids)])).logits[0]
        torch.testing.assert_close(logits_of(model, row, SIZE), expected, atol=1e-4, rtol=1e-4)
    assert generated(model, TEXTS, SIZE, 30) == greedy(reference, batch(TEXTS, SIZE), 30)


def test_half_precision_stays_near_single_precision(tmp_path: Path) -> None:
    same = []
    for name in ("released_in_small", "one_head_of_keys", "half_of_the_layers_cross"):
        size = SIZES[name]
        write_reference(tmp_path / name, size)
        models = [load_model(str(tmp_path / name), device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")]
        rows = [*rows_from_an_image(size), *rows_with_left_context(size)]
        whole, rough = (torch.cat([logits_of(model, row, size) for row in rows]) for model in models)
        assert (rough - whole).abs().mean() < 0.03 * whole.square().mean().sqrt()
        same.append(rough.argmax(-1) == whole.argmax(-1))
    assert torch.cat(same).float().mean() > 0.98


def test_the_tables_rows_for_no_image_are_never_used(written: Written) -> None:
    file = written.folder / "model.safetensors"
    tensors = load_file(file)
    tables = [name for name in tensors if name.endswith(TABLES)]
    assert len(tables) == 3
    for name in tables:
        tensors[name][0] = np.nan
    save_file(tensors, file)
    assert torch.equal(scores_of(written.folder), written.scores)


def test_an_image_is_a_word_that_is_read_and_never_written(written: Written) -> None:
    model = load_model(str(written.folder), device="cpu")
    vocabulary = SIZE.text["vocab_size"]
    assert model.embed(torch.arange(vocabulary + 8)).shape == (vocabulary + 8, SIZE.text["hidden_size"])
    assert written.scores.shape[-1] == vocabulary


def test_what_passes_from_layer_to_layer_moves_to_the_next_ones_device(written: Written) -> None:
    """`meta` computes shapes only, and refuses what lies elsewhere, as any second device does."""
    model = load_model(str(written.folder), device=["cpu", "cpu", "meta"])
    on = {name: parameter.device.type for name, parameter in model.named_parameters()}
    assert {on["vision_model.class_embedding"], on["language_model.model.embed_tokens.weight"]} == {"cpu"}
    layers = [on[f"language_model.model.layers.{layer}.mlp.up_proj.weight"] for layer in range(6)]
    assert layers == sorted(layers)
    first_cross, last_cross = SIZE.text["cross_attention_layers"]
    assert (layers[first_cross], layers[last_cross], on["language_model.lm_head.weight"]) == ("cpu", "meta", "meta")
    scores = logits_of(model, ROWS[1], SIZE)
    assert (scores.device.type, scores.shape) == ("meta", (len(ROWS[1].ids), SIZE.text["vocab_size"]))
