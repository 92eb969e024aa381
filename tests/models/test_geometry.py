"""The full-size model has the released names, shapes and number of parameters; sisters and long prompts fit too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models import load_model
from models.aria.config import read_config
from models.aria.model import AriaModel
from models.aria.moe import GroupedWeight
from models.engine import Engine, Sequence, run_all
from models.layers import Rotation, rotary_frequencies
from models.types import CheckpointError, ModelInput, Sampling
from tests.tiny import empty, tiny_aria

# rhymes-ai/Aria as its file has it: what is left out there is left out here.
RELEASED: dict[str, Any] = {
    "model_type": "aria",
    "image_token_index": 9,
    "projector_patch_to_query_dict": {"1225": 128, "4900": 256},
    "text_config": {
        "model_type": "aria_text", "vocab_size": 100352, "hidden_size": 2560, "num_hidden_layers": 28,
        "num_attention_heads": 20, "num_key_value_heads": 20, "head_dim": 128, "intermediate_size": 1664,
        "moe_num_experts": 64, "moe_topk": 6, "rope_theta": 5000000, "max_position_embeddings": 65536,
    },
    "vision_config": {
        "model_type": "idefics3_vision", "intermediate_size": 4304, "num_hidden_layers": 27, "image_size": 980,
        "patch_size": 14,
    },
    "vision_feature_layer": -1,
}  # fmt: skip


def write(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"max_image_size": 980, "min_image_size": 336}))
    return folder


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of every tensor of the released files, written out from their listing."""
    D, E = 2560, 1152
    shapes: dict[str, tuple[int, ...]] = {
        "language_model.model.embed_tokens.weight": (100352, D),
        "language_model.lm_head.weight": (100352, D),
        "language_model.model.norm.weight": (D,),
        "vision_tower.embeddings.patch_embedding.weight": (E, 3, 14, 14),
        "vision_tower.embeddings.patch_embedding.bias": (E,),
        "vision_tower.embeddings.position_embedding.weight": (4900, E),
        "multi_modal_projector.query": (256, E),
        "multi_modal_projector.cross_attn.multihead_attn.in_proj_weight": (3456, E),
        "multi_modal_projector.cross_attn.multihead_attn.in_proj_bias": (3456,),
        "multi_modal_projector.cross_attn.multihead_attn.out_proj.weight": (E, E),
        "multi_modal_projector.cross_attn.multihead_attn.out_proj.bias": (E,),
        "multi_modal_projector.cross_attn.linear.weight": (E, E),
        "multi_modal_projector.cross_attn.linear.bias": (E,),
        "multi_modal_projector.feed_forward.linear_in.weight": (D, E),
        "multi_modal_projector.feed_forward.linear_out.weight": (D, D),
    }
    shapes |= {f"multi_modal_projector.cross_attn.{p}_proj.weight": (E, E) for p in "qkv"}
    norms = ("layer_norm", "cross_attn.layer_norm", "cross_attn.layer_norm_kv")
    shapes |= {f"multi_modal_projector.{norm}.{leaf}": (E,) for norm in norms for leaf in ("weight", "bias")}
    for layer in range(28):
        at = f"language_model.model.layers.{layer}"
        shapes |= {f"{at}.{norm}.weight": (D,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (D, D) for p in "qkvo"}
        shapes |= {f"{at}.mlp.shared_experts.{p}_proj.weight": (3328, D) for p in ("gate", "up")}
        shapes[f"{at}.mlp.shared_experts.down_proj.weight"] = (D, 3328)
        shapes[f"{at}.mlp.router.weight"] = (64, D)
        shapes[f"{at}.mlp.experts.fc1.weight"] = (64, D, 3328)
        shapes[f"{at}.mlp.experts.fc2.weight"] = (64, 1664, D)
    for layer in range(27):
        at = f"vision_tower.encoder.layers.{layer}"
        for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{at}.self_attn.{p}.weight": (E, E), f"{at}.self_attn.{p}.bias": (E,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{at}.{norm}.weight": (E,), f"{at}.{norm}.bias": (E,)}
        shapes |= {f"{at}.mlp.fc1.weight": (4304, E), f"{at}.mlp.fc1.bias": (4304,)}
        shapes |= {f"{at}.mlp.fc2.weight": (E, 4304), f"{at}.mlp.fc2.bias": (E,)}
    return shapes


def test_the_full_size_model_has_the_released_names_and_shapes(tmp_path: Path) -> None:
    model = empty(AriaModel, write(tmp_path, RELEASED))
    ours = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert ours == released_shapes()
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 2) == 25.31
    assert (model.max_position_embeddings, model.config.text.rms_norm_eps) == (65536, 1e-6)
    assert model.config.patch_to_query == {1225: 128, 4900: 256}
    shape = model.cache_shape
    assert 2 * len(shape.devices) * shape.num_heads * shape.head_dim * 2 == 280 * 1024  # bytes a token in bfloat16


def test_the_released_files_zeros_are_known_and_unused(tmp_path: Path) -> None:
    place = empty(AriaModel, write(tmp_path, RELEASED)).parameter_slice
    assert place("vision_tower.post_layernorm.weight") is None
    assert place("model.vision_tower.post_layernorm.bias") is None


SISTERS = {
    "Aria-Base-8K": {"rope_theta": 100000, "max_position_embeddings": 8192},
    "Aria-Base-64K": {"rope_theta": 5000000, "max_position_embeddings": 65536},
    "Aria-Chat": {"rope_theta": 5000000, "max_position_embeddings": 8192},
}


