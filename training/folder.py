"""Write what the folders of all small checkpoints have: JSON files and a tokenizer. Knows no family, and no torch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer
from tokenizers.trainers import BpeTrainer

# Large enough for every word to end up as one token; learning stops there by itself.
_MOST_TOKENS = 600


def train_tokenizer(texts: Iterable[str], pre_tokenizer: PreTokenizer, first: Sequence[str] = ()) -> Tokenizer:
    """Learn a byte-level vocabulary.

    Args:
        texts: What it learns from.
        pre_tokenizer: Cuts texts before they are tokenised.
        first: Special tokens that take the ids from 0 on.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=_MOST_TOKENS,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in first],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write one JSON file as checkpoints have them."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
