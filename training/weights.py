"""The random numbers that a toy's weights start from, and the file that they end in. Knows no family."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn


class Initial(NamedTuple):
    """The random numbers that a parameter starts from; without a spread they are all the mean."""

    mean: float
    spread: float


def usual_initial(name: str, parameter: Tensor) -> Initial:
    """Start norms at 1, biases at 0, and matrices (out, in, ...) so that they keep the size of what they multiply."""
    if name.endswith("bias"):
        return Initial(0.0, 0.0)
    if parameter.ndim == 1:
        return Initial(1.0, 0.0)
    return Initial(0.0, float(parameter[0].numel() ** -0.5))


def fill_weights(model: nn.Module, initial: Callable[[str, Tensor], Initial], generator: torch.Generator) -> None:
    """Give every parameter, in the model's order, its initial numbers."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean, spread = initial(name, parameter)
            if spread:
                parameter.normal_(mean, spread, generator=generator)
            else:
                parameter.fill_(mean)


def save_weights(model: nn.Module, folder: Path, unused: Mapping[str, Tensor]) -> None:
    """Write model.safetensors in half precision.

    Args:
        model: Its parameters carry the names of the files.
        folder: The checkpoint.
        unused: What the released files hold besides and no model reads.
    """
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in model.named_parameters()}
    tensors |= {name: tensor.half() for name, tensor in unused.items()}
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
