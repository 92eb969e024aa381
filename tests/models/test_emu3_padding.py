"""Long pictures get black edges where a run wants them, as in Emu3-Chat's published numbers, and no other does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import ImageSettings, Request, ask, load_processor
from models.emu3.processor import padded
from models.types import BadImage, Processor
from tests.models.reference import picture
from tests.models.test_contract import about
from tests.models.test_emu3_processor import (
    RELEASED,
    RELEASED_ZOO,
    assert_equals_reference,
    tiled,
    write_checkpoint,
)
from tests.pictures import encoded
from tests.tiny import tiny_emu3

PADDED = ImageSettings(pad_to_ratio=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("emu3"), RELEASED)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Processor:
    return load_processor(str(folder))


@pytest.fixture(scope="module")
def processor(folder: Path) -> Processor:
    return load_processor(str(folder), PADDED)


# The new size and where the picture lies in it, as VLMEvalKit e8e78f0 has them (vlmeval/vlm/emu.py).
@pytest.mark.parametrize(
    ("size", "edged", "corner"),
    [
        ((51, 10), (51, 11), (0, 0)), ((54, 10), (54, 11), (0, 0)), ((55, 10), (55, 12), (0, 1)),
        ((100, 10), (100, 21), (0, 5)), ((101, 10), (101, 21), (0, 5)), ((104, 10), (104, 21), (0, 5)),
        ((105, 10), (105, 22), (0, 6)), ((10, 100), (21, 100), (5, 0)), ((1, 6), (2, 6), (0, 0)),
        ((1000, 1), (1000, 201), (0, 100)),
    ],
)  # fmt: skip
def test_a_long_picture_lies_unchanged_in_the_middle_of_black(
    size: tuple[int, int], edged: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = picture(*size)
    found = padded(image, 5)
    assert (found.mode, found.size) == ("RGB", edged)
    (left, top), (width, height) = corner, size
    expected = np.zeros((edged[1], edged[0], 3), np.uint8)
    expected[top : top + height, left : left + width] = np.asarray(image)
    assert np.array_equal(np.asarray(found), expected)
    assert max(edged) <= 5 * min(edged)


@pytest.mark.parametrize("size", [(50, 10), (10, 50), (1, 1), (49, 10), (640, 480)])
def test_a_picture_that_is_not_too_long_gets_no_edges(size: tuple[int, int]) -> None:
    image = picture(*size)
    assert padded(image, 5) is image


@pytest.mark.parametrize("size", [size for size in RELEASED_ZOO if max(size) <= min(5 * min(size), 1300)], ids=str)
def test_within_the_ratio_a_picture_equals_the_references(processor: Processor, size: tuple[int, int]) -> None:
    assert_equals_reference(processor, RELEASED, size)


@pytest.mark.parametrize("size", [(1000, 100), (100, 1000), (3, 999)], ids=str)
def test_the_model_sees_a_long_picture_with_its_edges(
    plain: Processor, processor: Processor, size: tuple[int, int]
) -> None:
    image = picture(*size)
    [tile] = tiled(processor, image).tiles
    [same] = tiled(plain, padded(image, 5)).tiles
    assert np.array_equal(tile, same)
    along = tile if size[0] > size[1] else tile.transpose(1, 0, 2)
    middle = along.shape[0] // 2
    assert along[middle].any() and not along[:2].any() and not along[-2:].any()


def test_a_picture_ten_times_as_long_as_high_keeps_its_shape_unless_it_is_padded(plain: Processor) -> None:
    image = picture(1000, 100)
    request = Request(prompt="<image>", images=[encoded(image)])
    assert plain.prepare(request).layout == (21, 203)
    assert plain.prepare(replace(request, preprocess=PADDED)).layout == (29, 143)


def test_a_picture_too_long_for_the_reference_is_seen_once_it_is_padded(plain: Processor) -> None:
    request = Request(prompt="<image>", images=[encoded(picture(402, 2))])
    with pytest.raises(BadImage, match="refused 402 x 2 pixels: one side is more than 200 times the other"):
        plain.prepare(request)
    assert plain.prepare(replace(request, preprocess=PADDED)).image_tokens > 0


def test_edges_that_would_fill_the_memory_are_refused() -> None:
    line = Image.new("RGB", (1_000_000, 1))
    told = "refused 1000000 x 1 pixels: padded to 5:1 they are 1000000 x 200001, and the limit is 89478485"
    with pytest.raises(BadImage, match=told):
        padded(line, 5)


def test_a_long_picture_is_answered_as_the_picture_with_its_edges_would_be(tmp_path: Path) -> None:
    folder = str(tiny_emu3(tmp_path))
    long = picture(100, 10)
    edged = about(encoded(padded(long, 5)))
    first, second = ask(folder, [replace(about(encoded(long)), preprocess=PADDED), edged])
    assert first == second
