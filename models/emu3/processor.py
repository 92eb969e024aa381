"""Emu3 on the CPU: messages and pictures become token ids and one uint8 tile a picture. Knows no torch.

A picture is resized to a size that whole codes cover, and keeps its shape; a run may want black edges on long ones
first. In the prompt it is its size in codes, as text, then a placeholder for each code, row by row, with the line ends
as they are; the model puts the codes in (models/emu3/model.py). Sizes and rounding are those of the reference's image
processor.

A prompt that asks for a picture ends with that picture's size: its codes come next. So does the negative prompt.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.choices import encode_prompt
from models.emu3.config import MAX_ASPECT, Emu3Images, read_config, read_images
from models.emu3.grid import Grid
from models.emu3.vocabulary import END_OF_FRAME, IMAGE_END, IMAGE_START, IMAGE_TOKEN, PLACEHOLDER
from models.guard import RenderedPrompt
from models.images import LIMIT_PIXELS
from models.processor import FamilyProcessor, ProcessorOptions
from models.tokenizer import ChatTokenizer, check_placeholders
from models.types import (
    Answer,
    BadImage,
    BadRequest,
    CheckpointError,
    Completion,
    ModelInput,
    Pixels,
    Request,
    Sampling,
    Tokenizer,
)

END_OF_TEXT = "<|extra_204|>"

# How the original authors' tokenizer cuts a text into words, each digit by itself; they trained with it. The released
# tokenizer.json has another rule and no normaliser, and gives some words other ids.
AUTHORS_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What is taken in place of tokenizer.json's own, by the name of the tokenizer.
TOKENIZERS: Mapping[Tokenizer, Mapping[str, Any]] = {
    "checkpoint": {},
    "baai": {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": AUTHORS_WORDS}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
    },
}


class Emu3Processor(FamilyProcessor[Pixels]):
    """The CPU half of Emu3; see models.types.Processor."""

    IMAGE_SETTINGS: ClassVar[tuple[str, ...]] = ("min_pixels", "max_pixels", "pad_to_ratio")

    def __init__(self, folder: Path, options: ProcessorOptions) -> None:
        """Load what the CPU needs of a checkpoint."""
        self.config = config = read_config(folder, text_only=options.text_only)
        super().__init__(
            "Emu3",
            config,
            ChatTokenizer(
                folder,
                PLACEHOLDER,
                options.template,
                today=options.today,
                changes=TOKENIZERS[options.tokenizer],
            ),
            END_OF_TEXT,
            options,
            make_transform=lambda own: partial(tile, read_images(folder, own)),
            pixels_per_code=None if config.vision is None else config.vision.spatial_factor,
        )
        if self.sees_images:
            self._check_files(folder, read_images(folder, options.images))

    def prepare(self, request: Request) -> ModelInput:
        """Render, tokenise and tile one request; see models.types.Processor."""
        return self._chat(request) if request.grid is None else self._drawing(request, Grid(*request.grid))

    def _chat(self, request: Request) -> ModelInput:
        rendered = self._tokenizer.read(request)
        images = self._image_reader.read(request)
        found = sum(piece.count(PLACEHOLDER) for piece in rendered.pieces[::2])
        check_placeholders(found, len(images), PLACEHOLDER)
        grids = [self._grid(image.seen) for image in images]
        sized, bos = _with_sizes(rendered, grids), self.config.bos_token_id
        encoded = encode_prompt(self._tokenizer, sized, request.choices, bos)
        vocabulary = self.config.vocabulary
        placeholder = None if vocabulary is None else vocabulary.image_placeholder
        shared = self._num_shared(request, sized, encoded.ids, placeholder, bos)
        return ModelInput(
            prompt=rendered.text,
            token_ids=np.array(self._expand(encoded.ids, grids), np.int32),
            tiles=tuple(image.seen for image in images),
            layout=tuple(side for grid in grids for side in (grid.rows, grid.columns)),
            image_tokens=sum(grid.rows * grid.columns for grid in grids),
            image_names=tuple(image.name for image in images),
            choices=encoded.choices,
            shared_length=len(self._expand(encoded.ids[:shared], grids)),
        )

    def _drawing(self, request: Request, grid: Grid) -> ModelInput:
        prompt = _drawing_prompt(_drawn_text(request), grid)
        if without := self._without_vision:
            raise BadRequest(f"found a grid of {grid.rows} x {grid.columns} codes, but {without} draws no pictures")
        is_guided = request.sampling.guidance_scale != 1
        return ModelInput(
            prompt=prompt.text,
            token_ids=self._encode(prompt),
            layout=(grid.rows, grid.columns),
            negative=self._encode(_drawing_prompt(request.negative_prompt or "", grid)) if is_guided else None,
            num_new_tokens=grid.num_tokens,
        )

    def to_answer(self, model_input: ModelInput, completion: Completion, sampling: Sampling) -> Answer:
        """Turn emitted ids back into text, those of a picture into none; see models.types.Processor."""
        answer = super().to_answer(model_input, completion, sampling)
        return answer if model_input.num_new_tokens is None else replace(answer, text="", image=completion.image)

    def _grid(self, tile: Pixels) -> Grid:
        assert self.config.vision is not None
        factor = self.config.vision.spatial_factor
        return Grid(tile.shape[0] // factor, tile.shape[1] // factor)

    def _encode(self, rendered: RenderedPrompt) -> NDArray[np.int32]:
        return np.array(self._tokenizer.encode(rendered, self.config.bos_token_id), np.int32)

    def _expand(self, ids: list[int], grids: Sequence[Grid]) -> list[int]:
        vocabulary = self.config.vocabulary
        if vocabulary is None:
            return ids
        waiting = iter(grids)
        expanded = [
            _placeholders(next(waiting), i, vocabulary.end_of_line) if i == vocabulary.image_placeholder else [i]
            for i in ids
        ]
        return [i for run in expanded for i in run]

    def _check_files(self, folder: Path, images: Emu3Images) -> None:
        """Refuse a checkpoint whose files contradict each other about pictures."""
        vq, vocabulary = self.config.vision, self.config.vocabulary
        assert vq is not None and vocabulary is not None
        if images.spatial_factor % vq.spatial_factor:
            raise CheckpointError(
                f"{folder}: the image settings' spatial_factor is {images.spatial_factor}, "
                f"expected a multiple of {vq.spatial_factor}, the VQ-VAE's pixels per code"
            )
        control = (IMAGE_START, IMAGE_TOKEN, PLACEHOLDER, END_OF_FRAME, IMAGE_END)
        expected = [
            self.config.bos_token_id,
            vocabulary.image_start,
            vocabulary.image_token,
            vocabulary.image_placeholder,
            vocabulary.end_of_frame,
            vocabulary.image_end,
        ]
        found = self._tokenizer.encode(RenderedPrompt(("".join(control),)), self.config.bos_token_id)
        if found != expected:
            raise CheckpointError(
                f"{folder / 'tokenizer.json'} reads {''.join(control)!r} as {found}, "
                f"expected {expected}, as in config.json"
            )


def tile(images: Emu3Images, image: Image.Image) -> Pixels:
    """Return a picture as the model sees it."""
    if images.pad_to_ratio is not None:
        image = padded(image, images.pad_to_ratio)
    height, width = fitted(image.height, image.width, images)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def padded(image: Image.Image, ratio: int) -> Image.Image:
    """Return a picture with black edges along its long sides if they are more than `ratio` times the others.

    It is what VLMEvalKit e8e78f0 does for Emu3-Chat (vlmeval/vlm/emu.py), where the ratio is 5: the picture stays in
    the middle, half a pixel nearer to the top or the left if need be, and comes out a little less long than `ratio`.

    Raises:
        BadImage: It would have more pixels than a picture may.
    """
    width, height = image.size
    longer = max(width, height)
    if longer <= ratio * min(width, height):
        return image
    shorter = longer // ratio + 1
    size = (longer, shorter) if width > height else (shorter, longer)
    if math.prod(size) > LIMIT_PIXELS:
        raise BadImage(
            f"refused {width} x {height} pixels: padded to {ratio}:1 they are {size[0]} x {size[1]}, "
            f"and the limit is {LIMIT_PIXELS}"
        )
    edged = Image.new("RGB", size)
    edged.paste(image, ((size[0] - width) // 2, (size[1] - height) // 2))
    return edged


def fitted(height: int, width: int, images: Emu3Images) -> tuple[int, int]:
    """Return a picture's (height, width) as the model sees it: whole codes, its shape kept, its area within limits.

    Raises:
        BadImage: It is too narrow.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise BadImage(f"refused {width} x {height} pixels: one side is more than {MAX_ASPECT} times the other")
    factor = images.spatial_factor
    # Python rounds halves to even numbers, and so does the reference.
    size = round(height / factor) * factor, round(width / factor) * factor
    if math.prod(size) > images.max_pixels:
        shrink = math.sqrt(height * width / images.max_pixels)
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if math.prod(size) < images.min_pixels:
        enlarge = math.sqrt(images.min_pixels / (height * width))
        return math.ceil(height * enlarge / factor) * factor, math.ceil(width * enlarge / factor) * factor
    return size


