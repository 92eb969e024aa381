"""Tiny checkpoints with random weights, written in every layout that the released files come in.

They share the tokenizer, the chat template and the file layout with the toy checkpoint of the demo; only sizes and
weights differ. Parity with the reference implementation is shown elsewhere (tests/models/test_aria_parity.py), on
folders that the reference writes itself.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from jobs.demo.train_folder import SPECIAL, write_files
from models.aria.model import empty_aria

TEXTS = (
    "Describe this image in two sentences.", "What shape is in the picture? Is it a circle, a triangle or a square?",
    "What color is it: red, green, blue, black, yellow, teal, brown or gray?", "yes no",
)  # fmt: skip
# Two canvases, 56 and 28 pixels wide, become 3 and 2 rows.
IMAGES = {"image_processor_type": "AriaImageProcessor", "max_image_size": 56, "min_image_size": 14}
VISION = {
    "model_type": "idefics3_vision", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
}  # fmt: skip
TEXT = {
    "model_type": "aria_text", "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "moe_num_experts": 4, "moe_topk": 2,
    "moe_num_shared_experts": 2, "max_position_embeddings": 1024, "rope_theta": 10000.0,
}  # fmt: skip
CONFIG = {
    "architectures": ["AriaForConditionalGeneration"], "model_type": "aria", "torch_dtype": "float32",
    "image_token_index": SPECIAL.index("<|img|>"), "projector_patch_to_query_dict": {"4": 2, "16": 3},
}  # fmt: skip

Names = Literal["files", "memory"]


def tiny_aria(
    folder: Path,
    *,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
    names: Names = "files",
    sequential_experts: bool = False,
    shards: int = 1,
    seed: int = 0,
) -> Path:
    """Write a checkpoint and return its folder.

    Args:
        folder: Made if need be.
        text: Changes to the decoder's configuration.
        vision: Changes to the vision tower's configuration.
        config: Changes to the rest of config.json.
        images: Changes to preprocessor_config.json.
        names: Tensor names of the released files, or those that newer writers have in memory.
        sequential_experts: One matrix (out, in) per expert and projection, as Aria-sequential_mlp stores them.
        shards: Files that the weights are spread over; above 1 they have an index.
        seed: Of the weights.
    """
    write_files(folder, TEXTS)
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    whole = CONFIG | {"text_config": TEXT | {"vocab_size": vocabulary} | dict(text or {})}
    whole |= {"vision_config": VISION | dict(vision or {})} | dict(config or {})
    (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES | dict(images or {})), encoding="utf-8")
    tensors = random_tensors(folder, seed)
    if sequential_experts:
        tensors = _one_by_one(tensors)
    if names == "memory":
        tensors = {_name_in_memory(name): tensor for name, tensor in tensors.items()}
    save_tensors(folder, tensors, shards)
    return folder


def random_tensors(folder: Path, seed: int = 0) -> dict[str, Tensor]:
    """Return weights for a folder's configuration, norms and biases random too, with the released file's zeros."""
    generator = torch.Generator().manual_seed(seed)
    model = empty_aria(folder)
    tensors = {name: _random(parameter, generator) for name, parameter in model.named_parameters()}
    width = model.vision_tower.embeddings.patch_embedding.out_channels
    return tensors | {f"vision_tower.post_layernorm.{leaf}": torch.zeros(width) for leaf in ("weight", "bias")}


def save_tensors(folder: Path, tensors: Mapping[str, Tensor], shards: int = 1) -> None:
    """Write model.safetensors, or several files and their index."""
    if shards == 1:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        some = {name: tensors[name].contiguous() for name in list(tensors)[shard::shards]}
        save_file(some, folder / file)
        weight_map |= dict.fromkeys(some, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def _random(parameter: Tensor, generator: torch.Generator) -> Tensor:
    if parameter.ndim == 1:
        return 0.5 + torch.rand(parameter.shape, generator=generator)
    # Wide enough that answers differ from row to row, as a trained model's do.
    return torch.randn(parameter.shape, generator=generator).mul(2 * parameter.shape[-1] ** -0.5)


def _one_by_one(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    written = {}
    for name, tensor in tensors.items():
        stem, _, leaf = name.partition(".experts.")
        if not leaf:
            written[name] = tensor
            continue
        halves = tensor.chunk(2, dim=-1) if leaf == "fc1.weight" else (tensor,)
        words = ("gate", "up") if leaf == "fc1.weight" else ("down",)
        for word, half in zip(words, halves, strict=True):
            for expert, matrix in enumerate(half):
                written[f"{stem}.experts.experts.{expert}.{word}_proj.weight"] = matrix.t()
    return written


def _name_in_memory(name: str) -> str:
    name = name.replace("language_model.lm_head.", "lm_head.").replace("language_model.model.", "model.language_model.")
    name = name.replace("experts.fc1.weight", "experts.gate_up_proj").replace("experts.fc2.weight", "experts.down_proj")
    return f"model.{name}" if name.startswith(("vision_tower", "multi_modal_projector")) else name
