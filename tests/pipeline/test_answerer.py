import asyncio
import io
import threading

import numpy as np
import pytest
from PIL import Image

from models.picture_decoder import PictureDecoder
from models.types import ModelInput, PictureFormat, Pixels, Request, Sampling
from pipeline.steps.answerer import Answered, Answerer
from pipeline.steps.engine_thread import EngineThread
from tests.pipeline.toys import ToyEngine, ToyProcessor, ToySequence

SAMPLING = Sampling(max_new_tokens=60)


class ToyPainter:
    """Give a picture of `layout` pixels whose colour is the number of ids, when it is allowed to."""

    def __init__(self, *, may_paint: bool = True) -> None:
        import torch

        self.device = torch.device("cpu")
        self.allowed = threading.Event()
        if may_paint:
            self.allowed.set()

    def decode_picture(self, layout: tuple[int, ...], token_ids: tuple[int, ...]) -> Pixels:
        assert self.allowed.wait(20)
        if len(token_ids) == 5:
            raise MemoryError("no room for this one")
        return np.full((*layout, 3), len(token_ids), np.uint8)


def answerer(brush: ToyPainter, picture: PictureFormat | None = None) -> Answerer:
    return Answerer(EngineThread(ToyEngine(), ToySequence), ToyProcessor(), PictureDecoder(brush), picture)


def drawn(text: str) -> ModelInput:
    return ToyProcessor().prepare(Request(prompt=text, grid=(2, 3)))


def asked(text: str) -> ModelInput:
    return ToyProcessor().prepare(Request(prompt=text))


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_a_drawn_answer_comes_with_its_picture_in_the_jobs_format(name: str) -> None:
    one = answerer(ToyPainter(), PictureFormat(name, 90))
    answered = asyncio.run(one.answer("k", drawn("abcd"), SAMPLING))
    assert answered.answer is not None and answered.answer.image is not None
    image = Image.open(io.BytesIO(answered.answer.image))
    assert image.format == name.upper() and image.size == (3, 2)
    assert np.abs(np.asarray(image).astype(int) - 4).max() <= 2


def test_an_answer_in_words_has_no_picture() -> None:
    answered = asyncio.run(answerer(ToyPainter()).answer("k", asked("abcd"), SAMPLING))
    assert answered.answer is not None and answered.answer.image is None


def test_a_picture_that_cannot_be_painted_costs_its_own_answer() -> None:
    async def both() -> list[Answered]:
        one = answerer(ToyPainter())
        return await asyncio.gather(*(one.answer(text, drawn(text), SAMPLING) for text in ("abcde", "abcd")))

    failed, well = asyncio.run(both())
    assert failed.answer is None and failed.error is not None and failed.error["stage"] == "decode_back"
    assert failed.error["type"] == "MemoryError"
    assert well.answer is not None and well.answer.image


@pytest.mark.timeout(30)
def test_painting_never_stalls_the_engine() -> None:
    async def watched() -> None:
        brush = ToyPainter(may_paint=False)
        one = answerer(brush)
        picture = asyncio.create_task(one.answer("picture", drawn("a"), SAMPLING))
        texts = await asyncio.gather(*(one.answer("text", asked("bb"), SAMPLING) for _ in range(20)))
        assert all(answered.answer for answered in texts) and not picture.done()
        brush.allowed.set()
        decoded = (await picture).answer
        assert decoded is not None and decoded.image

    asyncio.run(watched())
