"""Answer one input from start to end: tokens from the engine, a picture decoded where one was drawn, text read back.

Whatever goes wrong is that answer's error. It knows neither rows nor jobs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from models.images import encode_image
from models.types import Answer, Completion, ModelInput, PictureFormat, Processor, PromptTooLong, Sampling
from pipeline.rows import RowError, row_error
from pipeline.steps.engine_thread import Ended, EngineThread

if TYPE_CHECKING:
    from models.picture_decoder import PictureDecoder


@dataclass(frozen=True)
class Answered:
    """What became of one request: an answer or an error."""

    answer: Answer | None
    error: RowError | None


@dataclass(frozen=True)
class Slots:
    """How many sequences an engine answers at once, and why, where that was found out as it was loaded."""

    count: int
    why: str = ""


class Answerer:
    """A running engine with what stands before and behind it."""

    def __init__(
        self,
        engine: EngineThread,
        processor: Processor,
        picture_decoder: PictureDecoder | None = None,
        picture: PictureFormat | None = None,
        slots: Slots | None = None,
    ) -> None:
        """Keep what all requests share.

        Args:
            engine: The running engine.
            processor: Turns emitted ids back into answers.
            picture_decoder: Turns drawn ids into pictures; None for models that draw none.
            picture: How those are encoded.
            slots: The engine's, where they are known.
        """
        self.processor = processor
        self.slots = slots
        self._engine = engine
        self._picture_decoder = picture_decoder
        self._picture = picture or PictureFormat()

    async def answer(self, key: str, model_input: ModelInput, sampling: Sampling) -> Answered:
        """Answer one input; others are answered and decoded meanwhile.

        Raises:
            EngineDied: The engine is of no further use.
        """
        ended = await self._ended(key, model_input, sampling)
        if ended.completion is None:
            error = ended.error or RuntimeError("the engine ended the row with neither an answer nor an error")
            return Answered(None, row_error("tokenise" if isinstance(error, PromptTooLong) else "generate", error))
        try:
            completion = await self._painted(model_input, ended.completion)
            return Answered(self.processor.to_answer(model_input, completion, sampling), None)
        except Exception as error:  # one answer that cannot be decoded back must cost one row
            return Answered(None, row_error("decode_back", error))

    async def _ended(self, key: str, model_input: ModelInput, sampling: Sampling) -> Ended:
        try:
            stop_condition = self.processor.stop_condition(sampling)
        except Exception as error:
            return Ended(None, error)
        return await asyncio.wrap_future(
            self._engine.answer(key, model_input, sampling, self.processor.stop_ids, stop_condition)
        )

    async def _painted(self, model_input: ModelInput, completion: Completion) -> Completion:
        if self._picture_decoder is None or not model_input.is_drawn:
            return completion
        pixels = await asyncio.wrap_future(self._picture_decoder.decode(model_input.layout, completion.token_ids))
        # Encoding takes a CPU as long as decoding takes a GPU, so it has threads of its own.
        return replace(completion, image=await asyncio.to_thread(encode_image, pixels, self._picture))
