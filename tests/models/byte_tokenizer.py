"""A tokenizer of bytes and control tokens, for tests of what stands around it."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

SPECIAL = ("<s>", "</s>", "<|img|>")
NOT_SPECIAL = ("<|im_start|>", "<|im_end|>")


def write_tokenizer(folder: Path, *, bos: bool = False, eos: bool = False) -> None:
    """Write a tokenizer of bytes, control tokens and nothing else: one id per byte of ordinary text."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *NOT_SPECIAL, *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in NOT_SPECIAL])
    if bos or eos:
        single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
        tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
