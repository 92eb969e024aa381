"""Our way from a picture to what the model gets, against the processors of `transformers`: `… preprocess`.

The demo's photographs, decoded once, go through both sides in turn, in one process on one thread, under the image
settings of the released checkpoints. `float` ends with normalised float32 numbers on both sides; `uint8` ends with our
tiles, which is what our CPU actors do of it (the device normalises), against the same numbers of theirs. Our side names
its images, too (models/images.py: image_name). The numbers are compared to the last bit first. CPU seconds; a ratio
above 1 says that ours is faster. One JSON line for each family and end: the ratio of both sides' fastest rounds, the
median of the rounds' ratios, and ms a picture; `resize` is what Pillow alone takes to resize, on either side.

`--from bytes` begins with the files' bytes: both sides decode them, ours with models/images.py, theirs with Pillow.
"""

import argparse
import io
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AriaImageProcessorPil, Emu3ImageProcessor, MllamaImageProcessorPil

from models.aria import processor as aria
from models.aria.config import AriaImages
from models.emu3 import processor as emu3
from models.emu3.config import Emu3Images
from models.images import decode_image, image_name
from models.mllama import processor as mllama
from models.mllama.config import VisionConfig, aspect_ratios
from models.tiles import Normalize
from models.types import ImageSettings, Pixels

PHOTOGRAPHS = Path(__file__).parents[2] / "jobs/demo/data/photographs"
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Case:
    """A family under the image settings of its released checkpoint.

    Attributes:
        tiles: Ours, from a picture to its tiles.
        normalize: Ours, from tiles to numbers.
        resize: What Pillow resizes a picture to, on both sides.
        theirs: From a picture to numbers (N, 3, height, width).
    """

    tiles: Callable[[Image.Image], Sequence[Pixels]]
    normalize: Normalize
    resize: Callable[[Image.Image], Image.Image]
    theirs: Callable[[Image.Image], Tensor]

    def numbers(self, tiles: Sequence[Pixels]) -> Tensor:
        """Return ours, (N, 3, height, width)."""
        return self.normalize(tiles, torch.device("cpu"), torch.float32)

    def check(self, image: Image.Image) -> None:
        """Compare both sides; Aria's tiles leave out what is black and unseen."""
        ours = self.numbers(self.tiles(image))
        theirs = self.theirs(image)[: len(ours), :, : ours.shape[2], : ours.shape[3]]
        assert torch.equal(ours, theirs), "the numbers differ"


def _aria() -> Case:
    images = AriaImages(980, 336, split_image=False, mean=HALF, std=HALF)
    processor = AriaImageProcessorPil(max_image_size=980)
    return Case(
        lambda image: [aria.tile(image, images, 14)],
        Normalize(HALF, HALF),
        lambda image: image.resize(aria.fitted(image.width, image.height, images), Image.Resampling.BICUBIC),
        lambda image: _pixels(processor, image),
    )


def _mllama() -> Case:
    vision = VisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_global_layers=8, num_attention_heads=16,
        image_size=560, patch_size=14, norm_eps=1e-5, max_num_tiles=4, aspect_ratios=aspect_ratios(4),
        intermediate_layers=(3, 7, 15, 23, 30),
    )  # fmt: skip
    canvas, size = mllama.Canvas(vision, 4), {"height": 560, "width": 560}
    processor = MllamaImageProcessorPil(size=size, max_image_tiles=4, image_mean=CLIP_MEAN, image_std=CLIP_STD)

    def resize(image: Image.Image) -> Image.Image:
        grid = canvas.grid(image.width, image.height)
        return image.resize(mllama.fitted(image.width, image.height, grid, 560), Image.Resampling.BILINEAR)

    return Case(
        lambda image: canvas.tiles(image)[0],
        Normalize(CLIP_MEAN, CLIP_STD),
        resize,
        lambda image: _pixels(processor, image)[0, 0],
    )


def _emu3() -> Case:
    images = Emu3Images(512 * 512, 1024 * 1024, 8, CLIP_MEAN, CLIP_STD)
    processor = Emu3ImageProcessor()
    return Case(
        lambda image: [emu3.tile(images, image)],
        Normalize(CLIP_MEAN, CLIP_STD),
        lambda image: image.resize(emu3.fitted(image.height, image.width, images)[::-1], Image.Resampling.BICUBIC),
        lambda image: _pixels(processor, image),
    )


CASES = {"aria": _aria, "mllama": _mllama, "emu3": _emu3}


def _pixels(processor: Any, image: Image.Image) -> Tensor:
    found: Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
    return found


def measure(names: Sequence[str], rounds: int, begin: str) -> None:
    """Time all sides in turn, each round over all photographs."""
    torch.set_num_threads(1)
    files = [path.read_bytes() for path in sorted(PHOTOGRAPHS.iterdir())]
    images = [decode_image(data) for data in files]
    for name in names:
        case = CASES[name]()
        for image in images:
            case.check(image)
        taken = _taken(_sides(case, files, images, begin), range(len(files)), rounds)
        least = {side: min(seconds) for side, seconds in taken.items()}
        for end in ("float", "uint8"):
            ratios = [one / two for one, two in zip(taken["theirs"], taken[end], strict=True)]
            told: dict[str, Any] = {"family": name, "from": begin, "to": end}
            told |= {"ratio": round(least["theirs"] / least[end], 2), "median": round(statistics.median(ratios), 2)}
            told |= {f"{side}_ms": round(1000 * least[side], 2) for side in (end, "theirs", "resize")}
            print(json.dumps(told | {"load": round(os.getloadavg()[0], 1)}), flush=True)


def _sides(
    case: Case, files: Sequence[bytes], images: Sequence[Image.Image], begin: str
) -> dict[str, Callable[[int], object]]:
    def ours(place: int) -> Sequence[Pixels]:
        image_name(files[place], ImageSettings())
        return case.tiles(images[place] if begin == "picture" else decode_image(files[place]))

    def theirs(place: int) -> Tensor:
        return case.theirs(images[place] if begin == "picture" else Image.open(io.BytesIO(files[place])).convert("RGB"))

    return {
        "theirs": theirs,
        "float": lambda place: case.numbers(ours(place)),
        "uint8": ours,
        "resize": lambda place: case.resize(images[place]),
    }


def _taken(sides: Mapping[str, Callable[[int], object]], places: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds that each side takes for a photograph, round by round; the first round is a warm-up."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side in [*sides][:: 1 if number % 2 else -1]:
            started = time.process_time()
            for place in places:
                sides[side](place)
            taken[side].append((time.process_time() - started) / len(places))
    return {side: seconds[1:] for side, seconds in taken.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--from", dest="begin", choices=["picture", "bytes"], default="picture")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    measure(asked.families, asked.rounds, asked.begin)