def _with_sizes(rendered: RenderedPrompt, grids: Sequence[Grid]) -> RenderedPrompt:
    """Put the size of each picture before its placeholder, and what ends a picture behind it."""
    waiting = iter(grids)

    def frame(_: re.Match[str]) -> str:
        return f"{_size_tokens(next(waiting))}{PLACEHOLDER}{END_OF_FRAME}{IMAGE_END}"

    pieces = enumerate(rendered.pieces)
    return RenderedPrompt(tuple(piece if i % 2 else re.sub(PLACEHOLDER, frame, piece) for i, piece in pieces))


def _placeholders(grid: Grid, placeholder: int, end_of_line: int) -> list[int]:
    """Return the ids of a picture whose codes are not known yet; its last row ends like the others."""
    return ([placeholder] * grid.columns + [end_of_line]) * grid.rows


def _size_tokens(grid: Grid) -> str:
    """Return what stands before the codes of a picture."""
    return f"{IMAGE_START}{grid.rows}*{grid.columns}{IMAGE_TOKEN}"


def _drawing_prompt(text: str, grid: Grid) -> RenderedPrompt:
    """Return the prompt for a picture: the text, all of it data, and then what the codes follow."""
    return RenderedPrompt(("", text, _size_tokens(grid)))


def _drawn_text(request: Request) -> str:
    """Return what a picture shall show, and refuse whatever else the request has."""
    if request.messages is not None:
        raise BadRequest("found `messages` for a picture, expected a `prompt`: there is no chat template for pictures")
    if request.prompt is None:
        raise BadRequest("found no `prompt` for a picture, expected a text")
    if request.images:
        raise BadRequest(f"found {len(request.images)} images, expected none: a picture is drawn from text alone")
    if request.choices:
        raise BadRequest(f"found {len(request.choices)} choices for a picture, expected none: text alone is scored")
    return request.prompt
