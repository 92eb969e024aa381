"""Run our Mllama as tests need it: scores after every token, and answers of the engine."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.cache.memory import MemoryView, prefill_memory_view
from models.cache.slots import Cache, prefill_cache_view
from models.engine import Engine, run_all
from models.engine import Sequence as Answering
from models.mllama.model import MllamaModel
from models.types import Sampling
from tests.models.mllama_reference import Picture, Row, Size


@torch.inference_mode()
def logits_of(
    model: MllamaModel, row: Row, size: Size, rule: Callable[[MemoryView], MemoryView] = lambda view: view
) -> Tensor:
    """Return the scores (T, V) after every token; `rule` may change what tokens see."""
    [prompt] = model.prompt([row.ours(size)])
    T = len(row.ids)
    view = prefill_memory_view([prompt.spans], range(T), model.device)
    cache = Cache(model.cache_shape, 1, T)
    cache_view = prefill_cache_view(cache, slice(0, 1), range(T), model.device, None if view is None else rule(view))
    return model.logits(model.decode(prompt.embeddings[None], cache_view))[0]


def generated(
    model: MllamaModel, rows: Sequence[Row], size: Size, num_tokens: int, *, slots: int = 3
) -> list[list[int]]:
    """Return the likeliest tokens of every row, answered together in a few slots, never stopping."""
    sequences = [Answering("", row.ours(size), Sampling(max_new_tokens=num_tokens)) for row in rows]
    run_all(Engine(model, slots=slots, max_length=max(len(row.ids) for row in rows) + num_tokens), sequences)
    for sequence in sequences:
        assert sequence.error is None, sequence.error
    return [sequence.token_ids for sequence in sequences]


def rows_from_an_image(size: Size) -> list[Row]:
    """Return rows whose first token is an image: unlike lengths, numbers of images and grids, images in a run."""
    image, pictures = size.image, _pictures(size)
    return [
        Row([image, 50, 51], [pictures(7)]),
        Row([image, 52, image, 53, 54, 55, image, image, 56, 57, 58], [pictures(n) for n in range(4)]),
        Row([image, image, *range(20, 45)], [pictures(4), pictures(5)]),
        Row([image, *range(60, 10, -1)], [pictures(6)]),
        Row([image], [pictures(7)]),
    ]


def rows_with_left_context(size: Size) -> list[Row]:
    """Return rows with text before their first image, or none at all."""
    image, pictures = size.image, _pictures(size)
    return [
        Row([60, 61, 62, image, 63, 64], [pictures(7)]),
        Row([64, image, 65, 66, image, image, 67], [pictures(n) for n in (1, 2, 3)]),
        Row([*range(30, 50), image], [pictures(5)]),
        Row([70, 71, 72]),
        Row([73]),
        Row([1, 2, image, image, image, 3, image, 4], [pictures(n) for n in (4, 4, 6, 7)]),
    ]


def _pictures(size: Size) -> Callable[[int], Picture]:
    return lambda n: Picture(*size.grids[n % len(size.grids)], seed=n)
