"""The files of a toy Aria beside its weights; special tokens are named and numbered as in the released model."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from training import checkpoint_files

# Ids 0 to 9 in this order: the released model's image token is 9 too.
SPECIAL = (
    "<unk>", "<s>", "</s>", "<pad>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<|im_start|>", "<|im_end|>",
    "<|img|>",
)  # fmt: skip
# The released tokenizer does not mark these as special, and `skip_special_tokens` leaves them in the text.
NOT_SPECIAL = ("<|im_start|>", "<|im_end|>")


def write_files(folder: Path, texts: Iterable[str]) -> None:
    """Write everything but the weights, with a tokenizer that is learnt from texts."""
    pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer = checkpoint_files.train_tokenizer(["user\n", "assistant\n", *texts], pre_tokenizer, SPECIAL)
    content = json.loads(tokenizer.to_str())  # the trainer marks all of them as special
    for token in content["added_tokens"]:
        token["special"] = token["content"] not in NOT_SPECIAL
    files = checkpoint_files.shipped_files("aria")
    files["tokenizer.json"] = json.dumps(content, indent=2, ensure_ascii=False)
    files["config.json"]["text_config"]["vocab_size"] = tokenizer.get_vocab_size()
    checkpoint_files.write_files(folder, files)
