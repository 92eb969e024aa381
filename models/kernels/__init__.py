"""Kernels of our own for GPUs, written in Triton. Each has a reference in torch's operations and is optional.

Nothing here is imported where there is no GPU or no Triton: who would use a kernel asks `has_kernels` first.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


@cache
def has_kernels() -> bool:
    """Whether Triton is installed, as it is beside every torch that is built for a GPU."""
    return find_spec("triton") is not None


def are_fused(x: Tensor) -> bool:
    """Whether small steps on a tensor are one kernel each: on a GPU, but for training: they have no gradients."""
    return x.is_cuda and not torch.is_grad_enabled() and has_kernels()
