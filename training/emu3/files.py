"""The files of a toy Emu3 beside its weights, as in the released `-hf` folders; special tokens are named as there."""

import json
from collections.abc import Iterable
from pathlib import Path

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
from training import checkpoint_files

PAD, BEGIN, END_OF_TEXT = "<|endoftext|>", "<|extra_203|>", "<|extra_204|>"
# They follow the learnt tokens, and the codes of pictures follow them.
SPECIAL = (
    PAD, PLACEHOLDER, END_OF_LINE, END_OF_FRAME, BEGIN, END_OF_TEXT, IMAGE_TOKEN, IMAGE_START, IMAGE_END,
)  # fmt: skip


def write_files(folder: Path, texts: Iterable[str], num_codes: int) -> None:
    """Write everything but the weights, with a tokenizer that is learnt from texts.

    Args:
        folder: Made if need be; files of the same names are replaced.
        texts: What the tokenizer learns its vocabulary from.
        num_codes: Entries of the codebook; each is a token.
    """
    # Digits and `*` state a picture's size; every byte is a token of its own anyway.
    pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer = checkpoint_files.train_tokenizer(["USER: ", "ASSISTANT:", *texts], pre_tokenizer)
    tokens = (*SPECIAL, *map(visual_token, range(num_codes)))
    tokenizer.add_special_tokens(checkpoint_files.special_tokens(tokens))
    # By id: the tokenizer lists them in another order each time, and a checkpoint made again must be the same.
    ids = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    files = checkpoint_files.shipped_files("emu3")
    files["tokenizer.json"] = json.loads(tokenizer.to_str())
    files["tokenizer.json"]["model"]["vocab"] = ids  # the released file lists the special tokens among the learnt too
    ends = {"eos_token_id": ids[END_OF_TEXT], "pad_token_id": ids[PAD]}
    config = files["config.json"]
    config["text_config"] |= {"bos_token_id": ids[BEGIN], **ends, "vocab_size": len(ids)}
    config["vq_config"]["codebook_size"] = num_codes
    config |= {"vocabulary_map": ids, "image_token_id": ids[PLACEHOLDER]}
    files["generation_config.json"] |= ends
    checkpoint_files.write_files(folder, files)
