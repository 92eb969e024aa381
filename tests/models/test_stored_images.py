"""Of two files that say how images are prepared, the one holds that the reference takes: pictures are the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AriaImageProcessorPil, Emu3ImageProcessor, MllamaImageProcessorPil

from models import Family, Request, load_processor
from models.checkpoint import superseded_images
from tests.models.reference import picture
from tests.pictures import encoded
from tests.tiny import FAMILIES

REFERENCES: dict[Family, Any] = {
    "aria": AriaImageProcessorPil, "mllama": MllamaImageProcessorPil, "emu3": Emu3ImageProcessor,
}  # fmt: skip
PLACEHOLDERS: dict[Family, str] = {"aria": "<|img|>", "mllama": "<|image|>", "emu3": "<image>"}
# By family, settings that make other pictures than those of the tiny checkpoints.
OTHER: dict[Family, dict[str, Any]] = {
    "aria": {"max_image_size": 490, "min_image_size": 98}, "mllama": {"max_image_tiles": 1},
    "emu3": {"min_pixels": 32 * 32, "max_pixels": 40 * 40},
}  # fmt: skip
SIZES = (20, 60), (60, 20), (33, 31), (90, 70)


def settings(family: Family, folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((folder / "preprocessor_config.json").read_text())
    if family == "aria":  # the reference knows the two released sizes alone
        stored["max_image_size"], stored["min_image_size"] = 980, 336
    return stored


@pytest.fixture
def folder(family: Family, tmp_path: Path) -> Path:
    if family != "aria":
        return FAMILIES[family](tmp_path)
    config = {"projector_patch_to_query_dict": {"1225": 3, "4900": 5}}
    return FAMILIES[family](tmp_path, vision={"image_size": 980}, config=config)


@pytest.mark.parametrize("older", [True, False], ids=["beside the older file", "alone"])
@pytest.mark.parametrize("nested", ["other", "same", "null", "none"])
def test_pictures_are_those_of_the_settings_that_the_reference_takes(
    folder: Path, family: Family, nested: str, older: bool
) -> None:
    mine = settings(family, folder)
    (folder / "preprocessor_config.json").unlink()
    if older:
        (folder / "preprocessor_config.json").write_text(json.dumps(mine))
    if nested != "none":
        inner = {"other": mine | OTHER[family], "same": mine, "null": None}[nested]
        (folder / "processor_config.json").write_text(json.dumps({"processor_class": "P", "image_processor": inner}))
    if not older and nested in ("null", "none"):
        with pytest.raises(ValueError, match="does not say how images are prepared"):
            load_processor(str(folder))
        with pytest.raises(OSError, match="Can't load image processor"):
            REFERENCES[family].from_pretrained(folder)
        return
    reference = REFERENCES[family].from_pretrained(folder)
    processor = load_processor(str(folder))
    for size in SIZES:
        image = picture(*size)
        request = Request(prompt=PLACEHOLDERS[family], images=[encoded(image)])
        assert_equal(family, processor.prepare(request).tiles, reference(image, return_tensors="np"))


def assert_equal(family: Family, tiles: Any, reference: Any) -> None:
    """Compare a picture's tiles with the reference's pixels: their sizes and the values before they are shifted."""
    pixels = np.asarray(reference["pixel_values"])
    if family == "mllama":
        count = len(tiles)
        assert pixels.shape[-2:] == tiles[0].shape[:2] and reference["num_tiles"] == [[count]]
        ours = np.stack(tiles).transpose(0, 3, 1, 2)
        theirs = pixels[0, 0, :count]
    else:
        ours = tiles[0].transpose(2, 0, 1)
        theirs = pixels[0] if pixels.ndim == 4 else pixels[0, 0]
        if family == "aria":
            mask = np.asarray(reference["pixel_mask"])[0]
            height, width = int(mask.any(1).sum()), int(mask.any(0).sum())
            assert (-(-height // 14) * 14, -(-width // 14) * 14) == ours.shape[1:]
            ours, theirs = ours[:, :height, :width], theirs[:, :height, :width]
        else:
            assert tuple(np.asarray(reference["image_sizes"])[0]) == ours.shape[1:]
            theirs = theirs[:, : ours.shape[1], : ours.shape[2]]
    assert ours.shape == theirs.shape
    # One shift and one scale for each channel: what is left of the difference between two pictures is rounding.
    for mine, its in zip(np.moveaxis(ours, -3, 0), np.moveaxis(theirs, -3, 0), strict=True):
        spread = np.polyfit(mine.ravel().astype(float), its.ravel().astype(float), 1)
        assert np.allclose(np.polyval(spread, mine.astype(float)), its, atol=1e-4)


def test_what_is_not_read_is_listed(tmp_path: Path) -> None:
    older = {"image_processor_type": "AriaImageProcessor", "max_image_size": 980, "split_image": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(older))
    assert superseded_images(tmp_path) == {}
    for nested, listed in (
        ({}, {"max_image_size": (None, 980), "split_image": (None, True)}),
        ({"max_image_size": 490, "split_image": True, "resample": 3}, {"max_image_size": (490, 980)}),
        (older | {"image_processor_type": "Other"}, {}), (None, {}),
    ):  # fmt: skip
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
        assert superseded_images(tmp_path) == listed
