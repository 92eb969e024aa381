"""Mllama computes what Meta's own code computes, text before images included; and so does transformers as we ask it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import ImageSettings, Request, Sampling, ask, load_model, load_processor
from models.images import decode_image
from models.mllama.config import read_config, read_images
from models.mllama.model import MllamaModel
from models.tiles import Normalize
from tests.models.mllama_ours import generated, logits_of, rows_from_an_image, rows_with_left_context
from tests.models.mllama_reference import TABLES, Row, Size, batch, share_tile_embeddings, write_reference
from tests.models.mllama_sizes import LLAMA3, META_SIZES, SIZES
from tests.models.reference import picture, user
from tests.pictures import encoded
from tests.tiny import tiny_mllama


@pytest.fixture(scope="module")
def code() -> Iterator[ModuleType]:
    """Meta's code as tests run it; where it must be installed, that it is not is an error."""
    try:
        from tests.models import meta_reference
    except ModuleNotFoundError:
        if os.environ.get("TRIPTYCH_ORACLES") == "required":
            raise
        pytest.skip("Meta's code is not installed: make setup")
    with meta_reference.one_process():
        yield meta_reference


@dataclass(frozen=True)
class Three:
    """The same checkpoint: run by Meta's code, by transformers and by us."""

    size: Size
    meta: Any
    reference: Any
    ours: MllamaModel


@pytest.fixture(scope="module", params=list(META_SIZES), ids=list(META_SIZES))
def three(code: ModuleType, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Three:
    folder: Path = tmp_path_factory.mktemp("meta")
    size = META_SIZES[request.param]
    reference = write_reference(folder, size, alike=True)
    meta = code.Meta(size, load_file(folder / "model.safetensors"))
    return Three(size, meta, reference, load_model(str(folder), device="cpu"))


def test_transformers_as_we_ask_it_computes_what_meta_does(three: Three) -> None:
    if three.size not in SIZES.values():
        assert 0 in three.size.vision["intermediate_layers_indices"]  # it has no name for the first layer's input
        return
    for row in rows_from_an_image(three.size):
        with torch.inference_mode():
            scores = three.reference(**batch([row], three.size), use_cache=False).logits[0]
        torch.testing.assert_close(scores, three.meta.logits(row), atol=1e-4, rtol=1e-4)


def test_scores_equal_metas_with_text_before_between_and_without_images(three: Three) -> None:
    for row in [*rows_with_left_context(three.size), *rows_from_an_image(three.size)]:
        found = logits_of(three.ours, row, three.size)
        torch.testing.assert_close(found, three.meta.logits(row), atol=1e-4, rtol=1e-4)


def test_greedy_answers_equal_metas(three: Three) -> None:
    rows, num_tokens = rows_with_left_context(three.size), 20
    expected = [three.meta.greedy(row, num_tokens) for row in rows]
    assert generated(three.ours, rows, three.size, num_tokens) == expected


def test_images_become_metas_features(three: Three) -> None:
    for row in rows_from_an_image(three.size):
        for image in row.pictures:
            pixels = torch.from_numpy(image.pixels(three.size))
            num_tiles = len(pixels)
            blank = pixels.new_zeros(three.size.vision["max_num_tiles"] - num_tiles, *pixels.shape[1:])
            with torch.inference_mode():
                seen = three.meta.see(torch.cat((pixels, blank)), (image.rows, image.columns))
                found = three.ours.features([(list(image.tiles(three.size)), image.grid(three.size))])
            torch.testing.assert_close(found[0], seen[:num_tiles].flatten(0, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("num_layers", "num_cross"), [(32, 8), (80, 20)], ids=["11B", "90B"])
def test_metas_own_places_of_cross_layers_are_those_of_the_released_config(
    code: ModuleType, num_layers: int, num_cross: int
) -> None:
    before = code.fusion_schedule(num_layers, num_cross)
    places = [layer + earlier for earlier, layer in enumerate(before)]
    assert places == list(range(3, num_layers + num_cross, 5))


# Tall, wide, tiny, exactly a tile, a pixel more, exactly the largest canvas, more than that. (Of a picture so thin that
# nothing would be left of a side transformers and we keep one pixel; Meta's code fails.)
ZOO = [(4, 100), (100, 4), (7, 7), (28, 28), (29, 28), (28, 29), (56, 56), (112, 28), (111, 27), (60, 40), (400, 30)]


@pytest.fixture(scope="module")
def whole(code: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A checkpoint with tokenizer and template, and Meta's model of it with Meta's own way from pictures to tiles."""
    folder: Path = tiny_mllama(
        tmp_path_factory.mktemp("whole"), text={"rope_parameters": LLAMA3, "rope_scaling": None}, seed=3
    )
    config = json.loads((folder / "config.json").read_text())
    size = Size(config["text_config"], config["vision_config"])
    tensors = load_file(folder / "model.safetensors")
    share_tile_embeddings([table for name, table in tensors.items() if name.endswith(TABLES)], size)
    save_file(tensors, folder / "model.safetensors")
    return str(folder), code.Meta(size, tensors, takes_tiles=False)


@pytest.mark.parametrize("size", ZOO, ids=str)
def test_a_picture_becomes_metas_tiles_to_the_last_bit(whole: tuple[str, Any], size: tuple[int, int]) -> None:
    folder, meta = whole
    tiles, (rows, columns) = meta.transform(picture(*size))
    model_input = load_processor(folder).prepare(Request(prompt="<|image|>", images=[encoded(picture(*size))]))
    vision = read_config(Path(folder)).vision
    assert vision is not None
    stored = read_images(Path(folder), vision, ImageSettings())
    found = Normalize(stored.mean, stored.std)(model_input.tiles, torch.device("cpu"), torch.float32)
    assert torch.equal(found, tiles)
    assert vision.aspect_ratios[model_input.layout[0] - 1] == (rows, columns)


def test_from_messages_and_files_to_tokens_answers_equal_metas(whole: tuple[str, Any]) -> None:
    folder, meta = whole
    requests = [asked(sizes) for sizes in ([], ZOO[:1], [ZOO[1], ZOO[9]], ZOO[4:8], ZOO[10:])]
    processor = load_processor(folder)
    for request, answer in zip(requests, ask(folder, requests, slots=2), strict=True):
        ids = processor.prepare(request).token_ids.tolist()
        pictures = [decode_image(image) for image in request.images]
        expected = meta.greedy(Row(ids, pictures), len(answer.token_ids))
        assert list(answer.token_ids) == expected
        assert answer.finish_reason == "stop" or len(expected) == request.sampling.max_new_tokens


def asked(sizes: list[tuple[int, int]]) -> Request:
    messages, images = user("What shape is in the picture?", len(sizes)), [encoded(picture(*size)) for size in sizes]
    return Request(messages=messages, images=images, sampling=Sampling(max_new_tokens=20))
