"""Work recorded once as a CUDA graph and replayed with one launch."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

# Records work: returns what does it again, and what the work returned, tensors that then hold the new results.
Recorder = Callable[[Callable[[], list[Tensor]]], tuple[Callable[[], None], list[Tensor]]]


def record_cuda_graph(work: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
    """Record work on the current GPU.

    It is done once for a trial before, since kernels are compiled and libraries set up when they are first used;
    whoever calls undoes what that changes. Recording itself computes nothing.

    Raises:
        RuntimeError: It does what cannot be recorded, such as waiting for the GPU.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool()):
        results = work()
    return graph.replay, results


@cache
def _pool() -> Any:
    """Return the memory that all graphs of this process share: they run one after the other."""
    return torch.cuda.graph_pool_handle()
