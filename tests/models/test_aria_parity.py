"""Aria computes what the reference computes, whatever its sizes are and however its files were written."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import load_model
from models.aria.model import AriaModel
from models.engine import Engine, Sequence, run_all
from models.types import ModelInput, Sampling
from tests.models.reference import (
    TEXT,
    VISION,
    Pair,
    Row,
    Size,
    batch,
    greedy,
    pair_of,
    picture,
    write_reference,
    write_text_reference,
)  # fmt: skip

# Every number that a configuration can hold differs somewhere from all the others.
SIZES = {
    "many_queries": Size(TEXT, VISION, {25: 4, 100: 8}, canvas=140, shortest=48),
    "half_canvas": Size(TEXT | {"moe_num_shared_experts": 1}, VISION, {25: 4, 100: 8}, canvas=70, shortest=20),
    "grouped_heads": Size(
        TEXT | {"num_key_value_heads": 2, "head_dim": 16, "rope_parameters": {"rope_theta": 5e6}},
        VISION | {"num_attention_heads": 2, "num_hidden_layers": 3, "hidden_size": 24},
        {100: 5}, canvas=140, shortest=1, image_token=17,
    ),
    "one_head_of_keys": Size(
        TEXT | {"num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 10, "rms_norm_eps": 1e-3},
        VISION | {"patch_size": 8, "image_size": 64, "layer_norm_eps": 1e-3},
        {64: 7, 16: 3}, canvas=64, shortest=30,
    ),
    "one_expert_a_token": Size(
        TEXT | {"moe_num_experts": 5, "moe_topk": 1, "moe_num_shared_experts": 3, "hidden_size": 40},
        VISION | {"hidden_size": 40, "intermediate_size": 30}, {25: 6, 100: 2}, canvas=140, shortest=56,
    ),
    "all_experts": Size(
        TEXT | {"moe_num_experts": 4, "moe_topk": 4, "intermediate_size": 10, "num_hidden_layers": 3, "vocab_size": 77},
        VISION | {"patch_size": 16, "image_size": 96}, {36: 9}, canvas=96, shortest=96,
    ),
    "second_last_layer": Size(TEXT, VISION | {"num_hidden_layers": 4}, {100: 8}, 140, 48, feature_layer=-2),
    "released_canvas": Size(TEXT, VISION | {"image_size": 980}, {1225: 128, 4900: 256}, canvas=490, shortest=336),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(SIZES.values()), ids=list(SIZES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair[Size, AriaModel]:
    return pair_of(write_reference, request.param, tmp_path_factory.mktemp("aria"))


def rows_of(size: Size) -> list[Row]:
    """Return rows with none, one and several images of unlike shapes, and of unlike lengths."""
    image = size.image_token
    return [
        Row([40, 41, 42, 43, 44]),
        Row([50, image, 51, 52], [picture(100, 70)]),
        Row([60, image, 61, image, image, 62], [picture(30, 90, 1), picture(64, 64, 2), picture(200, 11, 3)]),
        Row([70]),
        Row([*range(20, 34), image], [picture(150, 149, 4)]),
    ]


def generated(model: AriaModel, inputs: list[ModelInput], slots: int, num_tokens: int) -> list[list[int]]:
    sequences = [Sequence("", model_input, Sampling(max_new_tokens=num_tokens)) for model_input in inputs]
    longest = max(len(model_input.token_ids) for model_input in inputs) + num_tokens
    run_all(Engine(model, slots=slots, max_length=longest), sequences)
    return [sequence.token_ids for sequence in sequences]


@torch.inference_mode()
def logits_of(model: AriaModel, model_input: ModelInput) -> torch.Tensor:
    [prompt] = model.prompt([model_input])
    return model.logits(model.decode(prompt.embeddings[None]))


def test_scores_equal_the_references(pair: Pair[Size, AriaModel]) -> None:
    for row in rows_of(pair.size):
        inputs = batch([row], pair.size)
        with torch.inference_mode():
            expected = pair.reference(**inputs).logits
        torch.testing.assert_close(
            logits_of(pair.ours, row.ours(pair.folder, pair.size)), expected, atol=1e-4, rtol=1e-4
        )


def test_greedy_answers_equal_those_of_the_references_left_padded_batch(pair: Pair[Size, AriaModel]) -> None:
    rows, num_tokens = rows_of(pair.size), 12
    inputs = batch(rows, pair.size)
    expected = greedy(pair.reference, inputs, num_tokens)
    assert generated(pair.ours, [row.ours(pair.folder, pair.size) for row in rows], 3, num_tokens) == expected


def test_half_precision_stays_near_single_precision(pair: Pair[Size, AriaModel]) -> None:
    half = load_model(str(pair.folder), device="cpu", dtype="bfloat16")
    rows = [row.ours(pair.folder, pair.size) for row in rows_of(pair.size)]
    whole = torch.cat([logits_of(pair.ours, row).flatten() for row in rows])
    rough = torch.cat([logits_of(half, row).flatten() for row in rows])
    # The mean, not the maximum: a routed expert that flips moves single scores far, in the reference too.
    assert (rough - whole).abs().mean() < 0.1 * whole.square().mean().sqrt()


def test_a_decoder_alone_answers_as_the_references(tmp_path: Path) -> None:
    reference = write_text_reference(tmp_path, **TEXT, num_key_value_heads=2)
    ids = [5, 6, 9, 9, 7, 8]  # 9 is an image in a whole Aria and a word here
    [expected] = greedy(reference, {"input_ids": torch.tensor([ids])}, 10)
    model = load_model(str(tmp_path), device="cpu")
    model_input = ModelInput("", np.array(ids, np.int32))
    with torch.inference_mode():
        scores = reference(torch.tensor([ids])).logits
    torch.testing.assert_close(logits_of(model, model_input), scores, atol=1e-4, rtol=1e-4)
    assert generated(model, [model_input], 1, 10) == [expected]


def written(folder: Path, name: str, **save: Any) -> tuple[Any, ModelInput, torch.Tensor]:
    """Write a checkpoint; return the reference's model of it, and a row with our scores of it."""
    size = SIZES[name]
    reference = write_reference(folder, size, **save)
    row = rows_of(size)[1].ours(folder, size)
    return reference, row, logits_of(load_model(str(folder), device="cpu"), row)