@pytest.mark.parametrize("sister", SISTERS)
def test_remote_code_sisters_are_read(tmp_path: Path, sister: str) -> None:
    text = RELEASED["text_config"] | SISTERS[sister]
    del text["head_dim"]
    # 13568 is a dense width that these files carry and nothing uses.
    text |= {"model_type": "aria_moe_lm", "intermediate_size": 13568, "moe_intermediate_size": 1664}
    vision = RELEASED["vision_config"] | {"model_type": "aria_vision_model", "attention_heads": 16}
    config = read_config(write(tmp_path, RELEASED | {"text_config": text, "vision_config": vision}))
    assert config.text.intermediate_size == 1664
    assert config.text.rope_theta == SISTERS[sister]["rope_theta"]
    assert config.text.max_position_embeddings == SISTERS[sister]["max_position_embeddings"]
    assert config.text.head_dim == 128
    assert config.vision is not None and config.vision.num_attention_heads == 16
    shapes = {name: tuple(p.shape) for name, p in empty(AriaModel, tmp_path).named_parameters()}
    assert shapes == released_shapes()


@pytest.mark.parametrize(("section", "change", "named"), [
    ("text_config", {"hidden_act": "gelu"}, "silu"),
    ("text_config", {"attention_bias": True}, "attention_bias is True, expected"),
    ("text_config", {"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_type is 'yarn', expected"),
    ("vision_config", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
])  # fmt: skip
def test_a_configuration_that_aria_does_not_have_is_refused(
    tmp_path: Path, section: str, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointError, match=named):
        read_config(write(tmp_path, RELEASED | {section: RELEASED[section] | change}))


@pytest.mark.parametrize(("generation", "config", "ends"), [
    ({"eos_token_id": [5, 6]}, {"eos_token_id": 7}, {5, 6}), ({}, {"eos_token_id": 7}, {7}), ({}, {}, {2}),
    ({"eos_token_id": None}, {"eos_token_id": [7]}, {7}),
])  # fmt: skip
def test_ends_come_from_the_generation_config_first(
    tmp_path: Path, generation: dict[str, Any], config: dict[str, Any], ends: set[int]
) -> None:
    write(tmp_path, RELEASED | config)
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert read_config(tmp_path).eos_token_ids == ends


@pytest.mark.parametrize(("theta", "head_dim"), [(5_000_000.0, 128), (10_000.0, 64), (100_000.0, 10)])
def test_far_positions_turn_exactly_as_in_the_reference(theta: float, head_dim: int) -> None:
    from transformers import AriaTextConfig
    from transformers.models.aria.modeling_aria import AriaTextRotaryEmbedding

    config = AriaTextConfig(hidden_size=head_dim, num_attention_heads=1, rope_parameters={
        "rope_type": "default", "rope_theta": theta})  # fmt: skip
    positions = torch.tensor([[0, 1, 4095, 4096, 65_535]])
    cos, sin = AriaTextRotaryEmbedding(config)(torch.zeros(1, 1), positions)
    x = torch.randn(1, 1, 5, head_dim)
    left, right = x.chunk(2, dim=-1)
    expected = x * cos[:, None] + torch.cat((-right, left), dim=-1) * sin[:, None]
    assert torch.equal(Rotation(positions[..., None], rotary_frequencies(head_dim, theta), torch.float32)(x), expected)


@torch.inference_mode()
def test_grouped_products_equal_a_loop_over_experts() -> None:
    torch.manual_seed(0)
    weight = GroupedWeight(6, 32, 48)
    torch.nn.init.normal_(weight.weight)
    counts = [3, 0, 7, 1, 0, 21]
    ends = torch.tensor(counts).cumsum(0).to(torch.int32)
    x = torch.randn(32, 32)
    loop = torch.cat([part @ weight.weight[expert] for expert, part in enumerate(torch.split(x, counts))])
    torch.testing.assert_close(weight(x, ends.tolist()), loop, atol=1e-5, rtol=1e-5)
    grouped = F.grouped_mm(x.bfloat16(), weight.weight.bfloat16(), offs=ends)
    # Eight bits of mantissa over sums of 32 products of size 1.
    torch.testing.assert_close(grouped.float(), loop, atol=0.15, rtol=0.02)


def long_model(folder: Path, positions: int) -> AriaModel:
    text = {
        "max_position_embeddings": positions, "num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 16,
        "num_key_value_heads": 1, "head_dim": 16, "rope_theta": 5e6,
    }  # fmt: skip
    return load_model(str(tiny_aria(folder, text=text)), device="cpu")


@torch.inference_mode()
def assert_chunks_change_nothing(model: AriaModel, length: int) -> None:
    """Answer a prompt of `length` tokens through the engine, and without cache in one piece."""
    ids = np.random.default_rng(0).integers(20, 200, length).astype(np.int32)
    one = Sequence("", ModelInput("", ids), Sampling(max_new_tokens=3))
    run_all(Engine(model, slots=1, max_length=length + 3), [one])
    whole = torch.from_numpy(np.concatenate([ids, one.token_ids[:-1]])).long()
    logprobs, best = model.logits(model.decode(model.embed(whole[None]))[0, -3:]).log_softmax(-1).max(-1)
    assert one.token_ids == best.tolist()
    assert one.logprobs == pytest.approx(logprobs.tolist(), abs=1e-4)


def test_a_prompt_longer_than_a_chunk_is_answered_as_in_one_piece(tmp_path: Path) -> None:
    assert_chunks_change_nothing(long_model(tmp_path, 65_536), 9_000)


@pytest.mark.bench
def test_a_prompt_that_fills_all_65_536_positions_is_answered_as_in_one_piece(tmp_path: Path) -> None:
    assert_chunks_change_nothing(long_model(tmp_path, 65_536), 65_536 - 16)
