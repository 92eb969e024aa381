"""The full-size models have the released names, shapes, numbers of parameters and costs in memory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.devices import place_layers
from models.mllama.config import read_config
from models.mllama.model import MllamaModel, scaled_frequencies
from tests.tiny import empty

# What differs between the two; all else their files share.
RELEASED: dict[str, dict[str, Any]] = {
    "11B": {"hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32, "intermediate_size": 14336},
    "90B": {"hidden_size": 8192, "num_hidden_layers": 100, "num_attention_heads": 64, "intermediate_size": 28672},
}
BASE, INSTRUCT = 448, 560
LLAMA3 = {
    "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
GRIDS = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]


def write(folder: Path, name: str, image_size: int) -> Path:
    """Write a released checkpoint's files but for the weights."""
    text = RELEASED[name] | {
        "model_type": "mllama_text_model", "vocab_size": 128256, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "cross_attention_layers": list(range(3, RELEASED[name]["num_hidden_layers"], 5)), "rope_theta": 500000.0,
        "rope_scaling": LLAMA3, "max_position_embeddings": 131072, "hidden_act": "silu", "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {
        "model_type": "mllama_vision_model", "hidden_size": 1280, "attention_heads": 16, "num_hidden_layers": 32,
        "num_global_layers": 8, "intermediate_size": 5120, "image_size": image_size, "patch_size": 14, "norm_eps": 1e-5,
        "max_num_tiles": 4, "vision_output_dim": 7680, "intermediate_layers_indices": [3, 7, 15, 23, 30],
        "hidden_act": "gelu", "supported_aspect_ratios": GRIDS, "max_aspect_ratio_id": 8, "num_channels": 3,
    }  # fmt: skip
    config = {"model_type": "mllama", "image_token_index": 128256, "torch_dtype": "bfloat16"}
    config |= {"text_config": text, "vision_config": vision}
    images = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "max_image_tiles": 4}
    images |= {"size": {"height": image_size, "width": image_size}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [128001, 128008, 128009]}))
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return folder


