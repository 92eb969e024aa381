"""Pictures come out of `ask` decoded, the same in any company."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import Request, Sampling, ask, load_model, load_processor
from models.emu3.model import Emu3Model
from models.images import decode_image, encode_image
from models.picture_decoder import PictureDecoder, PictureModel
from models.types import PictureFormat, Pixels
from tests.promise import answer_faults, looks_like
from tests.tiny import tiny_aria, tiny_emu3, tiny_mllama

SAMPLING = Sampling(temperature=1.0, top_k=12, guidance_scale=3.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_emu3(tmp_path_factory.mktemp("emu3")))


def wish(seed: int, grid: tuple[int, int] = (3, 4), text: str = "a red circle", **changes: object) -> Request:
    sampling = replace(SAMPLING, seed=seed)
    return replace(Request(prompt=text, grid=grid, sampling=sampling, negative_prompt="blurry"), **changes)


def test_a_request_for_a_picture_is_answered_with_one_of_its_size(checkpoint: str) -> None:
    factor = load_model(checkpoint, device="cpu").config.vision.spatial_factor
    (answer,) = ask(checkpoint, [wish(1)], device="cpu")
    assert answer.image is not None and answer.text == "" and answer.finish_reason == "stop"
    image = Image.open(io.BytesIO(answer.image))
    assert image.format == "PNG" and image.size == (4 * factor, 3 * factor)
    assert len(answer.token_ids) == 3 * 5 + 3


def test_a_picture_is_the_same_alone_and_beside_others_of_all_kinds(checkpoint: str) -> None:
    chat = Request(messages=[{"role": "user", "content": "what is it?"}], sampling=Sampling(max_new_tokens=6))
    plain = wish(3, (1, 7), sampling=replace(SAMPLING, seed=3, guidance_scale=1.0))
    wishes = [wish(1), chat, wish(1, (5, 2), "two"), plain, wish(2), wish(2, negative_prompt=None), wish(2, (1, 1))]
    alone = [ask(checkpoint, [one], device="cpu")[0] for one in wishes]
    for slots in (8, 2, 1):
        together = ask(checkpoint, wishes, device="cpu", slots=slots)
        assert answer_faults(together, alone) == []
    pictures = [one.image for one in alone if one.image]
    assert len(pictures) == 6 == len(set(pictures))


def test_a_scale_of_1_is_no_guidance_and_another_negative_prompt_is_another_picture(checkpoint: str) -> None:
    unguided = replace(SAMPLING, seed=5, guidance_scale=1.0)
    one, same, other, third = ask(
        checkpoint,
        [
            wish(0, sampling=unguided),
            wish(0, sampling=unguided, negative_prompt="a dog"),
            wish(5),
            wish(5, negative_prompt="a dog"),
        ],
        device="cpu",
    )
    assert one == same and len({one.image, other.image, third.image}) == 3


def test_paint_is_the_checkpoints_decoder_cut_off_to_whole_levels(checkpoint: str) -> None:
    model, processor = load_model(checkpoint, device="cpu"), load_processor(checkpoint)
    assert isinstance(model, Emu3Model) and model.config.vocabulary is not None
    (answer,) = ask(checkpoint, [wish(4, (2, 3))], device="cpu")
    codes = np.array(answer.token_ids[:-3]).reshape(2, 4)[:, :3] - model.config.vocabulary.first_visual
    with torch.inference_mode():
        picture = model.vqmodel.decode(torch.from_numpy(codes)[None])[0]
    levels = np.trunc(((picture.permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255).clip(0, 255))
    assert answer.image is not None
    assert looks_like(answer.image, encode_image(levels.astype(np.uint8), PictureFormat()))
    assert processor.pixels_per_code == model.config.vision.spatial_factor


def test_the_picture_decoder_gives_what_the_model_decodes(checkpoint: str) -> None:
    model = load_model(checkpoint, device="cpu")
    assert isinstance(model, PictureModel)
    (answer,) = ask(checkpoint, [wish(4, (2, 3))], device="cpu")
    pixels = PictureDecoder(model).decode((2, 3), answer.token_ids).result()
    assert answer.image is not None and looks_like(encode_image(pixels, PictureFormat()), answer.image)


def test_a_picture_that_finds_no_memory_is_painted_again() -> None:
    class Crowded:
        device = torch.device("cpu")
        times = 0

        def decode_picture(self, layout: Sequence[int], token_ids: Sequence[int]) -> Pixels:
            self.times += 1
            if self.times != 2:
                raise torch.OutOfMemoryError("out of memory")
            return np.zeros((8, 8, 3), np.uint8)

    crowded = Crowded()
    assert PictureDecoder(crowded).decode((1, 1), (1,)).result().shape == (8, 8, 3) and crowded.times == 2
    crowded.times = 2
    with pytest.raises(torch.OutOfMemoryError):
        PictureDecoder(crowded).decode((1, 1), (1,)).result()


@pytest.mark.parametrize("tiny", [tiny_aria, tiny_mllama])
def test_families_that_draw_nothing_have_no_brush_and_say_so(tmp_path: Path, tiny: object) -> None:
    folder = str(tiny(tmp_path))
    assert not isinstance(load_model(folder, device="cpu"), PictureModel)
    assert load_processor(folder).pixels_per_code is None


@pytest.mark.parametrize(("name", "quality", "largest"), [("png", 1, 0), ("jpeg", 95, 30), ("webp", 95, 30)])
def test_pictures_are_encoded_alike_each_time(name: str, quality: int, largest: int) -> None:
    ramp = np.arange(48, dtype=np.uint8) * 5
    pixels = np.stack(
        [np.broadcast_to(ramp, (32, 48)), np.broadcast_to(ramp[:32, None], (32, 48)), np.full((32, 48), 90, np.uint8)],
        -1,
    )
    picture = PictureFormat(name, quality)
    data = encode_image(pixels, picture)
    assert data == encode_image(pixels, picture)
    assert np.abs(np.asarray(decode_image(data)).astype(int) - pixels).max() <= largest
