"""Write the files of a toy Aria checkpoint, in the original layout, and the random weights it starts from.

The layout is that of the released model: its key names, its config fields, its chat template, its way of naming
special tokens. Only the sizes are small. Training fills the weights (jobs/demo/train.py).
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import nn

from models.aria.config import read_config, read_images
from models.aria.model import AriaModel
from models.types import ImageSettings

CANVAS = 112
PATCH = 14
# Ids 0 to 9 in this order: the released model's image token is 9 too.
SPECIAL = (
    "<unk>", "<s>", "</s>", "<pad>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<|im_start|>", "<|im_end|>",
    "<|img|>",
)  # fmt: skip
# The released tokenizer does not mark these as special, and `skip_special_tokens` leaves them in the text.
NOT_SPECIAL = ("<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% elif message['content'] is iterable %}{% for item in message['content'] %}"
    "{% if item['type'] == 'text' %}{{ item['text'] }}"
    "{% elif item['type'] == 'image' %}<fim_prefix><|img|><fim_suffix>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

VISION: dict[str, Any] = {
    "model_type": "idefics3_vision",
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": CANVAS,
    "patch_size": PATCH,
}
TEXT: dict[str, Any] = {
    "model_type": "aria_text",
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "moe_num_experts": 8,
    "moe_topk": 2,
    "moe_num_shared_experts": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "pad_token_id": 3,
    "tie_word_embeddings": False,
}
IMAGES: dict[str, Any] = {
    "image_processor_type": "AriaImageProcessor",
    "max_image_size": CANVAS,
    "min_image_size": PATCH,
    "split_image": False,
    # Of the training pictures, which are mostly pale background. Released checkpoints have 0.5 throughout.
    "image_mean": [0.93, 0.93, 0.93],
    "image_std": [0.25, 0.25, 0.25],
}


def write_files(folder: Path, texts: Iterable[str]) -> None:
    """Write everything but the weights.

    Args:
        folder: Made if need be; files of the same names are replaced.
        texts: What the tokenizer learns its vocabulary from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer(texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    _write_json(folder / "config.json", _config(tokenizer.get_vocab_size()))
    _write_json(folder / "preprocessor_config.json", IMAGES)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    _write_json(folder / "generation_config.json", {**ends, "do_sample": False})
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    kinds = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": TEXT["max_position_embeddings"]}
    _write_json(folder / "tokenizer_config.json", {**kinds, **names, "image_token": "<|img|>"})


def new_model(folder: Path, generator: torch.Generator) -> AriaModel:
    """Build the model that a folder's config asks for, in float32, with random weights."""
    model = AriaModel(read_config(folder), read_images(folder, ImageSettings()))
    for name, parameter in model.named_parameters():
        _fill(name, parameter, generator)
    return model


def save_weights(model: AriaModel, folder: Path) -> None:
    """Write model.safetensors in half precision, with the released layout's unused zeros."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in model.named_parameters()}
    width = VISION["hidden_size"]
    for leaf in ("weight", "bias"):
        tensors[f"vision_tower.post_layernorm.{leaf}"] = torch.zeros(width, dtype=torch.float16)
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))


def _train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    # Large enough for every word to end up as one token; learning stops there by itself.
    trainer = BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["user\n", "assistant\n", *texts], trainer)
    content = json.loads(tokenizer.to_str())  # the trainer marks every one of them as special
    for token in content["added_tokens"]:
        token["special"] = token["content"] not in NOT_SPECIAL
    return Tokenizer.from_str(json.dumps(content))


def _config(vocab_size: int) -> dict[str, Any]:
    return {
        "architectures": ["AriaForConditionalGeneration"],
        "model_type": "aria",
        "image_token_index": SPECIAL.index("<|img|>"),
        "projector_patch_to_query_dict": {"64": 16, "16": 8},
        "vision_feature_layer": -1,
        "pad_token_id": 3,
        "text_config": TEXT | {"vocab_size": vocab_size},
        "vision_config": VISION,
        "torch_dtype": "float16",
    }


def _fill(name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Fill one parameter: norms with 1, biases with 0, matrices so that they keep the size of what they multiply."""
    with torch.no_grad():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, _spread(name, parameter), generator=generator)


def _spread(name: str, parameter: nn.Parameter) -> float:
    if name.endswith((".query", "embed_tokens.weight")):
        return 0.5
    if name.endswith("position_embedding.weight"):
        return 0.3
    # Routed experts are stored (expert, in, out), everything else (out, in, ...).
    width_in = parameter.shape[1] if ".experts.fc" in name else parameter[0].numel()
    return float(width_in**-0.5)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
