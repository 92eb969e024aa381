"""Qwen2-VL on the CPU: messages and pictures become token ids and one uint8 tile a picture. Knows no torch."""

from functools import partial
from math import ceil, floor, sqrt
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from models.choices import encode_prompt
from models.processor import FamilyProcessor, ProcessorOptions
from models.tokenizer import ChatTokenizer, check_placeholders
from models.types import ImageSettings, ModelInput, Pixels, Request
from tests.models.qwen2_vl.config import QwenImages, read_config, read_images

IMAGE_TOKEN = "<|image_pad|>"
END_OF_TURN = "<|im_end|>"


class Qwen2VLProcessor(FamilyProcessor[Pixels]):
    """The CPU half of Qwen2-VL; see models.types.Processor."""

    IMAGE_SETTINGS: ClassVar[tuple[str, ...]] = ("min_pixels", "max_pixels")

    def __init__(self, folder: Path, options: ProcessorOptions) -> None:
        """Load what the CPU needs of a checkpoint."""
        self.config = config = read_config(folder, text_only=options.text_only)
        # Sides are whole rows of text width.
        self._step = 0 if config.vision is None else config.vision.patch_size * config.vision.merge_size

        def make_transform(own: ImageSettings) -> partial[Pixels]:
            return partial(tile, read_images(folder, own), self._step)

        placeholder = f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"
        tokenizer = ChatTokenizer(folder, placeholder, options.template, today=options.today)
        super().__init__("Qwen2-VL", config, tokenizer, END_OF_TURN, options, make_transform=make_transform)

    def prepare(self, request: Request) -> ModelInput:
        """Render, tokenise and tile one request; see models.types.Processor."""
        rendered = self._tokenizer.read(request)
        encoded = encode_prompt(self._tokenizer, rendered, request.choices)
        images = self._image_reader.read(request)
        tiles = [image.seen for image in images]
        image = self.config.image_token_id
        check_placeholders(encoded.ids.count(image), len(tiles), IMAGE_TOKEN)
        grids = [(one.shape[0] // self._step, one.shape[1] // self._step) for one in tiles]
        waiting = iter(grids)
        expanded = [[i] * int(np.prod(next(waiting))) if i == image else [i] for i in encoded.ids]
        shared = self._num_shared(request, rendered, encoded.ids, image)
        return ModelInput(
            prompt=rendered.text,
            token_ids=np.array([i for run in expanded for i in run], np.int32),
            tiles=tuple(tiles),
            layout=tuple(side for grid in grids for side in grid),
            image_tokens=sum(rows * columns for rows, columns in grids),
            image_names=tuple(image.name for image in images),
            choices=encoded.choices,
            shared_length=sum(map(len, expanded[:shared])),
        )


def tile(images: QwenImages, step: int, image: Image.Image) -> Pixels:
    """Resize a picture to whole steps, its area within bounds and its aspect nearly kept (`smart_resize`)."""
    sides = image.height, image.width
    height, width = (round(side / step) * step for side in sides)
    if height * width > images.max_pixels:
        shrunk = sqrt(sides[0] * sides[1] / images.max_pixels)
        height, width = (max(step, floor(side / shrunk / step) * step) for side in sides)
    elif height * width < images.min_pixels:
        enlarged = sqrt(images.min_pixels / (sides[0] * sides[1]))
        height, width = (ceil(side * enlarged / step) * step for side in sides)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
