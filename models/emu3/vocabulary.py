"""The tokens that a picture is made of, and their ids, as a checkpoint's files list them. Imports no torch.

The ids of the codes have no other id between them, so the scores of codes are a slice of all scores; in which order
they stand is the checkpoint's business.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.checkpoint import Fields, read_json
from models.types import CheckpointError

PLACEHOLDER = "<image>"
IMAGE_START = "<|image start|>"
IMAGE_TOKEN = "<|image token|>"
IMAGE_END = "<|image end|>"
END_OF_LINE = "<|extra_200|>"
END_OF_FRAME = "<|extra_201|>"
VISUAL = "<|visual token "
# In the order of Vocabulary's fields.
NAMED = (END_OF_LINE, END_OF_FRAME, IMAGE_START, IMAGE_TOKEN, IMAGE_END, PLACEHOLDER)
LISTS = "config.json's vocabulary_map and tokenizer.json's added_tokens"


@dataclass(frozen=True)
class Vocabulary:
    """Ids of the tokens that a picture is made of.

    Attributes:
        first_visual: The least id of a code.
        num_visual: How many codes there are; each of as many ids is that of one.
        image_token: Stands between the digits of a picture's size and its codes.
        image_placeholder: Stands for a code that is not known yet.
        places: Of code 0, code 1 and so on, how far its id is from the least. None, as released, for the same order.
    """

    first_visual: int
    num_visual: int
    end_of_line: int
    end_of_frame: int
    image_start: int
    image_token: int
    image_end: int
    image_placeholder: int
    places: tuple[int, ...] | None = None

    def codes_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the codes of visual ids, in an array of any shape."""
        places = ids - self.first_visual
        return places if self.places is None else np.argsort(self.places)[places]


def visual_token(code: int) -> str:
    """Return the token that stands for a code."""
    return f"{VISUAL}{code:06d}|>"


def read_vocabulary(folder: Path, raw: Fields, vocab_size: int, codebook_size: int | None) -> Vocabulary:
    """Read the ids from config.json and, of tokens that it does not list, from tokenizer.json.

    Args:
        folder: The checkpoint.
        raw: Its config.json.
        vocab_size: The text decoder's.
        codebook_size: How many codes there must be; None for any number.

    Raises:
        CheckpointError: A token is missing, or the ids are not as they must be.
    """
    ids = _picture_tokens(folder, raw)
    num_visual = sum(token.startswith(VISUAL) for token in ids)
    if num_visual == 0 or codebook_size not in (None, num_visual):
        expected = "one or more" if codebook_size is None else f"{codebook_size}, vq_config.codebook_size"
        raise CheckpointError(f"{folder} has {num_visual} visual tokens in {LISTS}; expected {expected}")
    visual = [visual_token(code) for code in range(num_visual)]
    missing = [token for token in (*NAMED, *visual) if token not in ids]
    if missing:
        raise CheckpointError(f"{folder} has no token {missing[0]!r} in {LISTS}")
    beyond = [token for token, id_ in ids.items() if id_ >= vocab_size]
    if beyond:
        found = f"{beyond[0]!r} has id {ids[beyond[0]]}"
        raise CheckpointError(f"{folder}: {found}, expected less than text_config.vocab_size, {vocab_size}")
    first = min(ids[token] for token in visual)
    places = tuple(ids[token] - first for token in visual)
    in_order = places == tuple(range(num_visual))
    if not in_order and sorted(places) != list(range(num_visual)):
        found = f"the {num_visual} visual tokens have ids from {first} to {first + max(places)}"
        raise CheckpointError(f"{folder}: {found}, expected as many in a row, each once")
    return Vocabulary(
        first_visual=first,
        num_visual=num_visual,
        end_of_line=ids[END_OF_LINE],
        end_of_frame=ids[END_OF_FRAME],
        image_start=ids[IMAGE_START],
        image_token=ids[IMAGE_TOKEN],
        image_end=ids[IMAGE_END],
        image_placeholder=ids[PLACEHOLDER],
        places=None if in_order else places,
    )


def _picture_tokens(folder: Path, raw: Fields) -> dict[str, int]:
    """Return ids by token: the released config.json lists all; what it leaves out is looked for in tokenizer.json."""
    stored = raw.section("vocabulary_map", default={})
    ids = {token: stored.integer(token) for token in stored.names if _is_of_pictures(token)}
    if ids.keys() >= set(NAMED) and any(token.startswith(VISUAL) for token in ids):
        return ids
    added = (read_json(folder, "tokenizer.json") or {}).get("added_tokens", [])
    return {one["content"]: int(one["id"]) for one in added if _is_of_pictures(one["content"])} | ids


def _is_of_pictures(token: str) -> bool:
    return token in NAMED or token.startswith(VISUAL)
