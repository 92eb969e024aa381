"""Tiles on the device: uint8 pictures become numbers, and images encoded lately are not encoded again.

Each family decides which tiles make up an image and how they are encoded.

Shapes: N tiles of one size.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from models.types import Pixels

# Kept of images that nobody asks about any more: the next question may be on its way.
KEPT_BYTES = 2**30


class Normalize:
    """Uint8 levels as numbers, rounded as the reference processors round: / 255, - mean, / std, each in float32.

    (They multiply by 1 / 255 in float64 and round that to float32, which gives the same for each of the 256 levels.)
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        # Tensors, the 255 too: torch's kernels for GPUs take a plain number's reciprocal and multiply.
        self._scale, self._mean, self._std = (
            torch.tensor(three, dtype=torch.float32, device="cpu")[:, None, None] for three in ([255.0], mean, std)
        )

    def __call__(self, tiles: Sequence[Pixels], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return (N, 3, height, width), computed in float32 and then cast."""
        pixels = torch.from_numpy(np.stack(tiles)).to(device)  # (N, height, width, 3)
        scale, mean, std = (three.to(device) for three in (self._scale, self._mean, self._std))
        return pixels.permute(0, 3, 1, 2).contiguous().float().div_(scale).sub_(mean).div_(std).to(dtype)


class Sized(Protocol):
    """Something that knows how much memory it occupies, as a tensor does."""

    @property
    def nbytes(self) -> int:
        """What it occupies."""


F = TypeVar("F", bound=Sized)
Item = TypeVar("Item")
Kind = TypeVar("Kind")


class ImageCache(Generic[F]):
    """Features of images by name, kept as long as somebody holds them; the latest are kept a while longer.

    Attributes:
        num_encoded: Images that were encoded so far; questions about one image count once.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.num_encoded = 0
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[str, F] = OrderedDict()
        self._size = 0  # bytes of what is kept; counting them anew at each call would grow with the number of images
        self._held: WeakValueDictionary[str, F] = WeakValueDictionary()

    def find(self, names: Iterable[str], encode: Callable[[Sequence[str]], Iterable[F]]) -> dict[str, F]:
        """Return the features of named images.

        Args:
            names: As often as they are asked for.
            encode: Called with the names not known, each once; returns their features in that order.
        """
        wanted = list(dict.fromkeys(names))
        found = {name: features for name in wanted if (features := self._held.get(name)) is not None}
        missing = [name for name in wanted if name not in found]
        for name, features in zip(missing, encode(missing) if missing else (), strict=True):
            found[name] = self._held[name] = features
            self.num_encoded += 1
        for name in wanted:
            if name not in self._kept:
                self._size += found[name].nbytes
            self._kept[name] = found[name]
            self._kept.move_to_end(name)
        while self._size > self._kept_bytes:
            self._size -= self._kept.popitem(last=False)[1].nbytes
        return found


def in_batches(
    items: Sequence[Item],
    kind: Callable[[Item], Kind],
    most: Callable[[Kind], int],
    encode: Callable[[Sequence[Item]], Iterable[F]],
) -> list[F]:
    """Encode items of one kind together, as many at once as `most` says; return their features in order.

    Args:
        items: Tiles or pictures.
        kind: What items must share to be encoded together.
        most: From a kind to how many go at once.
        encode: From items of one kind to their features.
    """
    places: dict[Kind, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(kind(item), []).append(place)
    features: dict[int, F] = {}
    for alike, those in places.items():
        for i in range(0, len(those), most(alike)):
            some = those[i : i + most(alike)]
            features.update(zip(some, encode([items[place] for place in some]), strict=True))
    return [features[place] for place in range(len(items))]
