"""Which device each part of a model lies on: all of it on one, or its layers spread over several."""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.types import CheckpointError

# In every family's files the decoder's layers are named so, whatever the decoder is called; other stacks are not.
_LAYER = re.compile(r"^\w+\.model\.layers\.(\d+)\.")
_LAST = re.compile(r"^\w+\.(model\.norm|lm_head)\.")
_BEFORE, _AFTER = -1, 1_000_000


def find_devices(device: str | Sequence[str]) -> list[torch.device]:
    """Return devices by name; `auto` is a GPU where there is one, else the CPU.

    Raises:
        CheckpointError: There is no name, or one that torch does not know.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    names = [device] if isinstance(device, str) else list(device)
    if not names:
        raise CheckpointError("found no device to load the model on, expected at least one")
    return [_device(name) for name in names]


def place_layers(model: nn.Module, devices: Sequence[torch.device]) -> Callable[[str], torch.device]:
    """Return where each parameter goes: layer by layer, in order, about as many bytes on each device.

    The vision encoder and the embeddings lie on the first device, what follows the layers on the last.

    Args:
        model: A family's, on any device; all its parameters will have one dtype.
        devices: At least one.

    Raises:
        CheckpointError: There are several, but no layers to spread.
    """
    sizes: dict[int, int] = {}
    for name, parameter in model.named_parameters():
        place = _place(name)
        sizes[place] = sizes.get(place, 0) + parameter.numel()
    if len(devices) > 1 and not sizes.keys() - {_BEFORE, _AFTER}:
        raise CheckpointError(
            f"{type(model).__name__} has no layers named ….model.layers.0, 1, …; expected them, to spread over "
            f"{len(devices)} devices"
        )
    total = sum(sizes.values())
    home, before = {}, 0
    for place in sorted(sizes):
        # A layer goes where its middle falls when all bytes are laid out in a row.
        share = (before + sizes[place] / 2) / total
        home[place] = devices[int(share * len(devices))]
        before += sizes[place]
    home[min(sizes)] = devices[0]
    return lambda name: home[_place(name)]


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; the device is not waited for."""
    return host.contiguous().pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"device: found {name!r}, expected `auto`, `cpu`, `cuda`, `cuda:1`, …") from error


def _place(name: str) -> int:
    """Return a parameter's place on the way: before the layers, a layer's own number, or after them all."""
    layer = _LAYER.match(name)
    if layer is not None:
        return int(layer[1])
    return _AFTER if _LAST.match(name) else _BEFORE
