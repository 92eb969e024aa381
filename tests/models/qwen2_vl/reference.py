"""Tiny Qwen2-VL checkpoints as the reference implementation (transformers 5.23) writes and runs them."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from models.types import Request
from tests.models.reference import random_reference, randomise
from tests.tiny import TEXTS
from training import checkpoint_files

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
IMAGE = "<|image_pad|>"
# The released one, without videos and numbered pictures.
TEMPLATE = """\
{% for message in messages %}
{% if loop.first and message['role'] != 'system' %}
<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for item in message['content'] %}\
{% if item['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ item['text'] }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# A row of text width is 8 x 8 pixels; a picture becomes 4 to 25 of them.
IMAGES = {"min_pixels": 16 * 16, "max_pixels": 40 * 40, "patch_size": 4}
TEXT = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024,
    # Six pairs of each head turn with time, height and width.
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 2, 3]},
}  # fmt: skip
VISION = {
    "depth": 2, "embed_dim": 32, "hidden_size": 48, "mlp_ratio": 2, "num_heads": 4, "patch_size": 4,
}  # fmt: skip


def write_reference(folder: Path, *, is_tied: bool) -> Any:
    """Write a checkpoint with random weights; return the reference's model of it."""
    tokenizer = checkpoint_files.train_tokenizer(TEXTS, ByteLevel(add_prefix_space=False), SPECIAL)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    config = Qwen2VLConfig(
        text_config=TEXT | {"vocab_size": tokenizer.get_vocab_size(), "eos_token_id": ids["<|im_end|>"]},
        vision_config=VISION,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=is_tied,
    )
    model = random_reference(Qwen2VLForConditionalGeneration, config, _randomise)
    model.save_pretrained(folder)
    Qwen2VLImageProcessorPil(**IMAGES).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}), encoding="utf-8")
    return model


def _randomise(model: torch.nn.Module) -> None:
    """Make every parameter random, so that answers differ from row to row, with a tied head too."""
    randomise(model)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.data.sub_(1.0)
        elif name.endswith((".q_proj.weight", ".k_proj.weight")):
            parameter.data.mul_(2.0)
        elif name.endswith("embed_tokens.weight"):  # or the last token would be the likeliest again
            parameter.data.mul_(0.1)


def inputs_of(folder: Path, request: Request) -> dict[str, Tensor]:
    """Return what the reference's tokenizer and image processor make of a request.

    Its Qwen2VLProcessor brings the two together, but cannot be made without torchvision.
    """
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), chat_template=TEMPLATE)
    text = tokenizer.apply_chat_template(list(request.messages or []), add_generation_prompt=True, tokenize=False)
    inputs: dict[str, Tensor] = {}
    if request.images:
        pictures = [Image.open(BytesIO(data)) for data in request.images]
        inputs = dict(Qwen2VLImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt"))
        for grid in inputs["image_grid_thw"]:
            text = text.replace(IMAGE, "<one>" * (int(grid.prod()) // 4), 1)
    ids = tokenizer(text.replace("<one>", IMAGE), return_tensors="pt")
    is_image = ids["input_ids"] == tokenizer.convert_tokens_to_ids(IMAGE)
    both = {name: ids[name] for name in ("input_ids", "attention_mask")}
    return both | inputs | {"mm_token_type_ids": is_image.int()}


@torch.inference_mode()
def generated(model: Any, inputs: dict[str, Tensor], num_tokens: int) -> tuple[list[int], list[float]]:
    """Return the likeliest tokens that the reference goes on with, never stopping, and their log-probabilities."""
    model.model.rope_deltas = None  # or it would go on where the last text ended
    out = model.generate(
        **inputs, do_sample=False, max_new_tokens=num_tokens, eos_token_id=None, pad_token_id=0, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    scores = torch.cat(out.logits).float().log_softmax(-1)
    ids = out.sequences[0, inputs["input_ids"].shape[1] :]
    return ids.tolist(), scores.gather(-1, ids[:, None])[:, 0].tolist()


@torch.inference_mode()
def logprobs_of(model: Any, inputs: dict[str, Tensor], prompt_length: int, ids: Sequence[int]) -> list[float]:
    """Return the log-probabilities of tokens of text behind the first tokens of a prompt."""
    model.model.rope_deltas = None
    more = torch.tensor([list(ids)])
    behind = {
        "input_ids": more,
        "attention_mask": torch.ones_like(more),
        "mm_token_type_ids": torch.zeros_like(more),
    }
    longer = inputs | {name: torch.cat((inputs[name][:, :prompt_length], row), 1) for name, row in behind.items()}
    scores = model(**longer, use_cache=False).logits[0, prompt_length - 1 : -1].float().log_softmax(-1)
    found: list[float] = scores.gather(-1, more.T)[:, 0].tolist()
    return found
