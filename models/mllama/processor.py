"""Mllama on the CPU: messages and pictures become token ids and uint8 tiles. Knows no torch.

A picture is laid on a canvas of whole tiles, in the grid that suits it best, black to the right and below; only the
tiles of that grid leave here. In the prompt it is one token, however many tiles it has. Rules and rounding are those
of the reference's image processor, which are bit for bit those of Meta's.
"""

import math
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from models.choices import encode_prompt
from models.image_reader import Transform
from models.mllama.config import VisionConfig, read_config, read_images
from models.processor import FamilyProcessor, ProcessorOptions
from models.tokenizer import ChatTokenizer, check_placeholders
from models.types import (
    CheckpointError,
    ImageSettings,
    ModelInput,
    Pixels,
    Request,
)

IMAGE_TOKEN = "<|image|>"
BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TURN = "<|eot_id|>"

Grid = tuple[int, int]  # rows, columns


class MllamaProcessor(FamilyProcessor[tuple[list[Pixels], int]]):
    """The CPU half of Mllama; see models.types.Processor."""

    IMAGE_SETTINGS: ClassVar[tuple[str, ...]] = ("max_image_tiles",)

    def __init__(self, folder: Path, options: ProcessorOptions) -> None:
        """Load what the CPU needs of a checkpoint."""
        self.config = config = read_config(folder, text_only=options.text_only)
        super().__init__(
            "Mllama",
            config,
            ChatTokenizer(folder, IMAGE_TOKEN, options.template, today=options.today),
            END_OF_TURN,
            options,
            make_transform=partial(_canvas, folder, config.vision),
        )
        bos, image = (self._tokenizer.token_id(token) for token in (BEGIN_OF_TEXT, IMAGE_TOKEN))
        self._bos = config.bos_token_id if bos is None else bos
        self._image = config.image_token_index if image is None else image
        if self.sees_images and image is None:
            raise CheckpointError(f"{folder / 'tokenizer.json'} has no token {IMAGE_TOKEN}, the place of an image")

    def prepare(self, request: Request) -> ModelInput:
        """Render, tokenise and tile one request; see models.types.Processor."""
        rendered = self._tokenizer.read(request)
        encoded = encode_prompt(self._tokenizer, rendered, request.choices, self._bos)
        images = self._image_reader.read(request)
        check_placeholders(encoded.ids.count(self._image), len(images), IMAGE_TOKEN)
        return ModelInput(
            prompt=rendered.text,
            # Meta's own tokenizer has the image token at another id than the embedding table.
            token_ids=np.array(
                [self.config.image_token_index if i == self._image else i for i in encoded.ids], np.int32
            ),
            tiles=tuple(tile for image in images for tile in image.seen[0]),
            layout=tuple(image.seen[1] for image in images),
            image_tokens=len(images),
            image_names=tuple(image.name for image in images),
            choices=encoded.choices,
            shared_length=self._num_shared(request, rendered, encoded.ids, self._image, self._bos),
        )


class Canvas:
    """The grids of tiles that a checkpoint's vision encoder knows, and how a picture is laid on one."""

    def __init__(self, vision: VisionConfig, max_image_tiles: int) -> None:
        """Keep the grids of at most `max_image_tiles` tiles; their ids stay those of the whole list."""
        self._tile_size = vision.image_size
        self._ids = {
            grid: place + 1 for place, grid in enumerate(vision.aspect_ratios) if math.prod(grid) <= max_image_tiles
        }

    def tiles(self, image: Image.Image) -> tuple[list[Pixels], int]:
        """Return a picture's tiles, uint8 (tile_size, tile_size, 3) row by row, and the id of their grid."""
        grid = self.grid(image.width, image.height)
        rows, columns = grid
        side = self._tile_size
        size = fitted(image.width, image.height, grid, side)
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        cuts = [
            pixels[y * side : (y + 1) * side, x * side : (x + 1) * side] for y in range(rows) for x in range(columns)
        ]
        return [_on_black(cut, side) for cut in cuts], self._ids[grid]

    def grid(self, width: int, height: int) -> Grid:
        """Choose the grid that enlarges a picture least; where all shrink it, the one that shrinks it least.

        Of grids that do so equally the smallest wins, and of those the first.
        """
        side = self._tile_size
        scales = {grid: min(grid[0] * side / height, grid[1] * side / width) for grid in self._ids}
        best = min((scale for scale in scales.values() if scale >= 1), default=max(scales.values()))
        return min((grid for grid in self._ids if scales[grid] == best), key=math.prod)


def fitted(width: int, height: int, grid: Grid, tile_size: int) -> tuple[int, int]:
    """Return (width, height) of a picture on its canvas, aspect kept: enlarged at most until a side fills one tile."""
    target_height = min(max(height, tile_size), grid[0] * tile_size)
    target_width = min(max(width, tile_size), grid[1] * tile_size)
    scale_height, scale_width = target_height / height, target_width / width
    if scale_width < scale_height:
        return target_width, min(math.floor(height * scale_width) or 1, target_height)
    return min(math.floor(width * scale_height) or 1, target_width), target_height


def _on_black(cut: Pixels, side: int) -> Pixels:
    """Return a tile with a cut of the picture in its upper left corner; of a narrow one nothing may be left."""
    if cut.shape == (side, side, 3):
        return np.ascontiguousarray(cut)
    tile = np.zeros((side, side, 3), np.uint8)
    tile[: cut.shape[0], : cut.shape[1]] = cut
    return tile


def _canvas(folder: Path, vision: VisionConfig | None, settings: ImageSettings) -> Transform[tuple[list[Pixels], int]]:
    assert vision is not None
    return Canvas(vision, read_images(folder, vision, settings).max_image_tiles).tiles
