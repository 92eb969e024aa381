"""Tiny checkpoints with random weights, written in every layout that the released files come in.

They share the tokenizer, the chat template and the file layout with the toy checkpoints of the demo; only sizes and
weights differ. Parity with the reference implementations is shown elsewhere (tests/models/test_aria_parity.py), on
folders that the references write themselves.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models import Family
from models.aria.model import AriaModel
from models.emu3.model import Emu3Model
from models.mllama.config import aspect_ratios
from models.mllama.model import MllamaModel
from training.aria import files as aria
from training.emu3 import files as emu3
from training.mllama import files as mllama

Model = TypeVar("Model", AriaModel, MllamaModel, Emu3Model)

TEXTS = (
    "Describe this image in two sentences.", "What shape is in the picture? Is it a circle, a triangle or a square?",
    "What color is it: red, green, blue, black, yellow, teal, brown or gray?", "yes no",
)  # fmt: skip
# Two canvases, 56 and 28 pixels wide, become 3 and 2 rows.
ARIA_IMAGES = {"image_processor_type": "AriaImageProcessor", "max_image_size": 56, "min_image_size": 14}
ARIA_VISION = {
    "model_type": "idefics3_vision", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
}  # fmt: skip
ARIA_TEXT = {
    "model_type": "aria_text", "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "moe_num_experts": 4, "moe_topk": 2,
    "moe_num_shared_experts": 2, "max_position_embeddings": 1024, "rope_theta": 10000.0,
}  # fmt: skip
ARIA = {
    "architectures": ["AriaForConditionalGeneration"], "model_type": "aria", "torch_dtype": "float32",
    "image_token_index": aria.SPECIAL.index("<|img|>"), "projector_patch_to_query_dict": {"4": 2, "16": 3},
}  # fmt: skip
# A tile has 4 patches; a picture becomes up to 4 tiles. The released means and deviations.
MLLAMA_IMAGES = {
    "image_processor_type": "MllamaImageProcessor", "max_image_tiles": 4, "size": {"height": 28, "width": 28},
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
MLLAMA_VISION = {
    "model_type": "mllama_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_global_layers": 1, "attention_heads": 2, "image_size": 28, "patch_size": 14, "max_num_tiles": 4,
    "intermediate_layers_indices": [1, 2], "norm_eps": 1e-5,
}  # fmt: skip
MLLAMA_TEXT = {
    "model_type": "mllama_text_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "cross_attention_layers": [1, 3], "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip
MLLAMA = {"architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama", "torch_dtype": "float32"}
# A picture becomes 4 to 16 codes of 4 x 4 pixels.
EMU3_CODES = 32
EMU3_IMAGES = {
    "image_processor_type": "Emu3ImageProcessor", "min_pixels": 8 * 8, "max_pixels": 16 * 16, "spatial_factor": 4,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
EMU3_VQ = {
    "model_type": "emu3_vqgan", "codebook_size": EMU3_CODES, "embed_dim": 4, "latent_channels": 4,
    "double_latent": False, "temporal_downsample_factor": 4, "base_channels": 32, "channel_multiplier": [1, 1, 2],
    "num_res_blocks": 1, "attn_resolutions": [2], "hidden_size": 64,
}  # fmt: skip
EMU3_TEXT = {
    "model_type": "emu3_text_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "rope_scaling": {"rope_type": "default"},
}  # fmt: skip
EMU3 = {"architectures": ["Emu3ForConditionalGeneration"], "model_type": "emu3", "torch_dtype": "float32"}


class Changes(TypedDict, total=False):
    """What may differ in the checkpoint of any family.

    Attributes:
        text: Changes to the decoder's configuration.
        config: Changes to config.json as a whole.
        images: Changes to preprocessor_config.json.
        names: Tensor names of the released files, or those that newer writers have in memory.
        shards: Files that the weights are spread over; above 1 they have an index.
        seed: Of the weights.
    """

    text: Mapping[str, Any]
    config: Mapping[str, Any]
    images: Mapping[str, Any]
    names: Literal["files", "memory"]
    shards: int
    seed: int


def tiny_aria(
    folder: Path,
    *,
    vision: Mapping[str, Any] | None = None,
    sequential_experts: bool = False,
    **changes: Unpack[Changes],
) -> Path:
    """Write a checkpoint and return its folder.

    Args:
        folder: Made if need be.
        vision: Changes to the vision tower's configuration.
        sequential_experts: One matrix (out, in) per expert and projection, as Aria-sequential_mlp stores them.
        changes: See `Changes`.
    """
    aria.write_files(folder, TEXTS)
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    whole = ARIA | {"vision_config": ARIA_VISION | dict(vision or {})}
    _write_settings(folder, whole, ARIA_TEXT | {"vocab_size": vocabulary}, ARIA_IMAGES, changes)
    tensors = random_tensors(folder, changes.get("seed", 0))
    return _write_weights(folder, _one_by_one(tensors) if sequential_experts else tensors, changes)


def tiny_mllama(folder: Path, *, vision: Mapping[str, Any] | None = None, **changes: Unpack[Changes]) -> Path:
    """Write a checkpoint and return its folder; see `tiny_aria` for the arguments."""
    mllama.write_files(folder, TEXTS)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    whole = MLLAMA | {"image_token_index": written["image_token_index"], "vision_config": _vision(vision or {})}
    _write_settings(folder, whole, MLLAMA_TEXT | _ids(written), MLLAMA_IMAGES, changes)
    return _write_weights(folder, random_mllama(folder, changes.get("seed", 0)), changes)


def tiny_emu3(folder: Path, *, vq: Mapping[str, Any] | None = None, **changes: Unpack[Changes]) -> Path:
    """Write a checkpoint and return its folder; see `tiny_aria` for the arguments, `vq` changes the VQ-VAE's."""
    codec = EMU3_VQ | dict(vq or {})
    emu3.write_files(folder, TEXTS, codec["codebook_size"])
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    whole = EMU3 | {"vocabulary_map": written["vocabulary_map"], "vq_config": codec}
    _write_settings(folder, whole, EMU3_TEXT | _ids(written), EMU3_IMAGES, changes)
    return _write_weights(folder, random_emu3(folder, changes.get("seed", 0)), changes)


