"""Paint drawn answers beside the engine: ids of codes in, pixels out, on a thread that the engine never waits for.

Which ids stand for which pixels is the model's business. Pictures are painted one by one: painted together, the last
bits of their pixels would depend on their company.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Protocol, runtime_checkable

import torch

from models.engine.out_of_memory import is_out_of_memory, release_cached_memory
from models.types import Pixels

log = logging.getLogger(__name__)


@runtime_checkable
class Paints(Protocol):
    """A model that can turn what it has drawn into pixels."""

    @property
    def device(self) -> torch.device:
        """Where it does so."""
        ...

    def paint(self, layout: Sequence[int], token_ids: Sequence[int]) -> Pixels:
        """Return the picture uint8 (height, width, 3) of a drawn answer.

        Args:
            layout: That of the answer's input.
            token_ids: All that were emitted.
        """
        ...


class Painter:
    """A model's brush: one thread, and on a GPU a stream of its own, so that tokens and pixels are made at once."""

    def __init__(self, model: Paints) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="painter")
        self._stream = torch.Stream(model.device) if model.device.type == "cuda" else None

    def paint(self, layout: Sequence[int], token_ids: Sequence[int]) -> "Future[Pixels]":
        """Queue a picture."""
        return self._thread.submit(self._paint, layout, token_ids)

    def _paint(self, layout: Sequence[int], token_ids: Sequence[int]) -> Pixels:
        with self._stream or nullcontext():
            try:
                return self._model.paint(layout, token_ids)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # What took minutes to draw is not thrown away for what other threads held for a moment.
                log.warning("no memory to paint a picture of %s codes; trying once more", "x".join(map(str, layout)))
            release_cached_memory(self._model.device)
            return self._model.paint(layout, token_ids)
