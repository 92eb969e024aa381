"""The files of a toy checkpoint beside its weights: a tokenizer that is learnt, and the shipped JSON files around it.

Sizes, chat template and image settings are data, in the layout of the released model: they are read from
jobs/demo/checkpoints. Each family makes its tokenizer, and sets what follows from that, such as ids of special tokens.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer
from tokenizers.trainers import BpeTrainer

CHECKPOINTS = Path(__file__).parent.parent / "jobs" / "demo" / "checkpoints"
# Large enough for every word to end up as one token; learning stops there by itself.
_MAX_TOKENS = 600


def shipped_files(family: str) -> dict[str, Any]:
    """Return a family's shipped files that every checkpoint takes over: JSON parsed, a template as it is."""
    files: dict[str, Any] = {}
    for path in (CHECKPOINTS / family).iterdir():
        if path.suffix in (".json", ".jinja") and path.name != "tokenizer.json":
            text = path.read_text(encoding="utf-8")
            files[path.name] = json.loads(text) if path.suffix == ".json" else text
    return files


def write_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Write files into a folder, which is made if need be: strings as they are, all else as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


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
        vocab_size=_MAX_TOKENS,
        special_tokens=special_tokens(first),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def special_tokens(names: Iterable[str]) -> list[AddedToken]:
    """Return special tokens that are found in a text exactly as they are written."""
    return [AddedToken(name, special=True, normalized=False) for name in names]