def released_shapes(name: str, image_size: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of every tensor of the released files, written out from their listing."""
    D, num_layers, inner = (RELEASED[name][n] for n in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    shapes: dict[str, tuple[int, ...]] = {
        "language_model.model.embed_tokens.weight": (128264, D),
        "language_model.lm_head.weight": (128256, D),
        "language_model.model.norm.weight": (D,),
        "multi_modal_projector.weight": (D, 7680),
        "multi_modal_projector.bias": (D,),
    }
    for layer in range(num_layers):
        at = f"language_model.model.layers.{layer}"
        is_cross = layer % 5 == 3
        attention = f"{at}.{'cross_attn' if is_cross else 'self_attn'}"
        shapes |= {f"{attention}.{p}_proj.weight": (D, D) for p in "qo"}
        shapes |= {f"{attention}.{p}_proj.weight": (1024, D) for p in "kv"}
        shapes |= {f"{at}.{norm}.weight": (D,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}.mlp.{p}_proj.weight": (inner, D) for p in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (D, inner)
        if is_cross:
            shapes |= {f"{attention}.{norm}.weight": (128,) for norm in ("q_norm", "k_norm")}
            shapes |= {f"{at}.cross_attn_{half}_gate": (1,) for half in ("attn", "mlp")}
    return shapes | eye_shapes((image_size // 14) ** 2 + 1)


def eye_shapes(num_tokens: int) -> dict[str, tuple[int, ...]]:
    """Return those of the vision encoder, which 11B and 90B share."""
    E, at = 1280, "vision_model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}.patch_embedding.weight": (E, 3, 14, 14),
        f"{at}.class_embedding": (E,),
        f"{at}.gated_positional_embedding.embedding": (num_tokens, E),
        f"{at}.gated_positional_embedding.gate": (1,),
        f"{at}.gated_positional_embedding.tile_embedding.weight": (9, 4 * num_tokens * E),
    }
    for when in ("pre", "post"):
        shapes[f"{at}.{when}_tile_positional_embedding.embedding.weight"] = (9, 5120)
        shapes[f"{at}.{when}_tile_positional_embedding.gate"] = (1,)
        shapes |= {f"{at}.layernorm_{when}.{leaf}": (E,) for leaf in ("weight", "bias")}
    for stage, num_layers in (("transformer", 32), ("global_transformer", 8)):
        for layer in range(num_layers):
            here = f"{at}.{stage}.layers.{layer}"
            shapes |= {f"{here}.self_attn.{p}_proj.weight": (E, E) for p in "qkvo"}
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes |= {f"{here}.{norm}.{leaf}": (E,) for leaf in ("weight", "bias")}
            shapes |= {f"{here}.mlp.fc1.weight": (5120, E), f"{here}.mlp.fc1.bias": (5120,)}
            shapes |= {f"{here}.mlp.fc2.weight": (E, 5120), f"{here}.mlp.fc2.bias": (E,)}
            if stage == "global_transformer":
                shapes |= {f"{here}.gate_{half}": (1,) for half in ("attn", "ffn")}
    return shapes


def billions(model: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e9


@pytest.mark.parametrize(
    ("name", "image_size", "size"),
    [("11B", INSTRUCT, 10.67), ("11B", BASE, 10.64), ("90B", INSTRUCT, 88.59)],
)
def test_the_full_size_model_has_the_released_names_and_shapes(
    tmp_path: Path, name: str, image_size: int, size: float
) -> None:
    model = empty(MllamaModel, write(tmp_path, name, image_size))
    ours = {parameter: tuple(tensor.shape) for parameter, tensor in model.named_parameters()}
    assert ours == released_shapes(name, image_size)
    assert round(billions(model), 2) == size
    assert model.max_position_embeddings == 131072
    assert model.config.eos_token_ids == {128001, 128008, 128009}


def test_the_parts_have_the_sizes_that_are_told_of_them(tmp_path: Path) -> None:
    model = empty(MllamaModel, write(tmp_path, "11B", INSTRUCT))
    assert round(billions(model.vision_model), 2) == 0.86
    assert round(model.vision_model.gated_positional_embedding.tile_embedding.weight.numel() / 1e6) == 74


def cache_bytes(model: MllamaModel) -> int:
    """Return what a token leaves in the cache, in bfloat16."""
    shape = model.cache_shape
    return 2 * len(shape.devices) * shape.num_heads * shape.head_dim * 2


@pytest.mark.parametrize(
    ("name", "token", "tile"), [("11B", 128 * 2**10, 50 * 2**20), ("90B", 320 * 2**10, 125 * 2**20)]
)
def test_tokens_and_tiles_cost_what_is_told_of_them(tmp_path: Path, name: str, token: int, tile: int) -> None:
    model = empty(MllamaModel, write(tmp_path, name, INSTRUCT))
    assert cache_bytes(model) == token
    memory = model.remember(torch.empty(1601, RELEASED[name]["hidden_size"], device="meta"))
    assert memory.nbytes / 2 == pytest.approx(tile, rel=0.01)  # `meta` has float32 here
    assert {tuple(tensor.shape) for tensor in (*memory.keys, *memory.values)} == {(8, 1601, 128)}


@torch.inference_mode()
def test_a_picture_of_640_by_480_becomes_3202_rows(tmp_path: Path) -> None:
    model = empty(MllamaModel, write(tmp_path, "11B", INSTRUCT))
    pixels = torch.empty(1, 2, 3, 560, 560, device="meta")
    seen = model.vision_model(pixels, torch.tensor([2], device="meta"))
    assert seen.shape == (1, 4, 1601, 7680)
    assert model.multi_modal_projector(seen[:, :2].flatten(1, 2)).shape == (1, 3202, 4096)


def test_without_images_neither_vision_encoder_nor_cross_attention_is_there(tmp_path: Path) -> None:
    folder = write(tmp_path, "11B", INSTRUCT)
    model = empty(MllamaModel, folder, text_only=True)
    whole = released_shapes("11B", INSTRUCT)
    is_needed = {
        name for name in whole
        if name.startswith("language_model.") and not any(f".layers.{layer}." in name for layer in range(3, 40, 5))
    }  # fmt: skip
    assert {name for name, _ in model.named_parameters()} == is_needed
    assert round(billions(model), 2) == 8.03  # Llama 3.1 8B
    assert cache_bytes(model) == 128 * 2**10
    place = model.parameter_slice
    assert {name for name in whole if place(name) is None} == whole.keys() - is_needed


@pytest.mark.parametrize("num_devices", [2, 3, 4])
def test_the_large_one_is_spread_evenly_and_in_order(tmp_path: Path, num_devices: int) -> None:
    model = empty(MllamaModel, write(tmp_path, "90B", INSTRUCT))
    devices = [torch.device("cuda", index) for index in range(num_devices)]
    place = place_layers(model, devices)
    sizes = dict.fromkeys(devices, 0)
    for name, parameter in model.named_parameters():
        sizes[place(name)] += parameter.numel()
    even = sum(sizes.values()) / num_devices
    assert all(0.95 < size / even < 1.05 for size in sizes.values())
    homes = [place(f"language_model.model.layers.{layer}.mlp.up_proj.weight").index for layer in range(100)]
    assert homes == sorted(homes)
    assert place("vision_model.class_embedding") == place("language_model.model.embed_tokens.weight") == devices[0]
    assert place("language_model.lm_head.weight") == place("language_model.model.norm.weight") == devices[-1]


@pytest.mark.parametrize(("head_dim", "theta", "scaling"), [
    (128, 500_000.0, LLAMA3), (128, 500_000.0, None), (12, 10_000.0, LLAMA3),
    (64, 500_000.0, LLAMA3 | {"factor": 32.0}), (80, 1e6, LLAMA3 | {"low_freq_factor": 2.0, "high_freq_factor": 8.0}),
])  # fmt: skip
def test_frequencies_equal_the_references_to_the_last_bit(
    tmp_path: Path, head_dim: int, theta: float, scaling: dict[str, Any] | None
) -> None:
    from transformers import MllamaTextConfig
    from transformers.models.mllama.modeling_mllama import MllamaRotaryEmbedding

    folder = write(tmp_path, "11B", INSTRUCT)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"head_dim": head_dim, "rope_theta": theta, "rope_scaling": scaling}
    (folder / "config.json").write_text(json.dumps(config))
    parameters = (scaling or {"rope_type": "default"}) | {"rope_theta": theta}
    reference = MllamaRotaryEmbedding(
        MllamaTextConfig(hidden_size=head_dim, num_attention_heads=1, num_key_value_heads=1, rope_parameters=parameters)
    )
    assert torch.equal(scaled_frequencies(read_config(folder).text), reference.inv_freq)
