"""Turn drawn answers into pixels beside the engine: ids of codes in, pixels out, on a thread of their own.

The model knows which ids stand for which pixels. Pictures are decoded one by one: decoded together, the last bits of
their pixels would depend on each other.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Protocol, runtime_checkable

import torch

from models.capacity.out_of_memory import is_out_of_memory, release_cached_memory
from models.stopwatch import Stopwatch
from models.types import Pixels

log = logging.getLogger(__name__)


@runtime_checkable
class PictureModel(Protocol):
    """A model that turns the codes it has drawn into pixels."""

    @property
    def device(self) -> torch.device:
        """Where it does so."""

    def decode_picture(self, layout: Sequence[int], token_ids: Sequence[int]) -> Pixels:
        """Return the picture uint8 (height, width, 3) of a drawn answer.

        Args:
            layout: That of the answer's input.
            token_ids: All that were emitted.
        """


class PictureDecoder:
    """One thread, and on a GPU a stream of its own, so that tokens and pixels are computed at the same time."""

    def __init__(self, model: PictureModel, stopwatch: Stopwatch | None = None) -> None:
        """Start no thread yet.

        Args:
            model: Turns codes into pixels.
            stopwatch: Gets the seconds of `paint`.
        """
        self._model = model
        self._stopwatch = stopwatch or Stopwatch()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="picture_decoder")
        self._stream = torch.Stream(model.device) if model.device.type == "cuda" else None

    def decode(self, layout: Sequence[int], token_ids: Sequence[int]) -> "Future[Pixels]":
        """Queue a picture."""
        return self._thread.submit(self._decode, layout, token_ids)

    def _decode(self, layout: Sequence[int], token_ids: Sequence[int]) -> Pixels:
        with self._stopwatch.measure("paint"), self._stream or nullcontext():
            try:
                return self._model.decode_picture(layout, token_ids)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # What took minutes to draw is not thrown away for what other threads held for a moment.
                log.warning("no memory to decode a picture of %s codes; trying once more", "x".join(map(str, layout)))
            release_cached_memory(self._model.device)
            return self._model.decode_picture(layout, token_ids)
