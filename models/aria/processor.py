"""Aria on the CPU: messages and pictures become token ids and uint8 tiles. Knows no torch.

A picture is shrunk or enlarged onto a square canvas of side M (`max_image_size`); what the canvas has beyond the
picture is black and, patch for patch, invisible to the model. So a tile carries only the canvas's valid patches:
the released model gives the same features for it (models/aria/model.py), at three quarters of the cost for a 4:3
photograph. `split_image` adds close-ups, by the rule of the original authors' processor.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from PIL import Image

from models.aria.config import AriaConfig, AriaImages, read_config, read_images
from models.choices import encode_prompt
from models.processor import FamilyProcessor, ProcessorOptions
from models.tokenizer import ChatTokenizer, check_placeholders
from models.types import (
    CheckpointError,
    ImageSettings,
    ImageSettingsError,
    ModelInput,
    Pixels,
    Request,
)

IMAGE_TOKEN = "<|img|>"
# What the authors' template writes for an image.
WRITTEN_IMAGE = f"<fim_prefix>{IMAGE_TOKEN}<fim_suffix>"
END_OF_TURN = "<|im_end|>"

# (columns, rows) of close-ups, in the order in which the original processor tries them.
SPLIT_RATIOS = (
    (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (1, 7), (1, 8), (2, 4), (2, 3), (2, 2), (2, 1), (3, 1), (3, 2), (4, 1),
    (4, 2), (5, 1), (6, 1), (7, 1), (8, 1),
)  # fmt: skip


class AriaProcessor(FamilyProcessor[list["Crop"]]):
    """The CPU half of Aria; see models.types.Processor."""

    IMAGE_SETTINGS: ClassVar[tuple[str, ...]] = ("split_image", "max_image_size")

    def __init__(self, folder: Path, options: ProcessorOptions) -> None:
        """Load what the CPU needs of a checkpoint."""
        self.config = config = read_config(folder, text_only=options.text_only)
        super().__init__(
            "Aria",
            config,
            ChatTokenizer(folder, IMAGE_TOKEN, options.template, today=options.today, written_image=WRITTEN_IMAGE),
            END_OF_TURN,
            options,
            make_transform=lambda own: Canvas(folder, config, own).crops,
        )

    def prepare(self, request: Request) -> ModelInput:
        """Render, tokenise and tile one request; see models.types.Processor."""
        rendered = self._tokenizer.read(request)
        encoded = encode_prompt(self._tokenizer, rendered, request.choices)
        images = self._image_reader.read(request)
        check_placeholders(encoded.ids.count(self.config.image_token_index), len(images), IMAGE_TOKEN)
        crops = [crop for image in images for crop in image.seen]
        num_queries = [sum(crop.queries for crop in image.seen) for image in images]
        shared = self._num_shared(request, rendered, encoded.ids, self.config.image_token_index)
        return ModelInput(
            prompt=rendered.text,
            token_ids=self._expand(encoded.ids, num_queries),
            tiles=tuple(crop.tile for crop in crops),
            layout=tuple(crop.queries for crop in crops),
            image_tokens=sum(num_queries),
            image_names=tuple(f"{image.name}.{number}" for image in images for number in range(len(image.seen))),
            choices=encoded.choices,
            shared_length=len(self._expand(encoded.ids[:shared], num_queries)),
        )

    def _expand(self, ids: Sequence[int], num_queries: Sequence[int]) -> np.ndarray:
        waiting = iter(num_queries)
        image = self.config.image_token_index
        expanded = [[i] * next(waiting) if i == image else [i] for i in ids]
        return np.array([i for run in expanded for i in run], dtype=np.int32)


class Crop(NamedTuple):
    """A tile, and how many rows of features it becomes."""

    tile: Pixels
    queries: int


class Canvas:
    """What pictures are laid on, and whether close-ups are cut of them."""

    def __init__(self, folder: Path, config: AriaConfig, settings: ImageSettings) -> None:
        """Read a checkpoint's image settings, under those of a run or a request."""
        assert config.vision is not None
        self._images = read_images(folder, settings)
        self._patch_size = config.vision.patch_size
        self._queries = _queries_per_tile(config, self._images, settings)

    def crops(self, image: Image.Image) -> list[Crop]:
        """Return the tiles of a picture, the whole of it first."""
        cuts = split(image, self._images.max_image_size) if self._images.split_image else [image]
        return [Crop(tile(cut, self._images, self._patch_size), self._queries) for cut in cuts]


def tile(image: Image.Image, images: AriaImages, patch_size: int) -> Pixels:
    """Resize a picture onto the canvas and cut the canvas to its valid patches.

    Returns:
        uint8 (height, width, 3), both sides multiples of `patch_size`; black beyond the picture.
    """
    width, height = fitted(image.width, image.height, images)
    side = images.max_image_size // patch_size
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    rows, columns = _patches(height, patch_size, side), _patches(width, patch_size, side)
    if (rows, columns) == pixels.shape[:2]:
        return pixels
    canvas = np.zeros((rows, columns, 3), np.uint8)
    canvas[:height, :width] = pixels[:rows, :columns]
    return canvas


def split(image: Image.Image, max_image_size: int) -> list[Image.Image]:
    """Cut a picture into close-ups, the whole picture first.

    The grid is the one whose aspect is nearest; of equally near ones a later entry wins only if the picture
    has more than half the pixels it needs. The picture is stretched onto the grid, aspect or not.
    """
    columns, rows = _nearest_ratio(image.width, image.height, max_image_size)
    stretched = image.resize((columns * max_image_size, rows * max_image_size))
    boxes = [
        (x * max_image_size, y * max_image_size, (x + 1) * max_image_size, (y + 1) * max_image_size)
        for y in range(rows)
        for x in range(columns)
    ]
    return [image, *(stretched.crop(box) for box in boxes)]


def _nearest_ratio(width: int, height: int, max_image_size: int) -> tuple[int, int]:
    best, best_difference = SPLIT_RATIOS[0], float("inf")
    for columns, rows in SPLIT_RATIOS:
        difference = abs(width / height - columns / rows)
        is_filled = width * height > 0.5 * max_image_size**2 * columns * rows
        if difference < best_difference or (difference == best_difference and is_filled):
            best, best_difference = (columns, rows), difference
    return best


def fitted(width: int, height: int, images: AriaImages) -> tuple[int, int]:
    """Return (width, height) on the canvas: the longer side fills it, the shorter keeps a least size."""
    longest = images.max_image_size
    shortest = min(images.min_image_size, longest)
    scale = longest / max(width, height)
    if width >= height:
        return longest, max(int(height * scale), shortest)
    return max(int(width * scale), shortest), longest


def _patches(pixels: int, patch_size: int, side: int) -> int:
    """Return the length of the patches that hold any of `pixels`, in pixels."""
    return min(-(-pixels // patch_size), side) * patch_size


def _queries_per_tile(config: AriaConfig, images: AriaImages, settings: ImageSettings) -> int:
    assert config.vision is not None
    patches = (images.max_image_size // config.vision.patch_size) ** 2
    if patches not in config.patch_to_query:
        sizes = [int(known**0.5) * config.vision.patch_size for known in config.patch_to_query]
        fault = (
            f"max_image_size: found {images.max_image_size}, which makes {patches} patches; expected "
            f"{' or '.join(map(str, sizes))}, the sizes of the checkpoint's projector_patch_to_query_dict, or null for "
            "its own"
        )
        raise CheckpointError(fault) if settings.max_image_size is None else ImageSettingsError(fault)
    return config.patch_to_query[patches]