def assert_same_model(folder: Path, row: ModelInput, expected: torch.Tensor) -> None:
    torch.testing.assert_close(logits_of(load_model(str(folder), device="cpu"), row), expected, atol=0, rtol=0)


def test_older_and_newer_configurations_are_the_same_model(tmp_path: Path) -> None:
    _, row, newer = written(tmp_path, "grouped_heads")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    text = config["text_config"]
    assert text.pop("rope_parameters")["rope_theta"] == 5e6
    text |= {"rope_theta": 5e6, "rope_scaling": None, "num_beams": 1, "top_k": 50}
    config["torch_dtype"] = config.pop("dtype")
    config["vision_config"]["attention_heads"] = config["vision_config"].pop("num_attention_heads")
    path.write_text(json.dumps(config))
    assert_same_model(tmp_path, row, newer)


def test_names_as_they_are_in_memory_and_sharded_files_are_the_same_model(tmp_path: Path) -> None:
    reference, row, sharded = written(tmp_path, "many_queries", max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for path in tmp_path.glob("*.safetensors*"):
        path.unlink()
    names = {name: tensor.clone().contiguous() for name, tensor in reference.state_dict().items()}
    assert "model.language_model.layers.0.mlp.experts.gate_up_proj" in names
    save_file(names, tmp_path / "model.safetensors")
    assert_same_model(tmp_path, row, sharded)


def test_remote_code_names_are_the_same_model(tmp_path: Path) -> None:
    _, row, expected = written(tmp_path, "half_canvas")
    older = (
        (r"^vision_tower\.", "vision_tower.vision_model."),
        (r"cross_attn\.layer_norm_kv", "cross_attn.ln_kv"),
        (r"^multi_modal_projector\.layer_norm", "multi_modal_projector.ln_ffn"),
        (r"feed_forward\.", "ffn."),
    )
    tensors = load_file(tmp_path / "model.safetensors")
    for pattern, name_before in older:
        tensors = {re.sub(pattern, name_before, name): tensor for name, tensor in tensors.items()}
    tensors["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same_model(tmp_path, row, expected)


def test_post_layernorm_is_never_applied_whatever_it_holds(tmp_path: Path) -> None:
    _, row, expected = written(tmp_path, "many_queries")
    tensors = load_file(tmp_path / "model.safetensors")
    for leaf in ("weight", "bias"):
        tensors[f"vision_tower.post_layernorm.{leaf}"].zero_()
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same_model(tmp_path, row, expected)