def _ids(config: Mapping[str, Any]) -> dict[str, int]:
    """Return what follows from the tokenizer in a decoder's configuration."""
    return {
        name: config["text_config"][name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    }


def _write_settings(
    folder: Path, config: Mapping[str, Any], text: Mapping[str, Any], images: Mapping[str, Any], changes: Changes
) -> None:
    whole = {**config, "text_config": {**text, **changes.get("text", {})}, **changes.get("config", {})}
    (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    images = {**images, **changes.get("images", {})}
    (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")


def _write_weights(folder: Path, tensors: Mapping[str, Tensor], changes: Changes) -> Path:
    if changes.get("names") == "memory":
        tensors = {_name_in_memory(name): tensor for name, tensor in tensors.items()}
    save_tensors(folder, tensors, changes.get("shards", 1))
    return folder


def keep_decoder_alone(folder: Path) -> Path:
    """Turn a checkpoint's config.json into that of its decoder, which has no vision encoder and no VQ-VAE."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))["text_config"]), encoding="utf-8")
    return folder


# What the tests of every family's promises go through, each by its name.
FAMILIES: dict[Family, Callable[..., Path]] = {"aria": tiny_aria, "mllama": tiny_mllama, "emu3": tiny_emu3}


def set_template(folder: Path, source: str | None) -> None:
    """Give a checkpoint another chat template, or none."""
    for name in ("chat_template.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    if source is not None:
        (folder / "chat_template.jinja").write_text(source, encoding="utf-8")


def empty(kind: type[Model], folder: Path, *, text_only: bool = False) -> Model:
    """Build the model of a folder on the `meta` device."""
    with torch.device("meta"):
        return kind(folder, text_only=text_only)


def random_emu3(folder: Path, seed: int = 0) -> dict[str, Tensor]:
    """Return weights for an Emu3 folder's configuration, norms' statistics too, with the released file's counters."""
    tensors = _random_tensors(empty(Emu3Model, folder), seed)
    norms = [name.removesuffix("running_mean") for name in tensors if name.endswith(".running_mean")]
    return tensors | {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}


def random_mllama(folder: Path, seed: int = 0) -> dict[str, Tensor]:
    """Return weights for a Mllama folder's configuration; no gate is closed."""
    return _random_tensors(empty(MllamaModel, folder), seed)


def _random_tensors(model: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: _random(parameter, generator) for name, parameter in model.named_parameters()}


def _vision(changes: Mapping[str, Any]) -> dict[str, Any]:
    whole = MLLAMA_VISION | dict(changes)
    width = whole["hidden_size"] * (1 + len(whole["intermediate_layers_indices"]))
    grids = [list(grid) for grid in aspect_ratios(whole["max_num_tiles"])]
    return {"vision_output_dim": width, "supported_aspect_ratios": grids} | whole


def random_tensors(folder: Path, seed: int = 0) -> dict[str, Tensor]:
    """Return weights for an Aria folder, norms and biases random too, with the released file's zeros."""
    model = empty(AriaModel, folder)
    tensors = _random_tensors(model, seed)
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
    # Wide enough that answers differ from row to row, as a trained model's do; in bfloat16's numbers, as released ones.
    wide = torch.randn(parameter.shape, generator=generator).mul(2 * parameter.shape[-1] ** -0.5)
    return wide.bfloat16().float()


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
    name = name.replace("text_model.lm_head.", "lm_head.").replace("text_model.model.", "model.text_model.")
    return f"model.{name}" if name.startswith(("vision_", "multi_modal_projector", "vqmodel.")) else name
