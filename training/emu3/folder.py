"""Write the files of a toy Emu3 checkpoint, in the layout of the released `-hf` folders.

The layout is that of the released model: its key names, its config fields, its special tokens, what its chat template
does. Only the sizes are small. Weights are not written here.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from models.emu3.vocabulary import (
    END_OF_FRAME,
    END_OF_LINE,
    IMAGE_END,
    IMAGE_START,
    IMAGE_TOKEN,
    PLACEHOLDER,
    visual_token,
)
from training.folder import train_tokenizer, write_json

PAD, BEGIN, END_OF_TEXT = "<|endoftext|>", "<|extra_203|>", "<|extra_204|>"
# They follow the learnt tokens, and the codes of pictures follow them.
SPECIAL = (
    PAD, PLACEHOLDER, END_OF_LINE, END_OF_FRAME, BEGIN, END_OF_TEXT, IMAGE_TOKEN, IMAGE_START, IMAGE_END,
)  # fmt: skip
NAMES = {"bos_token": BEGIN, "eos_token": END_OF_TEXT, "pad_token": PAD}
# By these the reference's processor knows the others.
IMAGE_NAMES = {
    "image_token": PLACEHOLDER,
    "boi_token": IMAGE_START,
    "image_wrapper_token": IMAGE_TOKEN,
    "eof_token": END_OF_FRAME,
    "eoi_token": IMAGE_END,
}
# It takes a message's content as a list of items; of a plain string it shows nothing.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for item in message['content'] if item['type'] == 'image' %}<image>{% endfor %}"
    "{% for item in message['content'] if item['type'] == 'text' %}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ item['text'] + ' ' }}{% endgeneration %}"
    "{% else %}{{ item['text'] + ' ' }}{% endif %}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

CODES = 321  # the bare ground and 40 patterns of cover in 8 colours, see training/emu3/book.py
VQ: dict[str, Any] = {
    "model_type": "emu3_vqgan",
    "embed_dim": 16,
    "latent_channels": 16,
    "double_latent": False,
    "in_channels": 3,
    "out_channels": 3,
    "temporal_downsample_factor": 4,
    "base_channels": 32,
    "channel_multiplier": [1, 1, 2, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [3],
    "hidden_size": 64,
    "num_attention_heads": 1,
    "attention_dropout": 0.0,
}
TEXT: dict[str, Any] = {
    "model_type": "emu3_text_model",
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000.0,
    "rope_scaling": {"rope_type": "default"},
    "attention_dropout": 0.1,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}
SIDE = 64
IMAGES: dict[str, Any] = {
    "image_processor_type": "Emu3ImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_pad": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "min_pixels": SIDE**2,
    "max_pixels": (2 * SIDE) ** 2,
    "spatial_factor": 8,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def write_files(folder: Path, texts: Iterable[str], codes: int = CODES) -> None:
    """Write everything but the weights.

    Args:
        folder: Made if need be; files of the same names are replaced.
        texts: What the tokenizer learns its vocabulary from.
        codes: Entries of the codebook; each is a token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(texts, codes)
    # By id: the tokenizer lists them in another order each time, and a checkpoint made again shall be the same.
    vocabulary = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    # The released file lists the special tokens among the learnt ones too.
    stored = json.loads(tokenizer.to_str())
    stored["model"]["vocab"] = dict(sorted(vocabulary.items(), key=lambda entry: entry[1]))
    write_json(folder / "tokenizer.json", stored)
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    write_json(folder / "config.json", _config(vocabulary, codes))
    write_json(folder / "preprocessor_config.json", IMAGES)
    # As the released folders have it, for chat as for drawing.
    ends = {"eos_token_id": vocabulary[END_OF_TEXT], "pad_token_id": vocabulary[PAD]}
    write_json(folder / "generation_config.json", {"do_sample": True, "top_k": 2048, "max_new_tokens": 50000, **ends})
    write_json(folder / "special_tokens_map.json", NAMES)
    kinds = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "clean_up_tokenization_spaces": False}
    longest = {"model_max_length": TEXT["max_position_embeddings"]}
    write_json(folder / "tokenizer_config.json", {**kinds, **NAMES, **IMAGE_NAMES, **longest})


def _tokenizer(texts: Iterable[str], codes: int) -> Tokenizer:
    # Digits and `*` state a picture's size; every byte is a token of its own anyway.
    tokenizer = train_tokenizer(["USER: ", "ASSISTANT:", *texts], ByteLevel(add_prefix_space=False, use_regex=True))
    tokens = (*SPECIAL, *map(visual_token, range(codes)))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return tokenizer


def _config(vocabulary: dict[str, int], codes: int) -> dict[str, Any]:
    known = {"bos_token_id": vocabulary[BEGIN], "eos_token_id": vocabulary[END_OF_TEXT]}
    known |= {"pad_token_id": vocabulary[PAD], "vocab_size": len(vocabulary)}
    return {
        "architectures": ["Emu3ForConditionalGeneration"],
        "model_type": "emu3",
        "text_config": TEXT | known,
        "vq_config": VQ | {"codebook_size": codes},
        "vocabulary_map": vocabulary,
        "image_token_id": vocabulary[PLACEHOLDER],
        "torch_dtype": "float32",
    }
