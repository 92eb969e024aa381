"""The four things that Meta's code needs of torchvision, which is not installed: done with Pillow, as it does them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class ToTensor:
    def __call__(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)


class Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool) -> None:
        assert inplace
        self.mean, self.std = (torch.tensor(numbers)[:, None, None] for numbers in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        return image.sub_(self.mean).div_(self.std)


def resize(image: Image.Image, size: tuple[int, int], interpolation: Image.Resampling) -> Image.Image:
    height, width = size
    return image.resize((width, height), interpolation)


@contextmanager
def torchvision_by_name() -> Iterator[None]:
    """Let these be imported as torchvision: only for a while, since others ask whether it is there and must hear no."""
    whole, transforms, functional = modules = [
        ModuleType(name) for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    ]
    vars(whole)["transforms"] = transforms
    vars(functional)["resize"] = resize
    vars(transforms).update(
        functional=functional,
        ToTensor=ToTensor,
        Normalize=Normalize,
        InterpolationMode=SimpleNamespace(BILINEAR=Image.Resampling.BILINEAR),
    )
    taken = {module.__name__: module for module in modules}
    assert not taken.keys() & sys.modules.keys()
    sys.modules.update(taken)
    try:
        yield
    finally:
        for name in taken:
            del sys.modules[name]
