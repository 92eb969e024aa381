"""Where every kernel is launched from: one place to see what is launched, and with what."""

from collections.abc import Sequence
from typing import Any


def launch(kernel: Any, grid: Sequence[int], *arguments: Any, **constants: Any) -> None:
    """Launch a Triton kernel.

    Args:
        kernel: What `triton.jit` has made.
        grid: How many programs there are, on up to three axes.
        arguments: Tensors and numbers.
        constants: What is compiled in.
    """
    kernel[tuple(grid)](*arguments, **constants)
