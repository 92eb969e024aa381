"""Write the files of a toy Aria checkpoint, in the original layout.

The layout is that of the released model: its key names, its config fields, its chat template, its way of naming
special tokens. Only the sizes are small. The weights are the business of training/aria/pupil.py.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from training.folder import train_tokenizer, write_json

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
    tokenizer = _tokenizer(texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_json(folder / "config.json", _config(tokenizer.get_vocab_size()))
    write_json(folder / "preprocessor_config.json", IMAGES)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    write_json(folder / "generation_config.json", {**ends, "do_sample": False})
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    kinds = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": TEXT["max_position_embeddings"]}
    write_json(folder / "tokenizer_config.json", {**kinds, **names, "image_token": "<|img|>"})


def _tokenizer(texts: Iterable[str]) -> Tokenizer:
    tokenizer = train_tokenizer(["user\n", "assistant\n", *texts], ByteLevel(add_prefix_space=False), SPECIAL)
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
