"""Find tokens that prompts can have and weights do not know: the tokenizer and the embedding table are two files.

Tokens are added to one without the other, and tokenizers are copied from other models. What only a single request
brings about is that request's error, see `FamilyModel.check_ids` in models/llama.py.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from models.images import encode_image
from models.types import BadRequest, CheckpointError, PictureFormat, Processor, Request

# Of ids beyond the table so many are tried; a tokenizer of another model has tens of thousands.
_TRIED = 1000


def refuse_unknown_tokens(folder: Path, processor: Processor, num_tokens: int) -> None:
    """Refuse a checkpoint that cannot look up a token which stands in its prompts or which texts are cut into.

    Args:
        folder: The checkpoint.
        processor: Its CPU half, as the run loads it.
        num_tokens: Rows of its embedding table.

    Raises:
        CheckpointError: Names such a token, its id and how many rows there are; or no token ends an answer.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for where, ids in _prompts(processor):
        beyond = [id_ for id_ in ids if id_ >= num_tokens]
        if beyond:
            raise _unknown(folder, tokenizer, beyond[0], where, num_tokens)
    if min(processor.stop_ids) >= num_tokens:
        ends = ", ".join(map(str, sorted(processor.stop_ids)))
        raise CheckpointError(f"{folder}: no answer would end: the ids that end one are {ends}, of {num_tokens} tokens")
    added = tokenizer.get_added_tokens_decoder()
    listed = tokenizer.get_vocab(with_added_tokens=False).values()
    for id_ in sorted(id_ for id_ in listed if id_ >= num_tokens and id_ not in added)[:_TRIED]:
        # Some vocabularies list what no text becomes; that does no harm.
        if id_ in tokenizer.encode(tokenizer.decode([id_]), add_special_tokens=False).ids:
            raise _unknown(folder, tokenizer, id_, "texts can have", num_tokens)


def _prompts(processor: Processor) -> Iterator[tuple[str, list[int]]]:
    """Yield the prompts of a short question, without an image and with one, as far as the checkpoint takes them."""
    text = {"type": "text", "text": "?"}
    requests = {"prompts have": Request(messages=[{"role": "user", "content": [text]}])}
    if processor.sees_images:
        image = encode_image(np.zeros((8, 8, 3), np.uint8), PictureFormat())
        messages = [{"role": "user", "content": [{"type": "image"}, text]}]
        requests["prompts with an image have"] = Request(messages=messages, images=[image])
    for where, request in requests.items():
        try:
            yield where, processor.prepare(request).token_ids.tolist()
        except BadRequest:  # a checkpoint that does not chat, or not so
            continue


def _unknown(folder: Path, tokenizer: Tokenizer, id_: int, where: str, num_tokens: int) -> CheckpointError:
    token = tokenizer.id_to_token(id_)
    named = f"the token {token!r} (id {id_})" if token else f"the token id {id_}"
    return CheckpointError(
        f"{folder}: {where} {named}, but the embedding table has {num_tokens} rows; expected the tokenizer and the "
        "config.json that the weights were saved with"
    )
