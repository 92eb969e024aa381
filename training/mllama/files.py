"""The files of a toy Mllama beside its weights; special tokens are named as in the released model."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from training import checkpoint_files

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
# What the chat template writes around every text.
HEADERS = (
    "system", "user", "assistant", "\n\n",
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
)  # fmt: skip


def write_files(folder: Path, texts: Iterable[str]) -> None:
    """Write everything but the weights, with a tokenizer that is learnt from texts."""
    tokenizer = _tokenizer(texts)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    files = checkpoint_files.shipped_files("mllama")
    files["tokenizer.json"] = tokenizer.to_str(pretty=True)
    known = {"bos_token_id": ids[BEGIN], "eos_token_id": ids[END_OF_TURN], "pad_token_id": ids[PAD]}
    files["config.json"]["text_config"] |= known | {"vocab_size": ids[IMAGE_TOKEN]}
    files["config.json"]["image_token_index"] = ids[IMAGE_TOKEN]
    ends = [ids[token] for token in (END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN)]
    files["generation_config.json"] |= known | {"eos_token_id": ends}
    checkpoint_files.write_files(folder, files)


def _tokenizer(texts: Iterable[str]) -> Tokenizer:
    cuts = [
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer = checkpoint_files.train_tokenizer([*HEADERS, *texts], pre_tokenizers.Sequence(cuts))
    tokenizer.add_special_tokens(checkpoint_files.special_tokens(SPECIAL))
    begin = (BEGIN, tokenizer.token_to_id(BEGIN))
    tokenizer.post_processor = TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    return tokenizer
