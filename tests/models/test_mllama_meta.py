"""Mllama computes what Meta's own code computes, text before images included; and so does transformers as we ask it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import load_model
from models.mllama.model import MllamaModel
from tests.models.mllama_ours import generated, logits_of, rows_from_an_image, rows_with_left_context
from tests.models.mllama_reference import Size, batch, write_reference
from tests.models.mllama_sizes import META_SIZES, SIZES


@pytest.fixture(scope="module")
def code() -> Iterator[ModuleType]:
    """Meta's code as tests run it; where it must be installed, that it is not is an error."""
    try:
        from tests.models import meta_reference
    except ModuleNotFoundError:
        if os.environ.get("TRIPTYCH_ORACLES") == "required":
            raise
        pytest.skip("Meta's code is not installed: pip install --no-deps -r tests/oracles.txt")
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
    rows, num_tokens = [*rows_with_left_context(three.size), *rows_from_an_image(three.size)], 24
    expected = [three.meta.greedy(row, num_tokens) for row in rows]
    assert generated(three.ours, rows, three.size, num_tokens) == expected


def test_images_become_metas_features(three: Three) -> None:
    for row in rows_from_an_image(three.size):
        for picture in row.pictures:
            pixels = torch.from_numpy(picture.pixels(three.size))
            num_tiles = len(pixels)
            blank = pixels.new_zeros(three.size.vision["max_num_tiles"] - num_tiles, *pixels.shape[1:])
            with torch.inference_mode():
                seen = three.meta.see(torch.cat((pixels, blank)), (picture.rows, picture.columns))
                found = three.ours.features([(list(picture.tiles(three.size)), picture.grid(three.size))])
            torch.testing.assert_close(found[0], seen[:num_tiles].flatten(0, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("num_layers", "num_cross"), [(32, 8), (80, 20)], ids=["11B", "90B"])
def test_metas_own_places_of_cross_layers_are_those_of_the_released_config(
    code: ModuleType, num_layers: int, num_cross: int
) -> None:
    before = code.fusion_schedule(num_layers, num_cross)
    places = [layer + earlier for earlier, layer in enumerate(before)]
    assert places == list(range(3, num_layers + num_cross, 5))
