"""Batch-invariant linear layers: on a CPU a row's result has the same bits beside any number of other rows.

An answer must not depend on what is answered beside it, and a batch is nothing but rows of one matrix product. No
library promises that: which kernel a product takes, and so how a row is rounded, depends on how many rows there are,
on the shape, the CPU and the number of threads. So each weight is repacked into the fastest of three layouts that is
seen to keep a row's bits on this machine, for the shape at hand (`repacked`):

- the library's own product (MKL, OpenBLAS): it does on Intel's CPUs with AVX-512, for small weights;
- oneDNN's on a weight packed for it: it did on every CPU and instruction set tried, but each call takes some 17
  microseconds more, which is what a whole small product takes;
- the library's in float64, rounded to float32: two sums that differ in float64's last bits are the same float32 but for
  one in about 10^8, whatever the library does.

A single row is always multiplied as two: one row alone is a vector, for which every library has another path.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Weights of so many numbers are tried packed first: MKL would copy them into a layout of its own at each call, and 8
# rows on 512 x 1792 take 0.7 of its best time. For smaller ones a call of oneDNN costs more than it saves.
PACKED_NUMBERS = 2**19

# Numbers of rows whose results must be those that they have among 64, and numbers among which those 64 must keep them:
# odd ones and those around a power of two, where libraries change their paths, and enough for threads to share them.
FEW_ROWS, ROWS, MANY_ROWS = (2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33), 64, (100, 237, 480, 1000)
# Multiplications of one trial at most; a weight of 4096 x 14336 is then tried with no more than 64 rows.
TRIED_NUMBERS = 2**29


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias; see the module for a row's bits.

    Args:
        x: (…, in).
        weight: (out, in), as it is stored or `repacked`.
        bias: (out,).
    """
    rows = x.shape[:-1].numel()
    if rows == 1 and x.device.type == "cpu":
        row = x.reshape(1, -1)
        return _multiply(torch.cat((row, row)), weight, bias)[:1].view(*x.shape[:-1], -1)
    return _multiply(x, weight, bias)


def repacked(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a weight in the layout that `linear` multiplies fastest, of those that keep a row's bits.

    Weights on a GPU, and those in half precision, stay as they are. The result may share memory with what is given.

    Args:
        weight: (out, in).
        bias: (out,), where the products will have one: some libraries begin their sums with it.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return weight
    return _LAYOUTS[_layout_for(weight, bias)](weight)


def unpacked(weight: Tensor) -> Tensor:
    """Return a weight that may be `repacked` as a plain one (out, in)."""
    plain = weight.to_dense() if weight.is_mkldnn else weight
    return plain.float() if plain.dtype == torch.float64 else plain


@runtime_checkable
class RepacksWeights(Protocol):
    """A module that repacks its weights for answering, once they are loaded."""

    def repack_weights(self) -> None:
        """Repack them. They can no longer be trained."""


class Linear(nn.Linear):
    """A linear layer over the function `linear`."""

    __call__: Callable[..., Tensor]  # nn.Module says that a call may return anything

    def repack_weights(self) -> None:
        """Repack the weight for answering. It can no longer be trained."""
        self.weight = nn.Parameter(repacked(self.weight.detach(), self.bias), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        return linear(x, self.weight, self.bias)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if weight.is_mkldnn:
        out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
        return out
    if weight.dtype == torch.float64 and x.dtype == torch.float32:
        exact = F.linear(x.double(), weight, None if bias is None else bias.double())
        return exact.float()
    return F.linear(x, weight, bias)


def _turned(weight: Tensor) -> Tensor:
    """Store a weight as (in, out): few rows are then multiplied up to twice as fast, and MKL's paths are fewer."""
    return weight.t().contiguous().t()


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "library": _turned,
    "packed": _packed,
    "float64": lambda weight: _turned(weight.double()),
}
_chosen_layouts: dict[tuple[int, int, bool, int], str] = {}  # by shape, bias and threads: what a process has tried once


def _layout_for(weight: Tensor, bias: Tensor | None) -> str:
    """Return the name of the layout for a weight's shape."""
    key = (weight.shape[0], weight.shape[1], bias is not None, torch.get_num_threads())
    if key not in _chosen_layouts:
        *names, last = _candidates(weight)
        kept = (name for name in names if _keeps_rows(_LAYOUTS[name](weight), bias is not None))
        _chosen_layouts[key] = next(kept, last)
    return _chosen_layouts[key]


def _candidates(weight: Tensor) -> list[str]:
    packed = ["packed"] if torch.backends.mkldnn.is_available() else []  # type: ignore[no-untyped-call]
    names = [*packed, "library"] if weight.numel() >= PACKED_NUMBERS else ["library", *packed]
    return [*names, "float64"]


def _keeps_rows(weight: Tensor, has_bias: bool) -> bool:
    """Try whether rows have the same bits in any number, at the front and at the back of what is multiplied."""
    many = [rows for rows in MANY_ROWS if rows * weight.numel() <= TRIED_NUMBERS]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(max([ROWS, *many]), weight.shape[1], generator=generator)
    bias = torch.randn(weight.shape[0], generator=generator) if has_bias else None
    together = _multiply(x[:ROWS], weight, bias)
    parts = [part for rows in FEW_ROWS for part in (slice(rows), slice(ROWS - rows, None))]
    return all(torch.equal(_multiply(x[:ROWS][part].clone(), weight, bias), together[part]) for part in parts) and all(
        torch.equal(_multiply(x[:rows], weight, bias)[:ROWS], together) for rows in many
    )
