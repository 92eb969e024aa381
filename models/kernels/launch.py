"""Where every kernel is launched from: one place to see what is launched, and with what."""

from collections.abc import Sequence
from typing import Any

import torch


def launch(kernel: Any, grid: Sequence[int], *arguments: Any, **constants: Any) -> None:
    """Launch a Triton kernel.

    Args:
        kernel: What `triton.jit` has made.
        grid: How many programs there are, on up to three axes.
        arguments: Tensors and numbers, the first a tensor of the device that it runs on.
        constants: What is compiled in.
    """
    # Triton launches on the current device, which is the first one also where layers lie on several.
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        kernel[tuple(grid)](*arguments, **constants)
