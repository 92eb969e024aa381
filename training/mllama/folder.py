"""Write the files of a toy Mllama checkpoint, in the original layout.

The layout is that of the released model: its key names, its config fields, its special tokens, what its chat template
does. Only the sizes are small. The weights are the business of training/mllama/pupil.py.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import pre_tokenizers as cut
from tokenizers.processors import TemplateProcessing

from models.mllama.config import aspect_ratios
from training.folder import train_tokenizer, write_json

TILE = 32
PATCH = 8
BEGIN, END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"
PAD, IMAGE_TOKEN = "<|finetune_right_pad_id|>", "<|image|>"
# They follow the learnt tokens. The last one's id is the vocabulary's size: the head has no row for it.
SPECIAL = (
    BEGIN, END_OF_TEXT, PAD, "<|start_header_id|>", "<|end_header_id|>", END_OF_MESSAGE, END_OF_TURN, "<|python_tag|>",
    IMAGE_TOKEN,
)  # fmt: skip
# How Llama 3 cuts text before tokenising it.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SYSTEM = "Cutting Knowledge Date: December 2023\nToday Date: "
CHAT_TEMPLATE = (
    "{% if date_string is not defined %}{% if strftime_now is defined %}"
    '{% set date_string = strftime_now("%d %b %Y") %}{% else %}{% set date_string = "26 Jul 2024" %}'
    "{% endif %}{% endif %}"
    "{% set seen = namespace(image=false) %}"
    "{% for message in messages %}{% if message['content'] is not string %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{% set seen.image = true %}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if messages and messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% if seen.image and system %}{{ raise_exception('a system message cannot stand beside an image') }}{% endif %}"
    "{{ bos_token }}"
    "{% if not seen.image %}<|start_header_id|>system<|end_header_id|>\n\n"
    f"{SYSTEM}{{{{ date_string }}}}\n\n"
    "{{ system }}<|eot_id|>{% endif %}"
    "{% for message in turns %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<|image|>{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

MAX_TILES = 4
VISION: dict[str, Any] = {
    "model_type": "mllama_vision_model",
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_global_layers": 1,
    "attention_heads": 4,
    "intermediate_layers_indices": [1, 2],
    "vision_output_dim": 3 * 96,
    "image_size": TILE,
    "patch_size": PATCH,
    "max_num_tiles": MAX_TILES,
    "supported_aspect_ratios": [list(grid) for grid in aspect_ratios(MAX_TILES)],
    "num_channels": 3,
    "norm_eps": 1e-5,
    "hidden_act": "gelu",
}
TEXT: dict[str, Any] = {
    "model_type": "mllama_text_model",
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "cross_attention_layers": [1, 3],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
IMAGES: dict[str, Any] = {
    "image_processor_type": "MllamaImageProcessor",
    "max_image_tiles": MAX_TILES,
    "size": {"height": TILE, "width": TILE},
    "do_convert_rgb": True,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_pad": True,
    "resample": 2,
    "rescale_factor": 1 / 255,
    # Of the training pictures, which are mostly pale background. Released checkpoints have CLIP's.
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
    ids = {token: place for token, place in tokenizer.get_vocab().items() if token in SPECIAL}
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    write_json(folder / "config.json", _config(ids))
    write_json(folder / "preprocessor_config.json", IMAGES)
    ends = [ids[token] for token in (END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN)]
    ends_and_pad = {"bos_token_id": ids[BEGIN], "eos_token_id": ends, "pad_token_id": ids[PAD]}
    write_json(folder / "generation_config.json", {**ends_and_pad, "do_sample": False})
    names = {"bos_token": BEGIN, "eos_token": END_OF_TURN, "pad_token": PAD}
    kinds = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": TEXT["max_position_embeddings"]}
    write_json(folder / "tokenizer_config.json", {**kinds, **names})


def _tokenizer(texts: Iterable[str]) -> Tokenizer:
    pieces = [cut.Split(Regex(WORDS), "isolated"), cut.ByteLevel(add_prefix_space=False, use_regex=False)]
    headers = ["system", "user", "assistant", "\n\n", f"{SYSTEM}26 Jul 2024\n\n"]
    tokenizer = train_tokenizer([*headers, *texts], cut.Sequence(pieces))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    begin = (BEGIN, tokenizer.token_to_id(BEGIN))
    tokenizer.post_processor = TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    return tokenizer


def _config(ids: dict[str, int]) -> dict[str, Any]:
    known = {"bos_token_id": ids[BEGIN], "eos_token_id": ids[END_OF_TURN], "pad_token_id": ids[PAD]}
    return {
        "architectures": ["MllamaForConditionalGeneration"],
        "model_type": "mllama",
        "image_token_index": ids[IMAGE_TOKEN],
        "text_config": TEXT | known | {"vocab_size": ids[IMAGE_TOKEN]},
        "vision_config": VISION,
        "torch_dtype": "float16",
    }
