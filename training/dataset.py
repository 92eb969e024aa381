"""What the toys that answer learn from: easy-VQA's train split and drawn scenes, as tiles with a label per patch.

Pictures pass through the checkpoint's own processor, so that training sees exactly what the jobs will send. Of
easy-VQA the train split alone is read, and of it the last pictures are held out for measuring. Nothing here
knows a model.
"""

import io
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import easy_vqa
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.demo.shapes import COLORS, KINDS, Shape
from models.types import ModelInput, Processor, Request
from training.questions import Pair
from training.scenes import SIDE, Scene, draw_scene

NUM_PICTURES = 4_000
FIRST_HELD_OUT = 3_600
NUM_DRAWN_SINGLE, NUM_DRAWN_PAIR = 2_500, 6_000

# A patch's label: 0 for background, else one per colour and kind.
LABELS = {name: n for n, name in enumerate((f"{color} {kind}" for color in COLORS for kind in KINDS), start=1)}
NUM_LABELS = len(LABELS) + 1
# A patch that a shape covers less than this is background.
_LEAST_COVER = 0.1
# Edges are blends of shape and background; what differs less than this (summed over the channels) is background.
_LEAST_DIFFERENCE = 40


Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """A scene as the model gets it, and the label of each patch.

    Attributes:
        model_input: A prompt's; of it the tiles and their layout are used.
        labels: int64 (P,), in LABELS.
        scene: For asking.
    """

    model_input: ModelInput
    labels: Labels
    scene: Scene


@dataclass(frozen=True)
class Question:
    """A held-out question of easy-VQA, word for word."""

    picture: int
    pair: Pair


def load_scenes() -> list[Scene]:
    """Return easy-VQA's train pictures before FIRST_HELD_OUT whose questions name their colour and kind."""
    known = _known_shapes()
    paths = easy_vqa.get_train_image_paths()
    return [_scene(Path(paths[i]), *known[i]) for i in range(FIRST_HELD_OUT) if i in known]


def load_held_out() -> tuple[dict[int, bytes], list[Question]]:
    """Return the held-out train pictures, as files, and every question about them."""
    paths = easy_vqa.get_train_image_paths()
    pictures = {i: Path(paths[i]).read_bytes() for i in range(FIRST_HELD_OUT, NUM_PICTURES)}
    rows = zip(*easy_vqa.get_train_questions(), strict=True)
    return pictures, [Question(i, Pair(text, answer)) for text, answer, i in rows if i in pictures]


def draw_scenes(rng: random.Random) -> list[Scene]:
    """Draw the scenes that go beside easy-VQA's pictures."""
    return [draw_scene(rng, 1) for _ in range(NUM_DRAWN_SINGLE)] + [draw_scene(rng, 2) for _ in range(NUM_DRAWN_PAIR)]


def make_examples(
    scenes: Iterable[Scene], processor: Processor, labels: Callable[[Scene, ModelInput], Labels]
) -> list[Example]:
    """Make scenes ready for training; `labels` names every patch of one."""
    examples = []
    for scene in scenes:
        model_input = processor.prepare(question_request("", _png(scene.picture)))
        examples.append(Example(model_input, labels(scene, model_input), scene))
    return examples


def question_request(question: str, picture: bytes) -> Request:
    """Ask as the jobs do: the picture, then the text as it is."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return Request(messages=[{"role": "user", "content": content}], images=[picture])


def resized(owner: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return which shape each pixel of a picture shows when the picture is resized."""
    return np.asarray(Image.fromarray(owner).resize((width, height), Image.Resampling.NEAREST))


def patch_labels(owner: NDArray[np.uint8], shapes: Sequence[Shape], patch_size: int) -> Labels:
    """Name the shape that covers most of each patch, row by row.

    Args:
        owner: Of a whole number of patches: 0 for background, n for a pixel of the n-th shape.
        shapes: What a scene shows.
        patch_size: In pixels.
    """
    height, width = owner.shape
    patches = owner.reshape(height // patch_size, patch_size, width // patch_size, patch_size)
    cover = np.stack([(patches == n).mean((1, 3)) for n in range(1, len(shapes) + 1)])
    names = np.array([LABELS[shape.name] for shape in shapes])
    return np.where(cover.max(0) >= _LEAST_COVER, names[cover.argmax(0)], 0).flatten()


def _known_shapes() -> dict[int, tuple[str, str]]:
    """Return picture -> (kind, color) for the train pictures whose questions name both."""
    kinds: dict[int, str] = {}
    colors: dict[int, str] = {}
    for text, answer, picture in zip(*easy_vqa.get_train_questions(), strict=True):
        is_absence = " not " in text or text.startswith("is no ")
        if answer in ("yes", "no") and (answer == "yes") == is_absence:
            continue  # names only what is not there
        for word in [answer, *text.rstrip("?").split()]:
            if word in KINDS:
                kinds[picture] = word
            elif word in COLORS:
                colors[picture] = word
    return {picture: (kinds[picture], colors[picture]) for picture in kinds.keys() & colors.keys()}


def _scene(path: Path, kind: str, color: str) -> Scene:
    with Image.open(path) as file:
        picture = file.convert("RGB")
    # The two levels with most pixels are the background and the flat inside of the shape, either first.
    common = [level for _, level in sorted(picture.getcolors(SIDE * SIDE) or [])[-2:]]
    background = max(common, key=lambda level: int(np.abs(np.array(level) - COLORS[color]).sum()))
    difference = np.abs(np.asarray(picture).astype(int) - np.array(background)).sum(-1)
    owner = (difference > _LEAST_DIFFERENCE).astype(np.uint8)
    rows, columns = owner.nonzero()
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return Scene(picture, (Shape(kind, color, box),), owner)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
